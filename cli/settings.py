"""`snowdrop settings`: every setting, its default, its value in a preset, its meaning."""

from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from rich.console import Console
from rich.table import Table

from common.errors import SnowdropError
from common.settings import PRESETS, RunSettings


def settings(
    preset: Annotated[str, typer.Option(help="the preset whose values are shown")] = "default",
) -> None:
    """List every setting with its value and meaning."""
    if preset not in PRESETS:
        raise SnowdropError(f"preset {preset!r} is unknown; choose from {', '.join(PRESETS)}")
    values = RunSettings.parse({"preset": preset})
    table = Table("setting", preset, "meaning", box=None, pad_edge=False)
    for name, field in RunSettings.model_fields.items():
        meaning = f"{field.description}{_choices(field.annotation)}"
        table.add_row(name, str(getattr(values, name)), meaning)
    Console().print(table)


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is not Literal:
        return ""
    return f": {', '.join(get_args(annotation))}"
