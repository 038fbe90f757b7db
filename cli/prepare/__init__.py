"""`snowdrop prepare`: known sources of data → a data folder. One source a file."""

import typer

app = typer.Typer(no_args_is_help=True, help="Turn a known source of data into a data folder.")
