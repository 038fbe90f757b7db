"""Groups of commands whose modules are imported when they run, so that `--help` is quick."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import click
import typer
from typer.core import TyperCommand, TyperGroup


class Later(NamedTuple):
    """A command or a group of commands that is imported when it is called."""

    place: str
    """``module:name`` of a function with Typer's annotations, or of a `typer.Typer`."""
    summary: str
    """What the list of commands says about it: the first line of its help."""


class LazyGroup(TyperGroup):
    """A group that lists its commands without importing them; for ``typer.Typer(cls=...)``.

    A subclass names them in ``later``, in the order in which `--help` lists them.
    """

    later: ClassVar[Mapping[str, Later]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, later in self.later.items():
            self.add_command(TyperCommand(name, help=later.summary), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called, imported now; unknown names are refused before."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.later:
            command = self.load(str(name))
        return name, command, rest

    def load(self, name: str) -> click.Command:
        """Import a command by its name in ``later``."""
        module, _, attribute = self.later[name].place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command = typer.main.get_command(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(name)(found)
            command = typer.main.get_command(alone)
        command.name = name
        return command
