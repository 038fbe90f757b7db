"""The methods of a comparison by name, and the settings that make each.

A method is written ``NAME[:VARIANT][:paper|:tuned]``, and ``@key=value`` after it changes a
setting: ``mdifffr:paper@mdifffr.steps=50@dim=32``. ``paper`` takes the published hyperparameters,
``tuned`` (also where nothing is said) those on the method's card or in a file that `snowdrop tune`
wrote. All methods read the same modality features, whatever was published.

The most popular items are no method: a cold item has no popularity, and that of a warm one is a sum
over all users, which is no local rule.
"""

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.assignments import parse_assignments
from common import methods
from common.errors import SnowdropError, near
from common.methods import FROZEN, Named
from common.renamed import translated
from common.roles import Role, unknown_setting
from common.settings import (
    RunSettings,
    active_groups,
    base_values,
    flattened,
    given_by_command,
    names_with,
)

SHARED = (*names_with(Role.FEATURES), "task")
"""Settings that no method may bring: it would read other features than the others do, or rank
something else."""

_CHOSEN = dict.fromkeys(("method", "generator"), "methods are chosen by their names")
"""What says which method it is, and so is no setting of one."""


def groups() -> dict[str, tuple[str, ...]]:
    """Names that stand for several methods, such as a paper's table, in the order of cards."""
    found: dict[str, tuple[str, ...]] = {}
    for own in methods.cards().values():
        for group, rows in own.comparisons.items():
            found[group] = (*found.get(group, ()), *rows)
    return found


@dataclass(frozen=True)
class Chosen:
    """One method of a comparison, as it is written, taken apart."""

    name: str
    named: Named
    changes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Chosen":
        """A method from how it is written.

        Raises
        ------
        SnowdropError
            If the name, the variant, the form or a change is unknown.
        """
        written, *assignments = text.strip().split("@")
        named = methods.ranker(Named.parse(written))
        if bare := [part for part in assignments if "=" not in part]:
            raise SnowdropError(f"method '{text}': after '@' comes key=value, not '{bare[0]}'")
        changes = parse_assignments(assignments)
        given = given_by_command() | _CHOSEN | {"preset": "write NAME:paper or NAME:tuned"}
        if taken := [key for key in changes if key in given]:
            raise SnowdropError(f"method '{text}' changes {taken[0]}: {given[taken[0]]}")
        if taken := [key for key in changes if key in SHARED]:
            raise SnowdropError(f"method '{text}' changes {taken[0]}; give --set for all methods")
        return cls("@".join([named.name, *assignments]), named, changes)

    @property
    def kind(self) -> str:
        """'trained', 'rule' or 'floor'."""
        return self.named.card.kind

    @property
    def title(self) -> str:
        """As pages show it."""
        return self.named.title

    @property
    def twin_of(self) -> str:
        """The method whose frozen twin this is; empty where it is none."""
        if self.named.variant != FROZEN:
            return ""
        return self.name.replace(f":{FROZEN}", "", 1)

    def twin(self) -> "Chosen | None":
        """The same method with the federation switched off; None of what is no tuned method."""
        plain = self.kind == "trained" and not self.named.variant and self.named.form != "paper"
        if not plain:
            return None
        first, *rest = self.name.split("@")
        return Chosen.parse("@".join([f"{first}:{FROZEN}", *rest]))

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
            Tuned settings by method, in place of those on the cards.
        shared : Mapping[str, Any]
            What is the same for all methods, unless the method's own name says otherwise. Settings
            of other methods' groups are left out.
        given : Mapping[str, Any]
            What a run adds: data, seed, folder.

        Raises
        ------
        SnowdropError
            If they do not fit together.
        """
        own = Named(self.named.card, self.named.variant).name
        changes = translated({"method": own, **self.changes}, active_groups)
        common = translated({"method": own, **shared}, active_groups, stored=True)
        common = of_groups(common, active_groups({**common, **changes}))
        form = self.named.form or ("paper" if common.get("preset") == "paper" else "tuned")
        base = base_values(self.named, form, {**common, **changes}, tuned)
        brought = {name: value for name, value in base.items() if name not in SHARED}
        preset = {"preset": "paper" if form == "paper" else "default"}
        fixed = self.named.fixed
        # A twin of a method whose name changes server_lr is frozen all the same.
        frozen = self.named.card.all_variants[FROZEN].fixed if self.twin_of else {}
        return RunSettings.of_complete(
            {**brought, **common, **fixed, **changes, **frozen, **given, **preset}
        )


def of_groups(values: Mapping[str, Any], groups: Collection[str]) -> dict[str, Any]:
    """Flat settings that all methods have, and those of these methods' own groups."""
    return {k: v for k, v in values.items() if "." not in k or k.partition(".")[0] in groups}


