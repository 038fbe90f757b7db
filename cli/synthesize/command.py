"""The command `snowdrop synthesize`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.assignments import parse_assignments
from common import methods
from common.errors import SnowdropError


def synthesize(
    data: Annotated[Path, typer.Argument(help="data folder, or one interactions file")],
    out: Annotated[Path, typer.Option(help="the folder of synthetic users to make")],
    method: Annotated[
        str,
        typer.Option(
            help=f"NAME, NAME:VARIANT or NAME:paper; one of {', '.join(methods.synthesizers())}"
        ),
    ] = next(iter(methods.synthesizers()), ""),
    users: Annotated[
        int | None, typer.Option(help="synthetic users to make (default: as many as are real)")
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(help="how a diffusion is sampled: 'full' or 'multi', where the method can"),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="train with differential privacy of this ε, where the method can"),
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(
            help="share of the users that the training never sees: who knows the synthetic users "
            "shall not tell them from those that it has seen (0: measure no such attack)"
        ),
    ] = 0.1,
    warm_only: Annotated[
        bool | None,
        typer.Option(
            "--warm-only/--all-items",
            help="learn from warm items alone, so that cold ones stay unseen (default: where the "
            "data say which items are cold)",
        ),
    ] = None,
    replay: Annotated[
        int,
        typer.Option(
            min=0,
            help="users to plant in further trainings, 1, 10 and 100 times each, and to look for",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
    device: Annotated[
        str, typer.Option(help="torch device; auto: a GPU, if there is one")
    ] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting of the method"),
    ] = None,
    force: Annotated[bool, typer.Option(help="replace synthetic users that are there")] = False,
) -> None:
    """Make synthetic users from a silo's interactions, and measure what they give away."""
    if users is not None and users < 1:
        raise SnowdropError(f"--users is {users}; ask for 1 or more")
    if not 0 <= hold_out < 1:
        raise SnowdropError(f"--hold-out is {hold_out:g}; give a share from 0 to below 1")
    if out.exists() and data.exists() and out.samefile(data):
        raise SnowdropError(f"--out {out} is the real data; give another folder")

    from cli.synthesize.run import Order, run
    from client_app.synthesis.chosen import Chosen
    from common.device import pick_device

    given = parse_assignments(set_ or [])
    own = Chosen.of(method, given).named.card
    given |= _option(own, "sampling", sampling) | _option(own, "epsilon", epsilon)
    order = Order(
        data=data,
        chosen=Chosen.of(method, given),
        users=users,
        hold_out=hold_out,
        warm_only=warm_only,
        replay=replay,
        seed=seed,
        device=pick_device(device, "--device"),
        made=f"{datetime.now():%-d %B %Y}",
    )
    for line in run(order, out, force):
        typer.echo(line)


def _option(own: methods.Card, name: str, value: Any) -> dict[str, Any]:
    """An option that stands for a setting of the method's own group."""
    if value is None:
        return {}
    if name not in own.settings.model_fields:
        raise SnowdropError(f"--{name}: the method {own.name} has no setting {own.name}.{name}")
    return {f"{own.name}.{name}": value}
