"""All methods: their cards, one per file, and those that other packages bring.

A package of others brings a method through the entry point group ``snowdrop.methods``: the entry
point's name is the method's, and it loads to its `Card`.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from common.errors import SnowdropError, near
from common.methods.card import FROZEN, Card, MethodSettings, Paper, Values, Variant

__all__ = [
    "FROZEN",
    "Card",
    "MethodSettings",
    "Named",
    "Paper",
    "Variant",
    "card",
    "cards",
    "load",
    "names",
    "ranker",
    "ranking_for",
    "synthesizer",
    "synthesizers",
]

ENTRY_POINTS = "snowdrop.methods"
FORMS = ("paper", "tuned")
SYNTHESIZER = "synthesizer"


@cache
def cards() -> dict[str, Card]:
    """Every method's card by name, in the order of tables.

    Raises
    ------
    SnowdropError
        If a method of another package cannot be loaded, or takes a name that is in use.
    """
    found = list(_built_in())
    taken = {own.name for own in found}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            brought = point.load()
        except Exception as error:
            raise SnowdropError(
                f"the method '{point.name}' of another package cannot be loaded from "
                f"{point.value}: {error}"
            ) from error
        if not isinstance(brought, Card) or brought.name != point.name:
            raise SnowdropError(
                f"the entry point '{point.name}' of {ENTRY_POINTS} must load to the Card of a "
                f"method of that name; {point.value} is something else"
            )
        if brought.name in taken:
            raise SnowdropError(
                f"the method '{brought.name}' of another package ({point.value}) has a name that "
                "is in use; give it another one"
            )
        taken.add(brought.name)
        found.append(brought)
    return {own.name: own for own in sorted(found, key=lambda own: own.order)}


def _built_in() -> Iterator[Card]:
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        own = getattr(importlib.import_module(module.name), "CARD", None)
        if isinstance(own, Card):
            yield own


def names() -> list[str]:
    """Names of all methods that rank items, in the order of tables."""
    return [own.name for own in cards().values() if own.kind != SYNTHESIZER]


def ranking_for(task: str) -> list[str]:
    """Names of all methods that can rank for a task, in the order of tables."""
    return [name for name in names() if task in card(name).tasks]


def synthesizers() -> list[str]:
    """Names of all methods that make synthetic users, in the order of tables."""
    return [own.name for own in cards().values() if own.kind == SYNTHESIZER]


def card(name: str) -> Card:
    """The card of a method.

    Raises
    ------
    SnowdropError
        If there is none of that name.
    """
    every = cards()
    if name in every:
        return every[name]
    for own in every.values():
        if name and own.formerly == name:
            return own
    raise SnowdropError(
        f"method '{name}' is unknown{near(name, every)}; choose from {', '.join(names())}"
    )


def ranker(named: "Named") -> "Named":
    """A method that ranks items, and so can be trained and compared in a federation.

    Raises
    ------
    SnowdropError
        If it makes synthetic users instead.
    """
    if named.card.kind == SYNTHESIZER:
        raise SnowdropError(
            f"the method {named.card.name} makes synthetic users and ranks nothing: "
            "`snowdrop synthesize` and `snowdrop bench-synthetic` take it; choose from "
            f"{', '.join(names())}"
        )
    return named


def synthesizer(named: "Named") -> "Named":
    """A method that makes synthetic users.

    Raises
    ------
    SnowdropError
        If it ranks items instead.
    """
    if named.card.kind != SYNTHESIZER:
        raise SnowdropError(
            f"the method {named.card.name} makes no synthetic users; choose from "
            f"{', '.join(synthesizers())}"
        )
    return named


@dataclass(frozen=True)
class Named:
    """A method as it is written, taken apart: ``NAME[:VARIANT][:paper|:tuned]``."""

    card: Card
    variant: str = ""
    form: str = ""

    @classmethod
    def parse(cls, text: str) -> "Named":
        """A method from how it is written.

        Raises
        ------
        SnowdropError
            If the name, the variant or the form is unknown.
        """
        base, *rest = text.strip().split(":")
        own, variant = _with_former_variant(base)
        form = ""
        for part in rest:
            if part in FORMS and not form:
                form = part
            elif part in own.all_variants and not variant and not form:
                variant = part
            else:
                known = [*own.all_variants, *FORMS]
                meant = near(part, set(known) - {part})
                raise SnowdropError(
                    f"method '{text}': '{part}' is no variant of {own.name}{meant}; after ':' "
                    f"comes one of {', '.join(known)}"
                )
        return cls(own, variant, form)

    @property
    def name(self) -> str:
        """How it is written, without the form that is taken where none is said."""
        form = self.form if self.form == "paper" else ""
        return ":".join(filter(None, [self.card.name, self.variant, form]))

    @property
    def title(self) -> str:
        """As tables show it."""
        return self.card.title_of(self.variant)

    def base(self, form: str, tuned: Mapping[str, Values] | None = None) -> dict[str, Any]:
        """Tuned or published settings, over the defaults.

        Parameters
        ----------
        form : str
            'tuned' or 'paper'.
        tuned : Mapping[str, Mapping[str, Any]], optional
            Tuned settings by method, in place of those on the cards.
        """
        own = self.card.all_variants[self.variant] if self.variant else Variant("")
        if form == "paper":
            return {**self.card.published, **own.published}
        return {**tuned_of(self.card, tuned or {}), **own.tuned}

    @property
    def fixed(self) -> dict[str, Any]:
        """Settings that make it this method."""
        return self.card.fixed_of(self.variant)

    def part_names(self, given: Mapping[str, Any]) -> list[str]:
        """Names of the methods that it combines, as flat settings, it or its defaults say."""
        own = self.card
        defaults = {f"{own.name}.{key}": own.settings.model_fields[key].default
                    for key in own.parts}  # fmt: skip
        chosen = {**defaults, **self.fixed, **given}
        return [str(chosen[name]) for name in defaults]


def tuned_of(own: Card, tuned: Mapping[str, Values]) -> Values:
    """Tuned settings of a method: given ones, its own, or those of the method it is like."""
    if own.name in tuned:
        return tuned[own.name]
    if own.tuned_like and not own.tuned:
        return tuned_of(card(own.tuned_like), tuned)
    return own.tuned


def _with_former_variant(name: str) -> tuple[Card, str]:
    for own in cards().values():
        for key, variant in own.variants.items():
            if name and name == variant.formerly:
                return own, key
    return card(name), ""


def load(path: str) -> Any:
    """What ``package.module:Name`` names.

    Raises
    ------
    SnowdropError
        If it cannot be imported.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SnowdropError(f"{path} cannot be imported: {error}") from error
