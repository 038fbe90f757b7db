from pathlib import Path

import pytest

from cli.bench.methods import (
    GROUPS,
    METHODS,
    SHARED,
    Chosen,
    choose,
    read_tuned,
    shared_settings,
)
from common.errors import SnowdropError
from common.settings import PRESETS, RunSettings


@pytest.mark.parametrize("name", [*METHODS, *(f"{name}:paper" for name in METHODS)])
def test_every_method_has_settings(name: str) -> None:
    chosen = Chosen.parse(name)
    settings = chosen.settings(read_tuned([]), {}, {"seed": 4})
    for key, value in chosen.method.fixed.items():
        assert getattr(settings, key) == value
    assert settings.seed == 4
    assert all(getattr(settings, key) == getattr(RunSettings(), key) for key in SHARED)


def test_paper_means_the_published_settings() -> None:
    settings = Chosen.parse("mdifffr:paper").settings({}, {}, {})
    for key, value in PRESETS["paper"].items():
        assert key in SHARED or getattr(settings, key) == value
    ipfedrec = Chosen.parse("ipfedrec:paper").settings({}, {}, {})
    assert (ipfedrec.generator, ipfedrec.item_pull, ipfedrec.generator_lr) == ("mapping", 10, 0.005)
    assert (ipfedrec.head_lr, ipfedrec.item_lr, ipfedrec.item_lr_per_item) == (0.1, 8, True)


def test_the_methods_own_name_goes_before_what_is_shared() -> None:
    shared = {"dim": 32, "rounds": 3, "generator": "ridge"}
    chosen = Chosen.parse("mdifffr@dim=16@whitening=0.25")
    settings = chosen.settings({"mdifffr": {"rounds": 9, "whitening": 1.0}}, shared, {})
    assert (settings.dim, settings.rounds, settings.whitening) == (16, 3, 0.25)
    assert settings.generator == "diffusion"


def test_an_ablation_is_tuned_like_its_method() -> None:
    tuned = {"mdifffr": {"head_lr": 7.0}, "ipfedrec": {"head_lr": 2.0}}
    assert Chosen.parse("no-guidance").settings(tuned, {}, {}).head_lr == 7
    assert Chosen.parse("ipfedrec:tuned").settings(tuned, {}, {}).head_lr == 2
    assert Chosen.parse("ipfedrec:tuned").name == "ipfedrec"


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_stands_for_its_methods(group: str) -> None:
    names = [chosen.name for chosen in choose(f"{group}, random,{GROUPS[group][0]}")]
    assert set(names) == {*GROUPS[group], "content-profile", "random"}
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("popular", "method 'popular' is unknown; choose from snowdrop, "),
        ("mdifffr:best", "after ':' comes paper or tuned, not 'best'"),
        ("mdifffr@dim", "key=value, not 'dim'"),
        ("mdifffr@seed=5", "method 'mdifffr@seed=5' changes seed: give --seeds"),
        ("mdifffr@encoder=other", "changes encoder; give --set for all methods"),
    ],
)
def test_what_is_wrong_with_a_method(text: str, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        choose(text)


@pytest.mark.parametrize(
    "key", ["seed", "nodes", "data", "run_dir", "resume", "baselines", "warm_after"]
)
def test_what_each_run_is_given_is_no_setting_for_all(key: str) -> None:
    assert shared_settings(["dim=8", "preset=paper"]) == {"dim": 8, "preset": "paper"}
    with pytest.raises(SnowdropError, match=f"--set {key} is not for all runs: "):
        shared_settings(["dim=8", f"{key}=3"])
    assert key in RunSettings.model_fields


def test_a_file_of_tuned_settings_goes_before_the_built_in(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[cs-fcf]\nneighbours = 3\n")
    assert read_tuned([file])["cs-fcf"] == {"neighbours": 3}
    assert "mdifffr" in read_tuned([file])
    file.write_text("[nothing]\n")
    with pytest.raises(SnowdropError, match=r"mine\.toml has 'nothing'"):
        read_tuned([file])
    file.write_text("no table")
    with pytest.raises(SnowdropError, match="cannot be read as TOML"):
        read_tuned([file])
    with pytest.raises(SnowdropError, match=r"cannot read .*missing\.toml: No such file"):
        read_tuned([tmp_path / "missing.toml"])


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "no method is named"), (" , ", "no method")],
)
def test_what_names_no_method_or_no_change_is_refused(text: str, told: str) -> None:
    with pytest.raises(SnowdropError, match=told):
        choose(text)
