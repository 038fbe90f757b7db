"""`snowdrop deploy policy` and `withdraw`: what a node's owner says, in the node's own folder."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import SnowdropError

NodeFolder = Annotated[
    Path, typer.Argument(metavar="NODE", help="the node's own folder: DIR/nodes/NAME")
]


def policy(
    folder: NodeFolder,
    write: Annotated[bool, typer.Option(help="write the file where there is none")] = False,
) -> None:
    """Check a node's policy.toml, and show what it says and how much ε is spent."""
    from client_app.ledger import Ledger
    from client_app.partners import known_partners
    from client_app.policy import FILE, PARTNERS, Policy, template
    from client_app.withdrawal import Withdrawn
    from common.durable import write_atomic
    from common.toml import toml_lines

    state = _state(folder)
    if write and not (folder / FILE).exists():
        nodes = len(known_partners(folder / PARTNERS)) if (folder / PARTNERS).exists() else 1
        write_atomic(folder / FILE, template(nodes).encode())
    agreed = Policy.read(folder / FILE)
    typer.echo(toml_lines(agreed.model_dump()), nl=False)
    spent = Ledger(state).read()
    typer.echo(
        f"spent: ε = {spent.epsilon(agreed.delta):.4g} at δ = {agreed.delta:g}, in {spent.rounds} "
        f"rounds and {len(spent.sets)} sets of synthetic users"
    )
    withdrawn = Withdrawn.read(state)
    if withdrawn.everyone:
        typer.echo("this node has withdrawn: it answers nothing")
    elif withdrawn.users:
        typer.echo(f"withdrawn users: {len(withdrawn.users)}")


def withdraw(
    folder: NodeFolder,
    user: Annotated[
        str | None, typer.Option(help="this user alone (default: all users, and the node)")
    ] = None,
) -> None:
    """Delete users' state and recommendations on a node, and take part no more."""
    from client_app.withdrawal import withdraw_all, withdraw_user

    state = _state(folder)
    if user is None:
        withdraw_all(state)
        typer.echo(
            f"{folder} takes part in nothing any more; its users' state and recommendations are "
            "deleted. Its interactions, its key and its synthetic users stay: delete them yourself"
        )
    elif withdraw_user(state, user, listed := _has_interactions(folder, user)) or listed:
        typer.echo(
            "this user takes part no more; their state and recommendations are deleted. Their "
            "interactions, and synthetic users that were made of them, stay: delete them yourself"
        )
    else:
        raise SnowdropError(f"{folder} has neither state nor interactions of a user '{user}'")
    typer.echo("What earlier sums hold of them cannot be taken out")


def _state(folder: Path) -> Path:
    """The state folder of a node's folder."""
    state = folder / "state"
    if not state.is_dir():
        raise SnowdropError(f"{folder} is no node's folder: it has no state/; give DIR/nodes/NAME")
    return state


def _has_interactions(folder: Path, user: str) -> bool:
    from client_app.interactions import interaction_files, read_interactions

    users = read_interactions(interaction_files(folder / "data"))["user_id"].unique()
    return user in users.cast(str).to_list()
