"""`snowdrop prepare`: known sources of data → a data folder. One source a file."""

import typer

from cli.prepare.amazon import amazon
from cli.prepare.citeulike import citeulike
from cli.prepare.folder import folder
from cli.prepare.generated import generated
from cli.prepare.movielens import movielens
from cli.prepare.ninerec import ninerec
from cli.prepare.tables import tables

app = typer.Typer(no_args_is_help=True, help="Turn a known source of data into a data folder.")
app.command()(movielens)
app.command()(amazon)
app.command()(ninerec)
app.command()(citeulike)
app.command("csv")(tables)
app.command("parquet")(tables)
app.command()(folder)
app.command("demo")(generated)
