"""The rows of a comparison of synthesizers by name, and the settings of each.

A row is ``original`` (real users), or a synthesizer as `common.methods.Named` reads it, with
``@key=value`` after it: ``sdrm:paper@sdrm.epochs=5``. Tuned settings come from files of
`snowdrop tune-synthetic`: TOML with one table per method, which may stand in a table of a
recommender, of a data folder's name, or of both.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.assignments import parse_assignments
from cli.bench_synthetic.names import ORIGINAL, RECOMMENDERS
from client_app.synthesis.chosen import Chosen
from common import methods
from common.errors import SnowdropError
from common.methods import Card, MethodSettings, Named
from common.roles import unknown_setting
from common.settings import flattened

_DEEPEST = 2
"""Tables around that of a method: of a data folder, and of a recommender."""

Tuned = Mapping[str, Any]
"""Tables of settings by method, by recommender and method, and so on."""


@dataclass(frozen=True)
class Row:
    """One method of a comparison, as it is written, taken apart.

    Parameters
    ----------
    name : str
    named : Named, optional
        None for real users.
    changes : Mapping[str, Any]
        What ``@key=value`` says.
    """

    name: str
    named: Named | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Row":
        """A row from how it is written.

        Raises
        ------
        SnowdropError
            If the name, the variant, the form or a change is unknown.
        """
        written, *assignments = text.strip().split("@")
        if written == ORIGINAL:
            if assignments:
                raise SnowdropError(f"method '{text}': {ORIGINAL} has no settings")
            return cls(ORIGINAL)
        try:
            named = methods.synthesizer(Named.parse(written))
        except SnowdropError as error:
            if ":" in written or written in methods.cards():
                raise
            known = ", ".join([ORIGINAL, *methods.synthesizers()])
            raise SnowdropError(f"method '{written}' is unknown; choose from {known}") from error
        if bare := [part for part in assignments if "=" not in part]:
            raise SnowdropError(f"method '{text}': after '@' comes key=value, not '{bare[0]}'")
        row = cls("@".join([named.name, *assignments]), named, parse_assignments(assignments))
        row.settings({}, {}, "", "")  # refuses what is unknown
        return row

    @property
    def card(self) -> Card | None:
        """The card of its synthesizer."""
        return self.named.card if self.named else None

    @property
    def title(self) -> str:
        """As tables show it."""
        return self.name if self.named else "Original"

    @property
    def published(self) -> bool:
        """Whether it is in its published form."""
        return self.named is not None and self.named.form == "paper"

    def settings(
        self, tuned: Tuned, shared: Mapping[str, Any], data: str, recommender: str
    ) -> MethodSettings | None:
        """Settings of the synthesizer's own group; None for real users.

        Parameters
        ----------
        tuned : Mapping[str, Any]
            What `read_tuned` returned.
        shared : Mapping[str, Any]
            What ``--set`` says, for all methods.
        data : str
            Name of the data folder.
        recommender : str

        Raises
        ------
        SnowdropError
            If they do not fit together.
        """
        if self.named is None:
            return None
        group = f"{self.named.card.name}."
        found: dict[str, Any] = {}
        for tables in _tables(tuned, data, recommender):
            for name in self._known_as():
                found |= flattened(tables.get(name, {}))
        found = {name: value for name, value in found.items() if name not in self.named.fixed}
        common = {name: value for name, value in shared.items() if name.startswith(group)}
        written = self.name.partition("@")[0]
        return Chosen.of(written, {**found, **common, **self.changes}).settings

    @property
    def tuned_as(self) -> str:
        """Its name in a file of tuned settings."""
        return self._known_as()[-1]

    def _known_as(self) -> tuple[str, ...]:
        """Its names in a file of tuned settings; those of the published form are its own."""
        assert self.named is not None
        base = self.named.card.name
        variant = f"{base}:{self.named.variant}" if self.named.variant else base
        form = ":paper" if self.published else ""
        return tuple(dict.fromkeys([f"{base}{form}", f"{variant}{form}"]))


def _tables(tuned: Tuned, data: str, recommender: str) -> Iterable[Mapping[str, Any]]:
    """Tables of methods, the most general one first."""
    of_data = tuned.get(data, {})
    yield from (tuned, tuned.get(recommender, {}), of_data, of_data.get(recommender, {}))


def choose(text: str) -> list[Row]:
    """Rows from a comma-separated list; real users come first, whether they are named or not.

    Raises
    ------
    SnowdropError
        If one is unknown.
    """
    written = [name.strip() for name in text.split(",") if name.strip()]
    rows = [Row.parse(name) for name in (ORIGINAL, *written)]
    return list({row.name: row for row in rows}.values())


def choose_recommenders(text: str) -> list[str]:
    """Recommenders from a comma-separated list.

    Raises
    ------
    SnowdropError
        If none is named, or one is unknown.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or not set(names) <= set(RECOMMENDERS):
        raise SnowdropError(f"--recommenders {text!r} must be some of {', '.join(RECOMMENDERS)}")
    return names


def shared_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` says for all rows.

    Raises
    ------
    SnowdropError
        If a setting belongs to no synthesizer.
    """
    shared = parse_assignments(list(assignments))
    known = methods.synthesizers()
    for name in shared:
        group, dot, one = name.partition(".")
        if not dot or group not in known:
            raise SnowdropError(
                f"--set {name} is no setting of a synthesizer; write NAME.SETTING=VALUE with one "
                f"of {', '.join(known)}"
            )
        if one not in (there := methods.card(group).settings.model_fields):
            raise SnowdropError(unknown_setting(name, [f"{group}.{other}" for other in there]))
    return shared


def read_tuned(files: Sequence[Path]) -> dict[str, Any]:
    """Tables of tuned settings; where two files set the same, the last one counts.

    Raises
    ------
    SnowdropError
        If a file is missing or no TOML, or a method's table holds what is no setting of it.
    """
    tuned: dict[str, Any] = {}
    for file in files:
        try:
            tables = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SnowdropError(f"cannot read {file}: {error.strerror}") from error
        except ValueError as error:
            raise SnowdropError(f"{file} cannot be read as TOML: {error}") from error
        _check(tables, file)
        tuned = _merged(tuned, tables)
    return tuned


def _check(tables: Mapping[str, Any], file: Path, around: tuple[str, ...] = ()) -> None:
    for name, values in tables.items():
        place = ".".join([*around, name])
        if not isinstance(values, dict):
            raise SnowdropError(f"{file}: '{place}' stands outside a method's table")
        if name.partition(":")[0] not in methods.synthesizers():
            if len(around) == _DEEPEST:
                raise SnowdropError(
                    f"{file}: '{place}' is no table of a method; choose from "
                    f"{', '.join(methods.synthesizers())}"
                )
            _check(values, file, (*around, name))
            continue
        try:
            Chosen.of(name, flattened(values))
        except SnowdropError as error:
            raise SnowdropError(f"{file}, table {place}: {error}") from error


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(first)
    for name, value in second.items():
        mine = both.get(name)
        nested = isinstance(mine, dict) and isinstance(value, dict)
        both[name] = _merged(mine, value) if nested and isinstance(mine, dict) else value
    return both
