import json
import logging
from pathlib import Path
from typing import Any

import pytest

from common import renamed
from common.errors import SnowdropError
from common.renamed import FORMER
from common.settings import RunSettings

FORMER_DUMP = """{
"dim": 256, "head": "linear", "head_start": "zero", "local_epochs": 1, "batch_size": 0,
"negatives": 5, "head_lr": 10.0, "item_lr": 3.0, "item_lr_per_item": false, "average": "touches",
"item_pull": 0.0, "fraction": 1.0, "clip_norm": 0.0, "laplace_scale": 0.0, "wire_dtype": "float32",
"keep_rounds": 3, "seed": 0, "preset": "default", "mode": "train", "data": "demo", "run_dir": "",
"resume": false, "server_device": "auto", "rounds": 40, "evaluate_every": 10, "nodes": 2,
"nodes_timeout": 120.0, "nodes_per_round": 0, "round_timeout": 600.0, "max_update_norm": 0.0,
"max_node_users": 0, "round_retries": 2, "baselines": true, "warm_after": 0, "tensorboard": false,
"top": 20, "encoder": "minilm", "pooling": "mean", "max_tokens": 256, "encode_batch": 64,
"encode_cache": "", "table_start": "features", "whitening": 0.5, "server_lr": 1.0,
"generator": "diffusion", "generator_target": "embedding", "generator_every": 40,
"generator_refit": true, "generator_steps": 2000, "generator_epochs": 1, "generator_batch": 256,
"generator_optimizer": "adamw", "generator_lr": 0.001, "generator_lr_decay": "cosine",
"generator_weight_decay": 0.001, "condition_dim": 0, "condition_noise": 0.5,
"condition_dropout": 0.0, "guidance_scale": 1.0, "standardise": "global", "mapping_width": 300,
"neighbours": 10, "neighbour_share": 0.5, "diffusion_steps": 20, "diffusion_schedule": "cosine",
"noise_scale": 0.1, "noise_min": 0.0001, "noise_max": 0.02, "diffusion_loss": "plain",
"sampler": "mean", "sampling_steps": 0, "samples": 1, "denoiser": "residual",
"denoiser_width": 256, "attention_heads": 4, "guidance": "modality", "attention": true}"""
"""The settings of a run of the release before, as it wrote them down."""

CHANGED = {
    "dim": 64, "head_lr": 0.1, "batch_size": 32, "rounds": 9, "seed": 3, "condition_dim": 16,
    "generator_target": "change", "generator_every": 3, "generator_refit": False,
    "generator_steps": 123, "generator_epochs": 4, "generator_batch": 17,
    "generator_optimizer": "sgd", "generator_lr": 0.02, "generator_lr_decay": "none",
    "generator_weight_decay": 0.25, "condition_noise": 0.125, "condition_dropout": 0.2,
    "guidance_scale": 1.5, "standardise": "none", "mapping_width": 77, "neighbours": 6,
    "item_pull": 2.5, "diffusion_steps": 10, "diffusion_schedule": "linear-variance",
    "noise_scale": 0.3, "noise_min": 0.0002, "noise_max": 0.03, "diffusion_loss": "snr",
    "sampler": "ddim", "sampling_steps": 5, "samples": 2, "denoiser": "paper",
    "denoiser_width": 96, "attention_heads": 2, "guidance": "zero", "attention": False,
}  # fmt: skip
"""Another value of what a run may have changed: each former setting of a generator among it."""

NETWORK = {
    "target": "generator_target", "fit_every": "generator_every", "refit": "generator_refit",
    "fit_steps": "generator_steps", "fit_epochs": "generator_epochs",
    "fit_batch": "generator_batch", "optimizer": "generator_optimizer", "lr": "generator_lr",
    "lr_decay": "generator_lr_decay", "weight_decay": "generator_weight_decay",
    "condition_noise": "condition_noise",
}  # fmt: skip
IFEDREC = {**NETWORK, "width": "mapping_width", "pull": "item_pull"}
NEAR = {"target": "generator_target", "neighbours": "neighbours"}
GROUPS: dict[str, dict[str, str]] = {
    "mdifffr": {
        **NETWORK, "condition_dropout": "condition_dropout", "guidance_scale": "guidance_scale",
        "standardise": "standardise", "steps": "diffusion_steps", "schedule": "diffusion_schedule",
        "noise_scale": "noise_scale", "noise_min": "noise_min", "noise_max": "noise_max",
        "loss": "diffusion_loss", "sampler": "sampler", "sampling_steps": "sampling_steps",
        "samples": "samples", "denoiser": "denoiser", "width": "denoiser_width",
        "attention_heads": "attention_heads", "guidance": "guidance", "attention": "attention",
    },
    "ipfedrec": IFEDREC,
    "ifedncf": IFEDREC,
    "cs-fcf": NEAR,
    "cs-fedncf": NEAR,
    "similar-items": NEAR,
    "ridge": {"target": "generator_target"},
    "own-features": {},
}  # fmt: skip
NEWER = {"mdifffr.sampling_noise"}
"""Settings of these groups that the release before did not have."""

