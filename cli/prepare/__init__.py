"""`snowdrop prepare`: known sources of data → a data folder. One source a file."""

import typer

from cli.lazy import Later, LazyGroup

_TABLES = Later(
    "cli.prepare.tables:tables",
    "Tables of interactions and items, whatever their columns are called.",
)


class _Sources(LazyGroup):
    later = {  # noqa: RUF012
        "movielens": Later(
            "cli.prepare.movielens:movielens",
            "Ratings of 4 and more are interactions; title and genres are the text.",
        ),
        "amazon": Later(
            "cli.prepare.amazon:amazon",
            "Reviews are interactions; title, categories and description are the text.",
        ),
        "ninerec": Later(
            "cli.prepare.ninerec:ninerec",
            "Pairs are interactions; the English or Chinese title is the text.",
        ),
        "citeulike": Later(
            "cli.prepare.citeulike:citeulike",
            "Articles in a user's library are interactions; title (and abstract) are the text.",
        ),
        "csv": _TABLES,
        "parquet": _TABLES,
        "folder": Later(
            "cli.prepare.folder:folder",
            "A folder with train, validation and test files: the split moves into items.csv.",
        ),
        "demo": Later(
            "cli.prepare.generated:generated",
            "Generate items with readable texts, and users whose tastes show in what texts mean.",
        ),
    }


app = typer.Typer(
    cls=_Sources, no_args_is_help=True, help="Turn a known source of data into a data folder."
)


@app.callback()
def _prepare() -> None:
    """Typer makes a group of an app without commands of its own only if it has this."""
