"""The replay test: a user planted many times in a training; do the synthetic users repeat it?

The planted users are held-out ones, so that the folder's own synthetic users, which were made
without them, show what similarity comes by chance. Each planting is a training of its own.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array, vstack

from cli.synthesize.target import Target
from client_app.synthesis.base import Watch
from client_app.synthesis.measured import People
from client_app.synthesis.silo import Silo
from client_app.synthesis.similarity import jaccard_to, nearest
from common.durable import write_atomic
from common.errors import SnowdropError

if TYPE_CHECKING:
    from cli.synthesize.run import Order

COPIES = (1, 10, 100)
"""How often a user is planted."""

CONTROLS = 1000
"""Held-out users, at most, that are compared with a planted one."""


@dataclass(frozen=True)
class Planting:
    """What became of one planted user.

    Parameters
    ----------
    user : int
        Which of the planted users, from 1.
    copies : int
        How often it was planted; 0 for the folder's own synthetic users.
    nearest : float
        Jaccard similarity of the most similar synthetic user.
    repeats : int
        Synthetic users with exactly its items.
    control : float
        Mean similarity of the other held-out users to their most similar synthetic user.
    as_near : float
        Share of these with a synthetic user as near as the planted one's.
    """

    user: int
    copies: int
    nearest: float
    repeats: int
    control: float
    as_near: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def replay_test(
    order: "Order", silo: Silo, people: People, likes: csr_array, target: Target, watch: Watch
) -> list[Planting]:
    """Plant users, train and look for them; what was found before is taken from the folder.

    Parameters
    ----------
    order : Order
    silo : Silo
    people : People
    likes : csr_array, bool (users, items)
        The folder's own synthetic users.
    target : Target
        Keeps what was found until all is done.
    watch : Watch

    Raises
    ------
    SnowdropError
        If there are fewer held-out users than are to be planted and compared.
    """
    if not order.replay:
        return []
    held_out = people.held_out
    chosen = planted_users(held_out, order.replay, order.seed)
    path = target.training / f"replay-{order.replay}.json"
    kept = [Planting(**one) for one in json.loads(path.read_text())] if path.exists() else []
    found = {(one.user, one.copies): one for one in kept}
    for number, row in enumerate(chosen, 1):
        for copies in (0, *COPIES):
            if (number, copies) in found:
                continue
            made, part = likes, f"planted-{number}-{copies}"
            if copies:
                told = f"user {number} of {len(chosen)} planted {copies} times"

                def watched(stage: str, done: float, total: float, told: str = told) -> None:
                    watch(f"{told}: {stage}", done, total)

                synthesizer = order.synthesizer(likes.shape[1])
                folder = target.part(part)
                synthesizer.fit(with_copies(silo, held_out[[row]], copies), order.seed, watched,
                                folder)  # fmt: skip
                made = synthesizer.sample(likes.shape[0], order.seed, watched).likes
            found[number, copies] = look_for(number, copies, row, held_out, made)
            content = json.dumps([one.as_json() for one in found.values()])
            write_atomic(path, content.encode())
            shutil.rmtree(target.training / part, ignore_errors=True)
    return list(found.values())


def planted_users(held_out: csr_array, many: int, seed: int) -> Sequence[int]:
    """Rows of users to plant: drawn from the half with more items, who are rarely like others.

    Raises
    ------
    SnowdropError
        If there are too few.
    """
    sizes = np.diff(held_out.indptr)
    able = np.argsort(-sizes, kind="stable")[: (len(sizes) + 1) // 2]
    if len(able) < many or len(sizes) < many + 1:
        raise SnowdropError(
            f"--replay {many} needs {2 * many} held-out users and there are {len(sizes)}; give a "
            "larger --hold-out or a smaller --replay"
        )
    chosen: list[int] = np.random.default_rng([seed, many]).permutation(able)[:many].tolist()
    return chosen


def with_copies(silo: Silo, user: csr_array, copies: int) -> Silo:
    """A silo with a user, bool (1, items), in it so many times more."""
    planted = vstack([user] * copies)
    return Silo(
        vstack([silo.likes, planted], format="csr"), vstack([silo.rated, planted], format="csr")
    )


def look_for(user: int, copies: int, row: int, held_out: csr_array, made: csr_array) -> Planting:
    """How near synthetic users come to a planted user, beside the others."""
    own = jaccard_to(held_out[[row]], made)
    others = np.delete(np.arange(held_out.shape[0]), row)[:CONTROLS]
    control = nearest(held_out[others], made)
    return Planting(
        user=user,
        copies=copies,
        nearest=float(own.max()),
        repeats=int((own == 1).sum()),
        control=float(control.mean()),
        as_near=float((control >= own.max()).mean()),
    )
