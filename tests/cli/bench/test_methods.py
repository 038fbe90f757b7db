from pathlib import Path

import pytest

from cli.bench.methods import (
    SHARED,
    Chosen,
    always,
    choose,
    groups,
    only_task,
    read_tuned,
    shared_settings,
)  # fmt: skip
from common import methods
from common.errors import SnowdropError
from common.settings import RunSettings, given_by_command

RULES = ["kernel-ridge", "kernel-profile", "tfidf-profile", "content-profile", "random"]


def written_ways() -> list[str]:
    """Every method, each of its variants, and each of both in its published form."""
    plain = [
        ":".join(filter(None, [own.name, variant]))
        for own in map(methods.card, methods.names())
        for variant in ("", *own.all_variants)
    ]
    return [*plain, *(f"{name}:paper" for name in plain)]


@pytest.mark.parametrize("name", written_ways())
def test_every_method_has_settings(name: str) -> None:
    chosen = Chosen.parse(name)
    settings = chosen.settings(read_tuned([]), {}, {"seed": 4})
    values = settings.flat()
    assert {key: values[key] for key in chosen.named.fixed} == chosen.named.fixed
    assert settings.seed == 4
    assert settings.card is chosen.named.card
    free = set(SHARED) - set(chosen.named.fixed)
    assert all(values[key] == RunSettings.model_fields[key].default for key in free)


def test_methods_are_compared_on_a_task_that_all_of_them_can_rank_for() -> None:
    assert only_task("ridge,mdifffr") == ""
    assert only_task("backbones") == only_task("ridge,fcf") == "last-warm-item"
    assert only_task("kernel-ridge,ridge") == "cold-items"
    with pytest.raises(SnowdropError, match=r"no task in common .*compare them in two commands"):
        only_task("kernel-ridge,fcf")


def test_paper_means_the_published_settings() -> None:
    values = Chosen.parse("mdifffr:paper").settings({}, {}, {}).flat()
    for key, value in methods.card("mdifffr").published.items():
        assert key in SHARED or values[key] == value
    assert values["preset"] == "paper"
    ipfedrec = Chosen.parse("ipfedrec:paper").settings({}, {}, {}).flat()
    assert (ipfedrec["ipfedrec.pull"], ipfedrec["ipfedrec.lr"]) == (10, 0.005)
    assert (ipfedrec["head_lr"], ipfedrec["item_lr"]) == (0.1, 8)
    assert ipfedrec["item_lr_per_item"] is True
    shared = Chosen.parse("ipfedrec").settings({}, {"preset": "paper"}, {})
    assert shared.flat() == ipfedrec


def test_the_methods_own_name_goes_before_what_is_shared() -> None:
    shared = {"dim": 32, "rounds": 3, "ridge.target": "change", "mdifffr.steps": 7}
    chosen = Chosen.parse("mdifffr@dim=16@whitening=0.25")
    settings = chosen.settings({"mdifffr": {"rounds": 9, "whitening": 1.0}}, shared, {})
    assert (settings.dim, settings.rounds, settings.whitening) == (16, 3, 0.25)
    assert settings.flat()["mdifffr.steps"] == 7
    assert "ridge.target" not in settings.flat()
    own = Chosen.parse("mdifffr@mdifffr.steps=5").settings({}, shared, {})
    assert own.flat()["mdifffr.steps"] == 5


def test_a_mixture_brings_what_its_first_method_brings() -> None:
    changed = Chosen.parse("mixture@mixture.first=ipfedrec@ipfedrec.pull=3")
    values = changed.settings({}, {"mdifffr.steps": 7}, {}).flat()
    assert values["ipfedrec.pull"] == 3
    assert "mdifffr.steps" not in values
    tuned = {"mdifffr": {"head_lr": 7.0}}
    assert Chosen.parse("mixture").settings(tuned, {}, {}).head_lr == 7
    assert changed.settings(tuned, {}, {}).head_lr != 7


def test_an_ablation_is_tuned_like_its_method() -> None:
    tuned = {"mdifffr": {"head_lr": 7.0}, "ipfedrec": {"head_lr": 2.0}}
    assert Chosen.parse("mdifffr:no-guidance").settings(tuned, {}, {}).head_lr == 7
    assert Chosen.parse("ipfedrec:tuned").settings(tuned, {}, {}).head_lr == 2
    assert Chosen.parse("ipfedrec:tuned").name == "ipfedrec"


def test_former_names_of_methods_are_understood() -> None:
    names = {"snowdrop": "mixture", "light-mdifffr": "mdifffr:light", "random-start:paper": ""}
    names["random-start:paper"] = "mdifffr:random-start:paper"
    for former, today in names.items():
        assert Chosen.parse(former).name == today


@pytest.mark.parametrize("group", groups())
def test_a_group_stands_for_its_methods(group: str) -> None:
    rows = groups()[group]
    names = [chosen.name for chosen in choose(f"{group}, random,{rows[0]}", twins=False)]
    assert names == [*rows, "random", *(name for name in RULES if name != "random")]


def test_rules_that_need_no_federation_come_with_every_comparison() -> None:
    assert always() == RULES
    assert [chosen.kind for chosen in choose("ridge", twins=False)] == [
        "trained", "rule", "rule", "rule", "rule", "floor",
    ]  # fmt: skip


