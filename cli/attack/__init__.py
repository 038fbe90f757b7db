"""`snowdrop attack`: what a curious server, or who holds what it released, reads about users.

Every command runs a small federation on the data that it is given, keeps what leaves the nodes, and
then attacks from that alone. One attack a file:

- `histories`: histories from the sums of training rounds;
- `received`: histories from what a node is sent, by whoever holds it;
- `differences`: histories from two sums, one of which is over some more users;
- `questions`: histories from crafted questions;
- `guessing`: whether a user interacted with an item;
- `features`: items' features from their embeddings.
"""

import typer

from cli.lazy import Later, LazyGroup


class _Attacks(LazyGroup):
    later = {  # noqa: RUF012
        "reconstruct": Later(
            "cli.attack.reconstruct:reconstruct",
            "Read users' histories out of what nodes answer, by number of users on a node.",
        ),
        "membership": Later(
            "cli.attack.membership:membership",
            "Guess whether a user interacted with an item, against items of equal popularity.",
        ),
        "inversion": Later(
            "cli.attack.inversion:inversion",
            "Train a network from embeddings of cold items back to their features.",
        ),
    }


app = typer.Typer(
    cls=_Attacks,
    no_args_is_help=True,
    help="Attack a federation on your own data: histories, memberships, features of items.",
)


@app.callback()
def _attack() -> None:
    """Typer makes a group of an app without commands of its own only if it has this."""
