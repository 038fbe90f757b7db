"""The bar that a federation must clear: the best rule that needs none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TRAINED, RULE, FLOOR, TWIN, CONTROL = "trained", "rule", "floor", "twin", "control"
"""Kinds of methods: a federation, a rule that needs none, random ranking; and among a run's
baselines its own frozen twin, and other embeddings of cold items from the same item table."""

BAR_METRIC = "recall@20"


def control_words(titles: Sequence[str]) -> str:
    """What the controls of a run are, as a sentence; empty where there are none.

    Parameters
    ----------
    titles : Sequence[str]
        Of the controls, as the table shows them.
    """
    if not titles:
        return ""
    named = " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))
    return (
        "Other ways to make embeddings of cold items from the item table that this run trained: "
        f"{named}."
    )


@dataclass(frozen=True)
class Bar:
    """The best local rule, and whether validation items chose it."""

    name: str
    validated: bool


def best_local_rule(
    kinds: Mapping[str, str],
    validation: Mapping[str, float | None],
    test: Mapping[str, float | None],
) -> Bar | None:
    """The rule with the highest mean validation Recall@20; None where no rule was measured.

    Parameters
    ----------
    kinds : Mapping[str, str]
        Kind of each method.
    validation, test : Mapping[str, float | None]
        Mean Recall@20 of each method. Test items choose only where no rule was validated.
    """
    for validated, means in ((True, validation), (False, test)):
        known = {
            name: mean
            for name, kind in kinds.items()
            if kind == RULE and (mean := means.get(name)) is not None
        }
        if known:
            return Bar(max(known, key=lambda name: known[name]), validated)
    return None
