"""`snowdrop settings`: every setting, its default, its value in a preset, its meaning."""

from typing import Annotated

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
        table.add_row(name, str(getattr(values, name)), field.description)
    Console().print(table)
