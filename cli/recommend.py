"""`snowdrop recommend`: one user's new items, from what the node keeps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.errors import SnowdropError

if TYPE_CHECKING:
    import polars as pl


def recommend(
    folder: Annotated[Path, typer.Argument(help="a run directory, or a node's state folder")],
    user: Annotated[str, typer.Option(help="id of the user")],
    top: Annotated[int, typer.Option(min=1, help="how many items")] = 20,
    items: Annotated[
        Path | None, typer.Option(help="data folder with the items' titles, for a state folder")
    ] = None,
) -> None:
    """Print one user's new items with scores and titles, from what the node keeps."""
    frame = find_recommendations(folder, user)
    texts = titles(folder, items)
    Console().print(recommendation_table(frame.head(top), texts))
    if not texts and items is None:
        typer.echo("titles: --items DATA, the data folder that the items come from")
    if frame.height < top:
        typer.echo(f"no more than {frame.height} are kept for this user")


def find_recommendations(folder: Path, user: str) -> "pl.DataFrame":
    """A user's kept list, from a state folder or from whichever node of a run has the user.

    Raises
    ------
    SnowdropError
        If the folder keeps no recommendations, or none for the user.
    """
    from client_app.lists import FILE, read_recommendations

    if not folder.is_dir():
        raise SnowdropError(f"{folder} is no folder; give a run directory or a node's state folder")
    files = [folder / FILE, *sorted((folder / "nodes").glob(f"*/{FILE}"))]
    states = [file.parent for file in files if file.exists()]
    if not states:
        raise SnowdropError(
            f"{folder} keeps no recommendations: no run has ended there yet, or it is a "
            "comparison's: of these a run under runs/ keeps them with `snowdrop bench --keep`"
        )
    for state in states:
        if (frame := read_recommendations(state, user)) is not None:
            return frame
    raise SnowdropError(f"{folder} keeps no recommendations for user '{user}'")


def titles(folder: Path, items: Path | None) -> dict[str, str]:
    """Item texts by id, from a data folder or from the data of a run; empty where unknown.

    What a run cannot tell any more is a warning: its recommendations are there all the same.

    Raises
    ------
    SnowdropError
        If ``items`` is given and cannot be read.
    """
    from common.catalogue import read_catalogue
    from server_app.items import load_catalogue
    from server_app.run_folder import RunFolder

    catalogue = None
    if items is not None:
        catalogue = read_catalogue(items, seed=0)
    else:
        try:
            settings = RunFolder(folder).read_settings()
            catalogue = load_catalogue(settings) if settings else None
        except SnowdropError as error:
            typer.echo(f"warning: titles are not shown: {error}", err=True)
    return dict(zip(catalogue.ids, catalogue.texts, strict=True)) if catalogue else {}


def recommendation_table(frame: "pl.DataFrame", texts: dict[str, str]) -> Table:
    """Rank, score and item of a list, with titles where there are any, for the terminal."""
    heads = ["rank", "score", "item", *(["title"] if texts else [])]
    table = Table(*heads, box=None, pad_edge=False)
    for row in frame.iter_rows(named=True):
        title = texts.get(row["item_id"], "")
        shown = title if len(title) <= 80 else title[:79] + "…"
        # As `Text`, since square brackets in a string would be markup.
        cells = [Text(row["item_id"]), *([Text(shown)] if texts else [])]
        table.add_row(str(row["rank"]), f"{row['score']:.3f}", *cells)
    return table
