"""Names that settings had before methods had groups of their own, accepted for one release."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

log = logging.getLogger("snowdrop")

IN_GROUP = {
    "generator_target": "target",
    "generator_every": "fit_every",
    "generator_refit": "refit",
    "generator_steps": "fit_steps",
    "generator_epochs": "fit_epochs",
    "generator_batch": "fit_batch",
    "generator_optimizer": "optimizer",
    "generator_lr": "lr",
    "generator_lr_decay": "lr_decay",
    "generator_weight_decay": "weight_decay",
    "condition_noise": "condition_noise",
    "condition_dropout": "condition_dropout",
    "guidance_scale": "guidance_scale",
    "standardise": "standardise",
    "mapping_width": "width",
    "neighbours": "neighbours",
    "item_pull": "pull",
    "diffusion_steps": "steps",
    "diffusion_schedule": "schedule",
    "noise_scale": "noise_scale",
    "noise_min": "noise_min",
    "noise_max": "noise_max",
    "diffusion_loss": "loss",
    "sampler": "sampler",
    "sampling_steps": "sampling_steps",
    "samples": "samples",
    "denoiser": "denoiser",
    "denoiser_width": "width",
    "attention_heads": "attention_heads",
    "guidance": "guidance",
    "attention": "attention",
}
"""Settings of a generator, and their names in the group of a method."""

_ONLY_OF = {
    "mapping_width": ("ipfedrec", "ifedncf"),
    "item_pull": ("ipfedrec", "ifedncf"),
    "neighbours": ("cs-fcf", "cs-fedncf", "similar-items"),
    **dict.fromkeys(
        (
            "condition_dropout", "guidance_scale", "standardise", "diffusion_steps",
            "diffusion_schedule", "noise_scale", "noise_min", "noise_max", "diffusion_loss",
            "sampler", "sampling_steps", "samples", "denoiser", "denoiser_width",
            "attention_heads", "guidance", "attention",
        ),
        ("mdifffr",),
    ),
}  # fmt: skip
_METHOD_OF = {
    ("diffusion", "linear"): "mdifffr",
    ("diffusion", ""): "mdifffr",
    ("mapping", "mlp"): "ifedncf",
    ("mapping", ""): "ipfedrec",
    ("neighbours", "mlp"): "cs-fedncf",
    ("neighbours", "dot"): "cs-fcf",
    ("neighbours", ""): "similar-items",
    ("ridge", ""): "ridge",
    ("features", ""): "own-features",
}
_CHOICE = ("generator", "neighbour_share")
FORMER = frozenset((*IN_GROUP, *_CHOICE))
"""All names that are accepted for one release."""


def translated(
    values: Mapping[str, Any],
    groups_of: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    stored: bool = False,
    warn: bool = True,
) -> dict[str, Any]:
    """The same settings by their names of today.

    Parameters
    ----------
    values : Mapping[str, Any]
        Flat settings, of which some may have a former name.
    groups_of : Callable
        The groups of settings that a method's run has, by name, of flat settings with a method.
    stored : bool
        Whether an older release wrote them: then every setting is there, those of other methods
        too, which are left out, and nobody is warned.
    warn : bool
        Whether former names are told in the log; a node leaves that to the server.
    """
    told = warn and not stored
    former = {name: value for name, value in values.items() if name in FORMER}
    if not former:
        return dict(values)
    today = {name: value for name, value in values.items() if name not in FORMER}
    named = "method" in today
    if not named:
        today |= (chosen := _method(former, values))
        if told and former.keys() & set(_CHOICE):
            said = " ".join(f"{name}={former[name]}" for name in _CHOICE if name in former)
            _warn(said, " ".join(f"{name}={value}" for name, value in chosen.items()))
    groups = groups_of(today)
    if named:
        today |= _beside_method(former, today, groups, told)
    places = {name: place for place, name in enumerate(values)}
    for name, value in former.items():
        if name in _CHOICE:
            continue
        field = IN_GROUP[name]
        # The second method of a mixture had none of these settings.
        wanted = _ONLY_OF.get(name, tuple(groups)[:2])
        fitting = [g for g, model in groups.items() if g in wanted and field in model.model_fields]
        if not fitting and stored:
            continue
        group = fitting[0] if fitting else next(iter(wanted), "mdifffr")
        whole = f"{group}.{field}"
        if whole not in values or places[name] > places[whole]:  # what is said last counts
            today[whole] = value
        if told:
            _warn(name, f"{group}.{field}")
    return today


def _method(former: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The method that a former choice means; any former name alone means the former default."""
    head, generator = str(values.get("head", "")), str(former.get("generator", "diffusion"))
    method = _METHOD_OF.get((generator, head)) or _METHOD_OF.get((generator, ""), generator)
    usual = 0.0 if values.get("preset") == "paper" else 0.5
    share = former.get("neighbour_share", usual)
    with suppress(TypeError, ValueError):  # what is no number is refused where it is parsed
        share = float(share)
    if share == 0 or generator == "neighbours":
        return {"method": method}
    return {"method": "mixture", "mixture.first": method, "mixture.share": share}


def _beside_method(
    former: Mapping[str, Any], today: Mapping[str, Any], groups: Mapping[str, Any], told: bool
) -> dict[str, Any]:
    """What the former choice of a generator means beside a method by its name of today."""
    shared = "neighbour_share" in former and "mixture" in groups
    if told:
        if shared:
            _warn("neighbour_share", "mixture.share")
        for name in former.keys() & set(_CHOICE) - {"neighbour_share" if shared else ""}:
            log.warning("'%s' has no effect beside 'method'; leave it out", name)
    if shared and "mixture.share" not in today:
        return {"mixture.share": former["neighbour_share"]}
    return {}


@cache
def _warn(former: str, today: str) -> None:
    log.warning("'%s' is now '%s'; the former name works in this release only", former,
                today)  # fmt: skip