def unread(shared: Mapping[str, Any], runs: Iterable[RunSettings]) -> str:
    """What is said of a setting of a method that no run has, as a sentence; empty where none is.

    Parameters
    ----------
    shared : Mapping[str, Any]
        Flat settings that ``--set`` gave to all runs.
    runs : Iterable[RunSettings]
    """
    read = of_groups(shared, {group for settings in runs for group in settings.groups})
    for name in shared:
        if name not in read:
            group = name.partition(".")[0]
            return f"--set {name} changes nothing: none of these methods is or contains {group}"
    return ""


def shared_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` says for all runs of a comparison or a search.

    Raises
    ------
    SnowdropError
        If a pair has no '=', or sets what the command itself gives to each run.
    """
    shared = parse_assignments(list(assignments))
    given = given_by_command() | _CHOSEN
    if taken := [key for key in shared if key in given]:
        raise SnowdropError(f"--set {taken[0]} is not for all runs: {given[taken[0]]}")
    RunSettings.parse({"method": methods.names()[0], "preset": shared.get("preset", "")})
    known = {name.partition(".")[0] for name in shared if "." in name}
    if strange := sorted(known - set(methods.cards())):
        raise SnowdropError(
            f"--set names a setting of '{strange[0]}', which is no method"
            f"{near(strange[0], methods.cards())}; choose from {', '.join(methods.names())}"
        )
    # Of shared settings, former names are known too, and each run says which are not.
    if wrong := [sentence for name in shared if "." in name and (sentence := _unknown(name))]:
        raise SnowdropError(wrong[0])
    return shared


def always(task: str = "cold-items") -> list[str]:
    """Methods that need no training and come with every comparison of that task."""
    return [
        own.name
        for own in methods.cards().values()
        if own.kind in ("rule", "floor") and task in own.tasks
    ]


def _expanded(text: str) -> list[str]:
    """Names of methods from a comma-separated list of names and groups."""
    written = [name.strip() for name in text.split(",") if name.strip()]
    if not written:
        raise SnowdropError(f"no method is named; choose from {', '.join(methods.names())}")
    known = groups()
    return [part for name in written for part in known.get(name, (name,))]


def only_task(text: str) -> str:
    """The one task that methods of a comma-separated list can rank for; empty if there are several.

    Raises
    ------
    SnowdropError
        If there is none.
    """
    cards = {name: Chosen.parse(name).named.card for name in _expanded(text)}
    common = set.intersection(*(set(own.tasks) for own in cards.values()))
    if not common:
        told = "; ".join(f"{name} for {', '.join(own.tasks)}" for name, own in cards.items())
        raise SnowdropError(
            f"these methods rank for no task in common ({told}); compare them in two commands"
        )
    return common.pop() if len(common) == 1 else ""


def choose(text: str, twins: bool = True, task: str = "cold-items") -> list[Chosen]:
    """Methods from a comma-separated list of names and groups.

    Rules that need no federation and random ranking always come with them, and so does, with
    ``twins``, the frozen twin of each method in its tuned form.

    Raises
    ------
    SnowdropError
        If none is named, or one is unknown.
    """
    found: dict[str, Chosen] = {}
    for name in [*_expanded(text), *always(task)]:
        chosen = Chosen.parse(name)
        found.setdefault(chosen.name, chosen)
        if twins and (twin := chosen.twin()) is not None:
            found.setdefault(twin.name, twin)
    return list(found.values())


def _unknown(name: str) -> str:
    """What is wrong with the name of a setting; empty where there is such a setting."""
    group, dot, _ = name.rpartition(".")
    if dot and group not in methods.cards():
        return unknown_setting(name)
    model = methods.card(group).settings if dot else RunSettings
    there = [".".join(filter(None, [group, one])) for one in model.model_fields if one != "groups"]
    return "" if name in there else unknown_setting(name, there)


def read_tuned(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Tuned settings by method, as files of `snowdrop tune` say; the last file counts.

    Raises
    ------
    SnowdropError
        If a file is missing, no TOML, or names an unknown method.
    """
    tuned: dict[str, dict[str, Any]] = {}
    for file in files:
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SnowdropError(f"cannot read {file}: {error.strerror}") from error
        except ValueError as error:
            raise SnowdropError(f"{file} cannot be read as TOML: {error}") from error
        for name, values in tables.items():
            if name not in methods.cards() or not isinstance(values, dict):
                raise SnowdropError(f"{file} has '{name}' where a method's table should be")
            flat = flattened(values)
            given = given_by_command() | _CHOSEN | {"preset": "it holds tuned settings"}
            if taken := [key for key in flat if key in given]:
                raise SnowdropError(f"{file} sets {taken[0]} of {name}: {given[taken[0]]}")
            flat = translated({"method": name, **flat}, active_groups)
            if unknown := [sentence for key in flat if (sentence := _unknown(key))]:
                raise SnowdropError(f"{file}, [{name}]: {unknown[0]}")
            tuned[name] = {key: value for key, value in flat.items() if key != "method"}
    return tuned