METHODS = {
    ("diffusion", "linear"): "mdifffr",
    ("diffusion", "dot"): "mdifffr",
    ("diffusion", "mlp"): "mdifffr",
    ("mapping", "linear"): "ipfedrec",
    ("mapping", "dot"): "ipfedrec",
    ("mapping", "mlp"): "ifedncf",
    ("neighbours", "linear"): "similar-items",
    ("neighbours", "dot"): "cs-fcf",
    ("neighbours", "mlp"): "cs-fedncf",
    ("ridge", "linear"): "ridge",
    ("ridge", "mlp"): "ridge",
    ("features", "linear"): "own-features",
    ("features", "dot"): "own-features",
}


@pytest.fixture(autouse=True)
def _every_warning_anew() -> None:
    renamed._warn.cache_clear()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.25])
@pytest.mark.parametrize(("generator", "head"), METHODS)
@pytest.mark.parametrize("changed", [{}, CHANGED], ids=["defaults", "changed"])
def test_settings_that_the_release_before_wrote_down(
    generator: str,
    head: str,
    share: float,
    changed: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    stored = {**json.loads(FORMER_DUMP), **changed}
    stored |= {"generator": generator, "head": head, "neighbour_share": share}
    today = RunSettings.read(stored)
    method = METHODS[generator, head]
    mixed = share > 0 and generator != "neighbours"
    assert today.method == ("mixture" if mixed else method)
    values = today.flat()
    expected = {name: value for name, value in stored.items() if name not in FORMER}
    expected |= {f"{method}.{now}": stored[name] for now, name in GROUPS[method].items()}
    if mixed:
        # Neighbours were always averaged as embeddings.
        expected |= {
            "mixture.first": method, "mixture.second": "similar-items", "mixture.share": share,
            "similar-items.neighbours": stored["neighbours"], "similar-items.target": "embedding",
        }  # fmt: skip
    assert {name: values[name] for name in expected} == expected
    own = {name for name in values if "." in name} - NEWER
    assert own == {name for name in expected if "." in name}
    assert not caplog.text
    assert RunSettings.read(today.flat()) == today


def test_every_former_setting_of_a_generator_is_in_a_group() -> None:
    told = {name for group in GROUPS.values() for name in group.values()}
    assert told | {"generator", "neighbour_share"} == FORMER
    assert told <= set(CHANGED)


@pytest.mark.parametrize("name", sorted(set(CHANGED) & FORMER))
def test_a_former_name_is_accepted_with_a_warning(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    method = {"mapping_width": "ipfedrec", "item_pull": "ipfedrec", "neighbours": "cs-fcf"}.get(
        name, "mdifffr"
    )
    field = {former: now for now, former in GROUPS[method].items()}[name]
    every: dict[str, dict[str, Any]] = {
        "guidance_scale": {"mdifffr.condition_dropout": 0.1},
        "sampling_steps": {"mdifffr.steps": 10},
    }
    further = every.get(name, {})
    with caplog.at_level(logging.WARNING, "snowdrop"):
        former = RunSettings.parse({"method": method, name: CHANGED[name], **further})
    whole = f"{method}.{field}"
    assert former.flat()[whole] == CHANGED[name]
    assert former == RunSettings.parse({"method": method, whole: CHANGED[name], **further})
    said = [record.getMessage() for record in caplog.records]
    expected = f"'{name}' is now '{whole}'; the former name works in this release only"
    assert said == [expected]


@pytest.mark.parametrize(
    ("former", "today"),
    [
        ({"generator": "diffusion"}, {"method": "mixture"}),
        ({"generator": "diffusion", "neighbour_share": 0}, {"method": "mdifffr"}),
        ({"generator": "diffusion", "preset": "paper"}, {"method": "mdifffr:paper"}),
        ({"neighbour_share": 0.2}, {"method": "mixture", "mixture.share": 0.2}),
        ({"generator": "mapping"}, {"method": "mixture", "mixture.first": "ipfedrec"}),
        ({"generator": "mapping", "neighbour_share": "0.0"}, {"method": "ipfedrec"}),
        (
            {"generator": "mapping", "head": "mlp", "neighbour_share": 0},
            {"method": "ifedncf"},
        ),
        ({"generator": "neighbours"}, {"method": "similar-items"}),
        ({"generator": "neighbours", "head": "dot"}, {"method": "cs-fcf"}),
        ({"generator": "neighbours", "head": "mlp"}, {"method": "cs-fedncf"}),
        ({"generator": "ridge", "neighbour_share": 0}, {"method": "ridge"}),
        ({"generator": "features", "neighbour_share": 0}, {"method": "own-features"}),
        (
            {"generator": "diffusion", "generator_steps": 5, "neighbours": 3},
            {"method": "mixture", "mdifffr.fit_steps": 5, "similar-items.neighbours": 3},
        ),
    ],
    ids=str,
)
def test_a_former_choice_is_accepted_with_a_warning(
    former: dict[str, Any], today: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "snowdrop"):
        parsed = RunSettings.parse(former)
    assert parsed == RunSettings.parse(today)
    assert "is now 'method=" in caplog.records[0].getMessage()
    assert not set(parsed.flat()) & (FORMER - {"condition_dim"})


def test_what_is_given_by_both_names_has_the_value_of_todays() -> None:
    values = {"method": "mdifffr", "diffusion_steps": 5, "mdifffr.steps": 7}
    assert RunSettings.parse(values).group("mdifffr").steps == 7


def test_a_share_beside_a_mixture_counts(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("mixture", "snowdrop"):
        run = RunSettings.parse({"method": name, "neighbour_share": 0.3})
        assert run.group("mixture").share == 0.3
    run = RunSettings.parse({"method": "mixture", "neighbour_share": 0.3, "mixture.share": 0.1})
    assert run.group("mixture").share == 0.1
    assert "'neighbour_share' is now 'mixture.share'" in caplog.text


@pytest.mark.parametrize("name", ["generator", "neighbour_share"])
def test_a_former_choice_beside_a_method_is_told(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    value = {"generator": "ridge", "neighbour_share": 0.1}[name]
    assert RunSettings.parse({"method": "mdifffr", name: value}).method == "mdifffr"
    assert f"'{name}' has no effect beside 'method'; leave it out" in caplog.text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"generator": "magic"}, "method 'magic' is unknown"),
        (
            {"method": "ridge", "diffusion_steps": 5},
            "'mdifffr.steps' belongs to the method mdifffr",
        ),
        ({"method": "ridge", "generator_steps": 5}, "unknown setting 'ridge.fit_steps'"),
        ({"diffusion_steps": 1}, "setting 'mdifffr.steps' is 1: it must be 2 or more"),
    ],
)
def test_former_names_are_checked_as_todays(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        RunSettings.parse(values)


def test_names_of_today_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    RunSettings.parse({"method": "mdifffr", "mdifffr.steps": 5, "dim": 8})
    assert not caplog.text


def test_a_node_leaves_the_warning_to_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "snowdrop"):
        settings = RunSettings.of_run({"method": "mdifffr", "denoiser_width": 40}, 1, warn=False)
    assert settings.group("mdifffr").width == 40
    assert "denoiser_width" not in caplog.text


@pytest.mark.parametrize("share", ["much", [0.5]])
def test_a_share_that_is_no_number_is_refused_in_a_sentence(share: object) -> None:
    with pytest.raises(SnowdropError, match=r"setting 'mixture\.share'"):
        RunSettings.parse({"neighbour_share": share})


def test_of_a_former_name_and_todays_the_one_said_last_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    monkeypatch.setenv("SNOWDROP_SETTINGS", str(file))
    for deployed, given in (
        ('"mdifffr.steps" = 10', {"diffusion_steps": 40}),
        ("diffusion_steps = 10", {"mdifffr.steps": 40}),
    ):
        file.write_text(deployed)
        assert RunSettings.of_run(given, 1).flat()["mdifffr.steps"] == 40
