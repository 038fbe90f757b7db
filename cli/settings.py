"""`snowdrop settings`: every setting, its value, its meaning; and every method."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from common import methods
from common.methods import Named
from common.settings import RunSettings


def settings(
    method: Annotated[
        str, typer.Option(help="the method whose settings are shown; empty: that of the preset")
    ] = "",
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
    table = Table("setting", preset, "meaning", box=None, pad_edge=False)
    models, shown = _of_method(method or RunSettings.parse({"preset": preset}).method, preset)
    for group, model in models.items():
        for name, field in model.model_fields.items():
            whole = f"{group}.{name}" if group else name
            if whole != "groups":
                meaning = f"{field.description}{_choices(field.annotation)}"
                table.add_row(whole, str(shown[whole]), meaning)
    Console().print(table)


def _of_method(method: str, preset: str) -> tuple[dict[str, type[BaseModel]], Mapping[str, Any]]:
    """Models of a method's settings by group, '' for the shared ones, and their values."""
    named = Named.parse(method)
    if named.card.kind == methods.SYNTHESIZER:  # of a run, it has its own group alone
        form = named.form or ("paper" if preset == "paper" else "tuned")
        written = ":".join(filter(None, [named.card.name, named.variant, form]))
        values = RunSettings.parse({"answer": "synthetic", "synthesizer": written})
        return {named.card.name: named.card.settings}, values.flat()
    values = RunSettings.parse({"preset": preset, "method": method})
    own = {name: type(group) for name, group in values.groups.items()}
    return {"": RunSettings, **own}, values.flat()


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
