"""`snowdrop settings`: every setting, its value, its meaning; and every method."""

from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from common import methods
from common.settings import RunSettings


def settings(
    method: Annotated[
        str, typer.Option(help="the method whose settings are shown")
    ] = RunSettings.model_fields["method"].default,
    preset: Annotated[
        str, typer.Option(help="default: the method's tuned values; paper: its published ones")
    ] = "default",
    all_methods: Annotated[
        bool, typer.Option("--methods", help="list the methods and their variants instead")
    ] = False,
) -> None:
    """List every setting with its value and meaning."""
    if all_methods:
        Console().print(_methods())
        return
    values = RunSettings.parse({"preset": preset, "method": method})
    shown = values.flat()
    table = Table("setting", preset, "meaning", box=None, pad_edge=False)
    models: dict[str, type[BaseModel]] = {"": RunSettings}
    models |= {name: type(own) for name, own in values.groups.items()}
    for group, model in models.items():
        for name, field in model.model_fields.items():
            if name != "groups":
                whole = f"{group}.{name}" if group else name
                meaning = f"{field.description}{_choices(field.annotation)}"
                table.add_row(whole, str(shown[whole]), meaning)
    Console().print(table)


def _methods() -> Table:
    table = Table("method", "kind", "what it is", "variants", box=None, pad_edge=False)
    for own in methods.cards().values():
        paper = f" ({own.paper.title})" if own.paper else ""
        table.add_row(own.name, own.kind, f"{own.title}{paper}", ", ".join(own.all_variants))
    return table


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is not Literal:
        return ""
    return f": {', '.join(get_args(annotation))}"
