"""All that is measured of synthetic users: how they resemble real ones, and what they give away."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import torch
from scipy.sparse import csr_array

from client_app.synthesis import attacks, fidelity
from client_app.synthesis.attacks import Roc
from client_app.synthesis.base import Watch, unwatched
from client_app.synthesis.fidelity import Fidelity
from client_app.synthesis.likelihood import likelihoods
from client_app.synthesis.similarity import Measure, Profile, profile

MOST = 200_000_000
"""Pairs of users that are compared for one number; of more, users are drawn at random."""

STAGE = "measuring"


@dataclass(frozen=True, eq=False)
class People:
    """Real users of a silo: those that a synthesizer was trained on, and those that it never saw.

    Parameters
    ----------
    trained, held_out : csr_array, bool (users, items)
        Likes; every user has one at least.
    """

    trained: csr_array
    held_out: csr_array


@dataclass(frozen=True, eq=False)
class Counts:
    """Shares of users by their number of items, or of items by their number of users.

    Parameters
    ----------
    bins : list[tuple[int, int]]
        First and last count of each bin.
    real, synthetic : list[float]
        Of the users that were trained on, and of the synthetic ones.
    """

    bins: list[tuple[int, int]]
    real: list[float]
    synthetic: list[float]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured.

    Parameters
    ----------
    fidelity : Fidelity
    items_per_user, users_per_item : Counts
    synthetic : Profile
        Synthetic users against those that were trained on.
    control : Profile
        Held-out users against those that were trained on: what is usual among strangers. Without
        held-out users, each user that was trained on against the others.
    control_held_out : bool
        Whether ``control`` is of held-out users.
    attacks : Mapping[str, Roc]
        By name; empty without held-out users.
    """

    fidelity: Fidelity
    items_per_user: Counts
    users_per_item: Counts
    synthetic: Profile
    control: Profile
    control_held_out: bool
    attacks: Mapping[str, Roc]

    def as_json(self) -> dict[str, Any]:
        """Its numbers, for a JSON file; what is no number is null."""
        return {
            "fidelity": {name: number(value) for name, value in asdict(self.fidelity).items()},
            "items_per_user": asdict(self.items_per_user),
            "users_per_item": asdict(self.users_per_item),
            "similarity": {
                "synthetic": _told(self.synthetic),
                "control": _told(self.control),
                "control_held_out": self.control_held_out,
            },
            "attacks": {name: _numbers(roc) for name, roc in self.attacks.items()},
        }


def measure(
    synthetic: csr_array,
    people: People,
    seed: int,
    device: torch.device | None = None,
    watch: Watch = unwatched,
    most: int = MOST,
) -> Measured:
    """Measure synthetic users.

    Parameters
    ----------
    synthetic : csr_array, bool (users, items)
        Every user has an item.
    people : People
    seed : int
        Of the users that are drawn where there are many, and of the likelihood attack.
    device : torch.device, optional
        Where the model of the likelihood attack is trained (default: the CPU).
    watch : Watch
    most : int
        Pairs of users that are compared for one number.
    """
    draw = np.random.default_rng(seed)
    trained, held_out = people.trained, people.held_out
    made = _some(synthetic, most // trained.shape[0], draw)
    each = most // max(synthetic.shape[0], trained.shape[0])
    members, strangers = (_some(side, each, draw) for side in (trained, held_out))
    known = bool(strangers.shape[0])
    steps = 6 if known else 3
    watch(STAGE, 0, steps)
    told = fidelity.compare(synthetic, trained)
    watch(STAGE, 1, steps)
    own = profile(made, trained)
    watch(STAGE, 2, steps)
    control = profile(strangers, trained) if known else _among(trained, most, draw)
    watch(STAGE, 3, steps)
    found: dict[str, Roc] = {}
    if known:
        for step, by in enumerate(get_args(Measure), 4):
            both = (attacks.nearest_synthetic(side, synthetic, by) for side in (members, strangers))
            found[f"nearest-{by}"] = attacks.roc(*both)
            watch(STAGE, step, steps)
        scores = attacks.nearer_than_strangers(members, strangers, synthetic)
        found["nearer-than-strangers"] = attacks.roc(*scores)
        watch(STAGE, 6, steps)
        found["likelihood"] = attacks.roc(
            *likelihoods((members, strangers), synthetic, seed, device, watch)
        )
    return Measured(
        told,
        _counts(fidelity.items_per_user(trained), fidelity.items_per_user(synthetic)),
        _counts(fidelity.users_per_item(trained), fidelity.users_per_item(synthetic)),
        own,
        control,
        known,
        found,
    )


def number(value: float) -> float | None:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else None


def _some(users: csr_array, most: int, draw: np.random.Generator) -> csr_array:
    """At most so many of the users, and one at least, where there is one."""
    return users[np.sort(draw.permutation(users.shape[0])[: max(1, most)])]


def _among(users: csr_array, most: int, draw: np.random.Generator) -> Profile:
    order = draw.permutation(users.shape[0])
    some = max(1, most // users.shape[0])
    return profile(users[order[:some]], users[order], others=True)


def _counts(real: np.ndarray, synthetic: np.ndarray) -> Counts:
    bins = fidelity.doubling_bins(int(max(real.max(initial=0), synthetic.max(initial=0))))
    return Counts(
        bins, fidelity.shares_of_bins(real, bins), fidelity.shares_of_bins(synthetic, bins)
    )


def _told(told: Profile) -> dict[str, Any]:
    """Quantiles of the nearest users, exact copies, and the table."""
    nearest = told.nearest
    return {
        "users": len(nearest),
        "nearest_quantiles": {
            f"{share:g}": float(np.quantile(nearest, share)) for share in fidelity.QUANTILES
        },
        "nearest_mean": float(nearest.mean()),
        "copies": int((nearest == 1).sum()),
        "pairs_by_tenth": told.table.tolist(),
    }


def _numbers(roc: Roc) -> dict[str, Any]:
    names = (
        "auc", "low", "high", "caught", "caught_low", "caught_high", "members", "others"
    )  # fmt: skip
    return {name: getattr(roc, name) for name in names}
