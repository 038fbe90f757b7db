import tomllib
from pathlib import Path
from typing import Any

import pytest

from common.errors import SnowdropError
from common.settings import (
    OPERATION,
    PRESETS,
    NodeSettings,
    RunSettings,
    TrainingSettings,
    cache_home,
    snowdrop_home,
)

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def app_config() -> dict[str, Any]:
    return tomllib.loads(PYPROJECT.read_text())["tool"]["flwr"]["app"]["config"]


def test_flowers_run_configuration_lists_every_setting_unset() -> None:
    config = app_config()
    assert set(config) == set(RunSettings.model_fields)
    assert set(config.values()) == {""}


def test_empty_strings_mean_unset() -> None:
    assert RunSettings.parse(app_config()) == RunSettings.parse({}) == RunSettings()


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in RunSettings.model_fields.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_parse_and_set_what_they_say(preset: str) -> None:
    parsed = RunSettings.parse({"preset": preset})
    assert parsed.preset == preset
    for key, value in PRESETS[preset].items():
        assert getattr(parsed, key) == value


def test_user_values_override_the_preset() -> None:
    parsed = RunSettings.parse({"preset": "paper", "dim": "32", "item_lr_per_item": "false"})
    assert (parsed.dim, parsed.item_lr_per_item) == (32, False)
    assert parsed.head_lr == PRESETS["paper"]["head_lr"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dimm": 3}, "unknown setting 'dimm'; `snowdrop settings` lists them all"),
        ({"dim": 0}, "setting 'dim' is 0: .*greater than or equal to 1"),
        ({"dim": "many"}, "setting 'dim' is 'many': .*valid integer"),
        ({"fraction": 1.5}, "setting 'fraction' is 1.5: .*less than or equal to 1"),
        ({"head_lr": "nan"}, "setting 'head_lr' is 'nan'"),
        ({"head": "cubic"}, "setting 'head' is 'cubic': .*'linear', 'dot' or 'mlp'"),
        ({"preset": "best"}, "setting 'preset' is 'best': .*'default' or 'paper'"),
        ({"diffusion_steps": 1}, "setting 'diffusion_steps' is 1: .*greater than or equal to 2"),
        (
            {"diffusion_steps": 1, "diffusion_schedule": "linear-variance"},
            "setting 'diffusion_steps' is 1",
        ),
        ({"laplace_scale": 0.1, "average": "touches"}, "laplace_scale needs average = users"),
        ({"laplace_scale": 0.1, "average": "users"}, "laplace_scale needs clip_norm"),
        ({"noise_scale": 50, "noise_max": 0.02}, "noise_scale · noise_max must be below 1"),
        ({"noise_min": 0.5}, "noise_min must not exceed noise_max"),
        ({"guidance_scale": 2}, "guidance_scale other than 1 needs condition_dropout"),
        ({"sampling_steps": 21}, "sampling_steps must divide diffusion_steps"),
        ({"attention_heads": 3}, "attention_heads = 3 must divide the denoiser's width 256"),
        (
            {"denoiser": "paper", "dim": 6, "attention_heads": 4},
            "attention_heads = 4 must divide the denoiser's width 6",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence) as caught:
        RunSettings.parse(values)
    assert "\n" not in str(caught.value)


def test_the_part_for_nodes_has_the_training_settings_and_no_more() -> None:
    run = RunSettings.parse({"dim": 8, "head": "mlp", "seed": 5})
    part = run.training()
    assert type(part) is TrainingSettings
    assert part.model_dump() == {k: getattr(run, k) for k in TrainingSettings.model_fields}


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunSettings().dim = 3  # type: ignore[misc]


def test_a_simulated_node_is_a_partition() -> None:
    run = RunSettings.parse({"run_dir": "/runs/x", "seed": 9})
    node = NodeSettings.parse({"partition-id": 3, "num-partitions": 7}, run)
    assert (node.partition, node.partitions, node.secret_seed) == (3, 7, 9)
    assert node.state_dir == Path("/runs/x/nodes/00003")
    assert node.interactions is None


def test_a_deployed_node_has_its_own_files_and_secret() -> None:
    config = {"interactions": "/data/mine.csv", "state-dir": "/state", "partition-id": 1}
    node = NodeSettings.parse(config, RunSettings())
    assert (node.interactions, node.state_dir) == (Path("/data/mine.csv"), Path("/state"))
    assert (node.partition, node.partitions, node.secret_seed) == (0, 1, None)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"interactions": "/data/mine.csv"}, "interactions but no state-dir"),
        ({}, "needs interactions and state-dir"),
        ({"state-dir": "/state"}, "needs interactions and state-dir"),
    ],
)
def test_an_incomplete_node_configuration_is_refused(config: dict[str, str], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        NodeSettings.parse(config, RunSettings())


def test_homes_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNOWDROP_HOME", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert (snowdrop_home(), cache_home()) == (Path("/a"), Path("/b/snowdrop"))


def test_a_deployment_s_file_stands_between_preset_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('preset = "paper"\nrounds = 7\ndim = 32\n')
    monkeypatch.setenv("SNOWDROP_SETTINGS", str(path))
    settings = RunSettings.parse({"rounds": 9, "dim": ""})
    assert (settings.rounds, settings.dim, settings.encoder) == (9, 32, "bert-base-uncased")
    path.write_text("rounds = ")
    with pytest.raises(SnowdropError, match=r"settings\.toml cannot be read"):
        RunSettings.parse({})


def test_what_belongs_to_a_run_is_no_part_of_what_nodes_train() -> None:
    assert set(OPERATION) <= set(RunSettings.model_fields)
    assert not set(OPERATION) & set(TrainingSettings.model_fields)


def test_counts_of_users_are_not_asked_for_where_noise_hides_users() -> None:
    private = {"laplace_scale": 0.1, "clip_norm": 1.0, "average": "users"}
    with pytest.raises(SnowdropError, match="warm_after needs laplace_scale = 0"):
        RunSettings.parse({**private, "warm_after": 3})
    assert RunSettings.parse(private).warm_after == 0


def test_a_node_with_a_file_of_its_own_is_no_simulation(tmp_path: Path) -> None:
    run = RunSettings.parse({"run_dir": str(tmp_path)})
    files = {"interactions": str(tmp_path / "i.csv"), "state-dir": str(tmp_path / "s")}
    deployed = NodeSettings.parse(files, run)
    assert not deployed.simulated
    assert deployed.secret_seed is None
    assert NodeSettings.parse({"partition-id": 0, "num-partitions": 2}, run).simulated
