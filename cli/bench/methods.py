"""The methods of a comparison by name, and the settings that make each.

A method is written ``NAME``, ``NAME:paper`` or ``NAME:tuned``, and ``@key=value`` after it changes
a setting: ``mdifffr:paper@diffusion_steps=50@dim=32``. ``paper`` takes the published
hyperparameters, ``tuned`` (also where nothing is said) those of `tuned.toml` or of a file that
`snowdrop tune` wrote. All methods read the same modality features, whatever the preset says.

The most popular items are no method here: a cold item has no popularity.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.simulate import parse_assignments
from common.errors import SnowdropError
from common.settings import PRESETS, RunSettings

TUNED = Path(__file__).with_name("tuned.toml")
SHARED = ("encoder", "pooling", "max_tokens")
"""Settings that no method may bring: they would give it other features than the others read."""


GIVEN = {
    "data": "give the data folder as the argument",
    "seed": "give --seeds to bench, --seed to tune",
    "run_dir": "give --out",
    "resume": "the same command goes on",
    "nodes": "each has one node, which changes no result",
    "baselines": "content-profile and random are methods of their own",
    "mode": "each trains",
    "warm_after": "no training is gone on with",
}
"""Settings that a comparison or a search gives to each run, and what to do in place of them."""


@dataclass(frozen=True)
class Method:
    """What makes a method, and the hyperparameters that were published for it."""

    title: str
    fixed: Mapping[str, Any]
    published: Mapping[str, Any] = field(default_factory=dict)
    tuned_like: str = ""
    tuned_fixed: Mapping[str, Any] = field(default_factory=dict)
    scorer: str = "head"


_IFEDREC = {
    "generator_optimizer": "adamw",
    "generator_lr": 0.005,
    "generator_weight_decay": 0.0,
    "generator_batch": 0,
    "dim": 200,
}
"""IFedRec's own d = 200, since with d = 64 its λ = 10 pulls a row past its target by 1.5 times the
distance in every step (2 · 8 · 10 / 64 = 2.5), and the item table diverges. IFedNCF's λ = 1 does
no such thing, and its heads of 2 d² + 4 d + 1 numbers a user are best kept small: d = 64 as MDiffFR
gives it. Our nodes step the head first and then the items, where IFedNCF's code does both at once.
"""

_MDIFFFR = {"generator": "diffusion", "head": "linear"}

_NO_TRAINING = {"generator": "features", "table_start": "features", "rounds": 1, "dim": 8}

METHODS: dict[str, Method] = {
    "snowdrop": Method(
        "MDiffFR + similar items", _MDIFFFR | {"neighbour_share": 0.5}, tuned_like="mdifffr"
    ),
    "mdifffr": Method("MDiffFR", _MDIFFFR),
    "light-mdifffr": Method(
        "Light-MDiffFR",
        _MDIFFFR,
        {"generator_every": 2},
        tuned_like="mdifffr",
        tuned_fixed={"generator_steps": 1000},
    ),
    "ipfedrec": Method(
        "IPFedRec",
        {"generator": "mapping", "head": "linear"},
        _IFEDREC | {"item_pull": 10.0},
    ),
    "ifedncf": Method(
        "IFedNCF",
        {"generator": "mapping", "head": "mlp"},
        _IFEDREC | {"dim": 64, "item_pull": 1.0, "head_lr": 0.5, "item_lr": 40.0},
    ),
    "cs-fcf": Method("CS_FCF", {"generator": "neighbours", "head": "dot"}, {"condition_dim": 0}),
    "cs-fedncf": Method(
        "CS_FedNCF",
        {"generator": "neighbours", "head": "mlp"},
        {"condition_dim": 0, "head_lr": 0.5, "item_lr": 40.0},
    ),
    "ridge": Method(
        "ridge map", {"generator": "ridge", "head": "linear"}, {"condition_dim": 0}, "mdifffr"
    ),
    "own-features": Method(
        "own features",
        {"generator": "features", "head": "linear", "table_start": "features"},
        tuned_like="mdifffr",
    ),
    "no-guidance": Method("w/o guidance", _MDIFFFR | {"guidance": "none"}, {}, "mdifffr"),
    "no-attention": Method("w/o attention", _MDIFFFR | {"attention": False}, {}, "mdifffr"),
    "zero-guidance": Method("w/ zero", _MDIFFFR | {"guidance": "zero"}, {}, "mdifffr"),
    "random-guidance": Method("w/ random", _MDIFFFR | {"guidance": "random"}, {}, "mdifffr"),
    "random-start": Method("from random", _MDIFFFR | {"table_start": "random"}, {}, "mdifffr"),
    "feature-start": Method("from features", _MDIFFFR | {"table_start": "features"}, {}, "mdifffr"),
    "content-profile": Method("content profile", _NO_TRAINING, scorer="content-profile"),
    "random": Method("random", _NO_TRAINING, scorer="random"),
}

BASELINES = ("content-profile", "random")
"""They need no training and come with every comparison."""

GROUPS: dict[str, tuple[str, ...]] = {
    "table2": ("snowdrop", "mdifffr", "light-mdifffr", "ipfedrec", "ifedncf", "cs-fcf",
               "cs-fedncf", "ridge", "own-features"),
    "table2:paper": ("mdifffr:paper", "light-mdifffr:paper", "ipfedrec:paper", "ifedncf:paper",
                     "cs-fcf:paper", "cs-fedncf:paper"),
    "table4": ("mdifffr", "no-guidance", "no-attention", "zero-guidance", "random-guidance",
               "random-start"),
    "steps": ("mdifffr@diffusion_steps=5", "mdifffr@diffusion_steps=10", "mdifffr",
              "mdifffr@diffusion_steps=50"),
    "figure7": ("mdifffr@dim=16", "mdifffr@dim=32", "mdifffr@dim=64", "mdifffr@dim=128",
                "mdifffr@dim=256"),
}  # fmt: skip
"""Names that stand for several methods: the paper's tables and figures."""


