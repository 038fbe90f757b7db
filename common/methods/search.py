"""What `snowdrop tune` may choose for a setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Trial(Protocol):
    """The part of `optuna.trial.Trial` that a search needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


class Range(Protocol):
    """What may be chosen for one dimension of a search."""

    def suggest(self, trial: Trial, name: str) -> dict[str, Any]:
        """Settings of one choice."""
        ...

    def choice_of(self, settings: Mapping[str, Any], name: str) -> Any:
        """The choice that makes these settings, or None where none does."""
        ...


@dataclass(frozen=True)
class Number:
    """A number between two bounds, on a logarithmic or a linear scale, with three digits."""

    low: float
    high: float
    log: bool = True

    def suggest(self, trial: Trial, name: str) -> dict[str, Any]:
        return {name: float(f"{trial.suggest_float(name, self.low, self.high, log=self.log):.3g}")}

    def choice_of(self, settings: Mapping[str, Any], name: str) -> Any:
        value = settings[name]
        return value if self.low <= value <= self.high else None


@dataclass(frozen=True)
class OneOf:
    """One of several values."""

    values: Sequence[Any]

    def suggest(self, trial: Trial, name: str) -> dict[str, Any]:
        return {name: trial.suggest_categorical(name, self.values)}

    def choice_of(self, settings: Mapping[str, Any], name: str) -> Any:
        return settings[name] if settings[name] in self.values else None


@dataclass(frozen=True)
class Together:
    """One of several named sets of settings that belong together."""

    sets: Mapping[str, Mapping[str, Any]]

    def suggest(self, trial: Trial, name: str) -> dict[str, Any]:
        return dict(self.sets[trial.suggest_categorical(name, list(self.sets))])

    def choice_of(self, settings: Mapping[str, Any], name: str) -> Any:
        fitting = [
            key
            for key, chosen in self.sets.items()
            if all(settings[k] == v for k, v in chosen.items())
        ]
        return fitting[-1] if fitting else None


LOCAL: dict[str, Range] = {
    "head_lr": Number(0.05, 30),
    "item_lr": Number(0.5, 30),
    "local": Together(
        {
            "touched rows": {"average": "touches"},
            "all users": {"average": "users", "item_lr_per_item": True, "batch_size": 256},
        }
    ),
    "table_start": OneOf(["features", "random"]),
    "whitening": Number(0, 1, log=False),
    "dim": OneOf([64, 128, 200, 256]),
    "rounds": OneOf([40, 100]),
}
"""The training on nodes, for every method that trains an item table."""

SMALL_HEADS: dict[str, Range] = {"dim": OneOf([16, 32, 64])}
"""An mlp head has 2 d² numbers for each user."""
