"""What a round costs in privacy, as far as a mechanism of the nodes has an ε."""

import logging

from common.settings import RunSettings

log = logging.getLogger("snowdrop")

ABSURD = 10.0
"""An ε of a round from which on its noise hides next to nothing: e¹⁰ is 22,000."""


def columns(settings: RunSettings) -> dict[str, float]:
    """Columns that the mechanism adds to a row of ``rounds.csv``: ε of the round, where it has one.

    With changes clipped to an L1 norm C and Laplace noise of scale δ on every entry, ε = 2 C / δ,
    for the change alone (MDiffFR, section 6.7, with clipping).
    """
    if not settings.laplace_scale:
        return {}
    return {"epsilon": 2 * settings.clip_norm / settings.laplace_scale}


def tell(settings: RunSettings) -> None:
    """Log what local differential privacy is worth in this run, before it begins."""
    if not (spent := columns(settings)):
        return
    each = spent["epsilon"]
    log.info(
        "local differential privacy of users' changes: ε = 2 C / δ = %.3g per round, %.3g over %d "
        "rounds; losses, metrics and numbers of users carry no noise",
        each, each * settings.rounds, settings.rounds,
    )  # fmt: skip
    if each >= ABSURD:
        log.warning(
            "ε = %.3g per round protects nobody: raise laplace_scale or lower clip_norm", each
        )