def test_tuned_methods_bring_their_frozen_twins() -> None:
    chosen = choose("mdifffr@dim=16,ridge:paper,mdifffr:light,mdifffr")
    pairs = {each.name: each.twin_of for each in chosen[:6]}
    assert pairs == {
        "mdifffr@dim=16": "",
        "mdifffr:frozen@dim=16": "mdifffr@dim=16",
        "ridge:paper": "",
        "mdifffr:light": "",
        "mdifffr": "",
        "mdifffr:frozen": "mdifffr",
    }
    twin = chosen[1].settings({}, {"server_lr": 0.5}, {})
    assert (twin.server_lr, twin.dim) == (0, 16)
    assert chosen[1].title == "MDiffFR, frozen"
    assert {each.twin_of for each in choose("mdifffr", twins=False)} == {""}


def test_a_frozen_twin_is_frozen_whatever_its_method_changes() -> None:
    changed, twin = choose("mdifffr@server_lr=0.5")[:2]
    assert changed.settings({}, {}, {}).server_lr == 0.5
    assert twin.twin_of == changed.name
    assert twin.settings({}, {}, {}).server_lr == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("popular", "method 'popular' is unknown; choose from one-round, "),
        ("mdifffr:best", "'best' is no variant of mdifffr; after ':' comes one of light, "),
        ("random:frozen", "'frozen' is no variant of random"),
        ("mdifffr@dim", "key=value, not 'dim'"),
        ("mdifffr@seed=5", "method 'mdifffr@seed=5' changes seed: give --seeds"),
        ("mdifffr@encoder=other", "changes encoder; give --set for all methods"),
        ("ridge@method=mdifffr", "changes method: methods are chosen by their names"),
        ("mdifffr@generator=ridge", "changes generator: methods are chosen by their names"),
        ("mdifffr@preset=paper", "changes preset: write NAME:paper"),
    ],
)
def test_what_is_wrong_with_a_method(text: str, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        choose(text)


@pytest.mark.parametrize("key", ["ipfedrec.pull", "mdifffr.warp"])
def test_a_setting_that_a_method_does_not_have_is_refused(key: str) -> None:
    with pytest.raises(SnowdropError, match=f"setting '{key}'"):
        Chosen.parse(f"mdifffr@{key}=3").settings({}, {}, {})


@pytest.mark.parametrize("key", given_by_command())
def test_what_each_run_is_given_is_no_setting_for_all(key: str) -> None:
    assert shared_settings(["dim=8", "preset=paper"]) == {"dim": 8, "preset": "paper"}
    with pytest.raises(SnowdropError, match=f"--set {key} is not for all runs: "):
        shared_settings(["dim=8", f"{key}=3"])


def test_each_run_is_given_its_place_and_its_seed() -> None:
    expected = {
        "seed", "data", "run_dir", "resume", "fresh", "mode", "baselines", "twin",
        "warm_after",
    }  # fmt: skip
    assert set(given_by_command()) == expected


def test_a_setting_of_what_is_no_method_is_refused_for_all() -> None:
    assert shared_settings(["mdifffr.steps=3"]) == {"mdifffr.steps": 3}
    with pytest.raises(SnowdropError, match="no method \\(did you mean 'mdifffr'\\?\\); choose"):
        shared_settings(["mdiffr.steps=3"])


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("method=ridge", "--set method is not for all runs: methods are chosen by their names"),
        ("generator=ridge", "--set generator is not for all runs"),
        ("preset=papr", "setting 'preset' is 'papr'"),
        ("ridge.warp=3", r"unknown setting 'ridge\.warp'"),
    ],
)
def test_what_would_be_ignored_is_refused_for_all(assignment: str, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        shared_settings([assignment])


@pytest.mark.parametrize("key", ["mode", "seed", "preset", "method", "resume"])
def test_a_file_of_tuned_settings_sets_nothing_that_is_given(tmp_path: Path, key: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'[ridge]\n{key} = "paper"\n')
    with pytest.raises(SnowdropError, match=rf"mine\.toml sets {key} of ridge: "):
        read_tuned([file])


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("nosuch = 3", "unknown setting 'nosuch'"),
        ("rounds = 3\nroundz = 3", r"unknown setting 'roundz' \(did you mean 'rounds'\?\)"),
        ("ridge.targe = 3", r"'ridge.targe' \(did you mean 'ridge.target'\?\)"),
        ("gone.steps = 3", "unknown setting 'gone.steps'"),
    ],
)
def test_a_file_of_tuned_settings_says_where_a_setting_is_unknown(
    tmp_path: Path, written: str, sentence: str
) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text(f"[ridge]\n{written}\n")
    with pytest.raises(SnowdropError, match=rf"tuned\.toml, \[ridge\]: .*{sentence}"):
        read_tuned([file])


def test_a_file_of_tuned_settings_goes_before_the_built_in(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[cs-fcf]\ncs-fcf.neighbours = 3\nhead_lr = 4.0\n")
    tuned = read_tuned([file])
    assert tuned == {"cs-fcf": {"cs-fcf.neighbours": 3, "head_lr": 4.0}}
    values = Chosen.parse("cs-fcf").settings(tuned, {}, {}).flat()
    assert (values["cs-fcf.neighbours"], values["head_lr"]) == (3, 4)
    file.write_text("[cs-fcf]\nneighbours = 3\n")  # as the release before wrote it
    assert read_tuned([file]) == {"cs-fcf": {"cs-fcf.neighbours": 3}}
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