@dataclass(frozen=True)
class Chosen:
    """One method of a comparison, as it is written, taken apart."""

    name: str
    method: Method
    form: str
    base: str
    changes: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Chosen":
        """A method from how it is written.

        Raises
        ------
        SnowdropError
            If the name, the form or a change is unknown.
        """
        named, *assignments = text.strip().split("@")
        base, _, form = named.partition(":")
        if base not in METHODS:
            raise SnowdropError(f"method '{base}' is unknown; choose from {', '.join(METHODS)}")
        if form not in ("", "paper", "tuned"):
            raise SnowdropError(f"method '{text}': after ':' comes paper or tuned, not '{form}'")
        if bare := [text for text in assignments if "=" not in text]:
            raise SnowdropError(f"method '{text}': after '@' comes key=value, not '{bare[0]}'")
        changes = parse_assignments(assignments)
        if taken := [key for key in changes if key in GIVEN]:
            raise SnowdropError(f"method '{text}' changes {taken[0]}: {GIVEN[taken[0]]}")
        if taken := [key for key in changes if key in SHARED]:
            raise SnowdropError(f"method '{text}' changes {taken[0]}; give --set for all methods")
        name = "@".join([base + (":paper" if form == "paper" else ""), *assignments])
        return cls(name, METHODS[base], form or "tuned", base, changes)

    def settings(
        self,
        tuned: Mapping[str, Mapping[str, Any]],
        shared: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> RunSettings:
        """All settings of the method.

        Parameters
        ----------
        tuned : Mapping[str, Mapping[str, Any]]
            Tuned settings by method.
        shared : Mapping[str, Any]
            What is the same for all methods, unless the method's own name says otherwise.
        given : Mapping[str, Any]
            What a run adds: data, seed, folder.
        """
        method = self.method
        if self.form == "paper":
            values = {"preset": "paper"} | common_features() | dict(method.published)
        else:
            own = tuned.get(self.base)
            values = dict(tuned.get(method.tuned_like, {}) if own is None else own)
            values |= method.tuned_fixed
        alone = {"neighbour_share": 0.0}
        return RunSettings.parse(
            {**alone, **values, **shared, **method.fixed, **self.changes, **given}
        )


def shared_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` says for all runs of a comparison or a search.

    Raises
    ------
    SnowdropError
        If a pair has no '=', or sets what the command itself gives to each run.
    """
    shared = parse_assignments(list(assignments))
    if taken := [key for key in shared if key in GIVEN]:
        raise SnowdropError(f"--set {taken[0]} is not for all runs: {GIVEN[taken[0]]}")
    return shared


def common_features() -> dict[str, Any]:
    """The default preset's encoder, for presets that name another."""
    default = RunSettings()
    return {name: getattr(default, name) for name in SHARED if name in PRESETS["paper"]}


def choose(text: str) -> list[Chosen]:
    """Methods from a comma-separated list of names and groups; the baselines always come with them.

    Raises
    ------
    SnowdropError
        If none is named, or one is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SnowdropError(f"no method is named; choose from {', '.join(METHODS)}")
    expanded = [part for name in names for part in GROUPS.get(name, (name,))]
    found = [Chosen.parse(name) for name in [*expanded, *BASELINES]]
    return list({chosen.name: chosen for chosen in found}.values())


def read_tuned(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Tuned settings by method: `tuned.toml`, and over it what ``files`` say.

    Raises
    ------
    SnowdropError
        If a file is missing, no TOML, or names an unknown method.
    """
    tuned: dict[str, dict[str, Any]] = {}
    for file in (TUNED, *files):
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SnowdropError(f"cannot read {file}: {error.strerror}") from error
        except ValueError as error:
            raise SnowdropError(f"{file} cannot be read as TOML: {error}") from error
        for name, values in tables.items():
            if name not in METHODS or not isinstance(values, dict):
                raise SnowdropError(f"{file} has '{name}' where a method's table should be")
            tuned[name] = values
    return tuned
