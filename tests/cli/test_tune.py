import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, TrialState

from cli import tune as tuning
from cli.bench.methods import Chosen, read_tuned
from cli.search import as_choices, open_study
from cli.tune import searchable, settings_of, tune, validation_recall
from common import methods
from common.errors import OverflowedError, SnowdropError
from common.methods.search import Number, OneOf, Together
from common.settings import RunSettings
from tests.cli.conftest import QUICK


def fixed_for(method: str) -> list[str]:
    """Quick settings for a search, as ``--set`` takes them: those that the method has."""
    return [f"{k}={v}" for k, v in QUICK.items() if k.partition(".")[0] == method or "." not in k]


FIXED = fixed_for("ridge")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[RunSettings]:
    """Trials run in this process; what each was run with."""
    tried: list[RunSettings] = []

    def call(work: Any, arguments: tuple[Any, ...], watch: Any) -> Any:
        tried.append(arguments[0])
        return work(*arguments)

    monkeypatch.setattr(tuning, "in_own_process", call)
    return tried


@pytest.mark.parametrize("method", searchable())
def test_every_corner_of_a_search_is_a_setting(method: str) -> None:
    corners: list[dict[str, Any]] = [{}, {}]
    for name, there in methods.card(method).search.items():
        for corner, last in zip(corners, (0, -1), strict=True):
            if isinstance(there, Number):
                choice: Any = (there.low, there.high)[last]
            elif isinstance(there, OneOf):
                choice = there.values[last]
            else:
                assert isinstance(there, Together)
                choice = list(there.sets)[last]
            corner |= there.suggest(FixedTrial({name: choice}), name)  # type: ignore[arg-type]
    for corner in corners:
        values = {**corner, **methods.card(method).fixed, "method": method}
        assert values.items() <= RunSettings.parse(values).flat().items()


def test_every_trained_method_can_be_searched() -> None:
    cards = methods.cards().values()
    trained = {own.name for own in cards if own.kind == "trained"}
    assert trained <= set(searchable())


def test_a_search_finds_settings_that_bench_takes(
    data_folder: Path, tmp_path: Path, here: list[RunSettings], capsys: Any
) -> None:
    tune(str(data_folder), "cs-fcf", tmp_path, trials=4, set_=FIXED)
    assert len(here) == 4
    own = "cs-fcf.neighbours"
    assert here[0].flat()[own] == Chosen.parse("cs-fcf").settings({}, {}, {}).flat()[own]
    assert len({settings.head_lr for settings in here}) == 4
    tuned = read_tuned([tmp_path / f"{data_folder.name}.toml"])
    settings = Chosen.parse("cs-fcf").settings(tuned, QUICK, {})
    assert any(settings.head_lr == tried.head_lr for tried in here)
    study = optuna.load_study(study_name=None, storage=open_study_storage(tmp_path))
    best = study.best_trial.user_attrs["settings"]
    assert {own, "head_lr"} <= set(best)
    assert best.items() <= settings.flat().items()
    assert not list(tmp_path.glob("*-trial*"))
    # What is not searched is part of what was found, whoever takes it.
    assert Chosen.parse("cs-fcf").settings(tuned, {}, {}).dim == QUICK["dim"]

    tune(str(data_folder), "cs-fcf", tmp_path, trials=6, set_=FIXED)
    assert len(here) == 6
    assert len({settings.head_lr for settings in here}) == 6
    assert "6 trials on" in (tmp_path / f"{data_folder.name}.toml").read_text()


def test_trials_run_side_by_side_each_in_a_folder_of_its_own(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    tried: list[RunSettings] = []

    def call(_: Any, arguments: tuple[RunSettings], watch: Any) -> float:
        tried.append(arguments[0])
        both.wait(timeout=30)
        return 0.1 * len(tried)

    monkeypatch.setattr(tuning, "in_own_process", call)
    tune(str(data_folder), "ridge", tmp_path, trials=4, jobs=2, set_=FIXED)
    assert len({settings.run_dir for settings in tried}) == len(tried) == 4
    study = optuna.load_study(study_name=None, storage=open_study_storage(tmp_path))
    assert [trial.state for trial in study.trials] == 4 * [TrialState.COMPLETE]


def test_what_ends_a_search_ends_the_trials_beside_it(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    ended: list[str] = []

    def call(_: Any, arguments: tuple[RunSettings], watch: Any) -> float:
        if both.wait(timeout=30) == 0:
            raise KeyboardInterrupt
        for _ in range(3000):
            try:
                watch()
            except KeyboardInterrupt:
                ended.append(arguments[0].run_dir)
                raise
            time.sleep(0.01)
        return 0.1

    monkeypatch.setattr(tuning, "in_own_process", call)
    with pytest.raises(SnowdropError, match="stopped after 0 of 4 trials of ridge; the same"):
        tune(str(data_folder), "ridge", tmp_path, trials=4, jobs=2, set_=FIXED)
    assert len(ended) == 1
    study = optuna.load_study(study_name=None, storage=open_study_storage(tmp_path))
    assert [trial.state for trial in study.trials] == 2 * [TrialState.FAIL]


@pytest.mark.parametrize("method", ["mdifffr", "ridge", "kernel-profile"])
def test_a_trial_is_what_bench_runs(
    data_folder: Path, tmp_path: Path, here: list[RunSettings], method: str
) -> None:
    tune(str(data_folder), method, tmp_path, trials=1, set_=fixed_for(method))
    given = {k: getattr(here[0], k) for k in ("data", "run_dir", "nodes", "baselines")}
    tuned = read_tuned([tmp_path / f"{data_folder.name}.toml"])
    assert here[0].flat() == Chosen.parse(method).settings(tuned, QUICK, given).flat()
    assert here[0].card.name == method


@pytest.mark.parametrize("method", searchable())
def test_a_trial_keeps_what_the_card_says_of_what_is_not_searched(method: str) -> None:
    card = methods.card(method)
    trial = optuna.create_study().ask()
    tried = {k: v for n, r in card.search.items() for k, v in r.suggest(trial, n).items()}
    made = settings_of(method, tried, {}, {}, {}).flat()
    wanted = {**card.tuned, **tried, **Chosen.parse(method).named.fixed}
    assert {name: made[name] for name in wanted} == wanted


@pytest.mark.parametrize("best", [0, 1])
def test_it_is_told_when_the_settings_of_the_card_were_the_best(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: int
) -> None:
    recalls = iter(0.2 if number == best else 0.1 for number in range(3))
    monkeypatch.setattr(tuning, "in_own_process", lambda *_: next(recalls))
    tune(str(data_folder), "ridge", tmp_path, trials=3, set_=FIXED)
    told = (tmp_path / f"{data_folder.name}.toml").read_text()
    assert ("with the settings of its card" in told) == (best == 0)


def test_a_card_outside_the_search_is_not_said_to_be_the_best(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "in_own_process", lambda *_: 0.1)
    card = methods.card("ipfedrec")
    other = replace(card, search={**card.search, "rounds": OneOf([40, 100])})
    monkeypatch.setitem(methods.cards(), "ipfedrec", other)
    assert card.tuned["rounds"] == 60
    tune(str(data_folder), "ipfedrec", tmp_path, trials=1)
    path = tmp_path / f"{data_folder.name}.toml"
    assert "with the settings of its card" not in path.read_text()
    of_card = ["rounds=60", "ipfedrec.weight_decay=0"]
    tune(str(data_folder), "ipfedrec", tmp_path, trials=1, set_=of_card)
    assert "with the settings of its card" in path.read_text()


def test_the_mean_over_seeds_chooses(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[RunSettings] = []
    recalls = iter([0.9, 0.1, 0.1, 0.4, 0.7, 0.7])  # means: 0.37 and 0.6

    def call(_: Any, arguments: tuple[RunSettings], watch: Any) -> float:
        tried.append(arguments[0])
        return next(recalls)

    monkeypatch.setattr(tuning, "in_own_process", call)
    tune(str(data_folder), "ridge", tmp_path, trials=2, seed=5, seeds=3, set_=FIXED)
    assert [settings.seed for settings in tried] == [5, 6, 7, 5, 6, 7]
    told = (tmp_path / f"{data_folder.name}.toml").read_text()
    assert f"2 trials on {data_folder.name}, seeds 5 to 7: validation Recall@20 60.00 %" in told


def test_other_fixed_settings_are_another_search(
    data_folder: Path, tmp_path: Path, here: list[RunSettings]
) -> None:
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=FIXED)
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=[*FIXED, "negatives=2"])
    assert [settings.negatives for settings in here] == [5, 2]


def test_a_default_that_is_given_goes_on_in_the_same_search(
    data_folder: Path, tmp_path: Path, here: list[RunSettings]
) -> None:
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=FIXED)
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=[*FIXED, "negatives=5"])
    assert len(here) == 1
    default = RunSettings().head_lr
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=[*FIXED, f"head_lr={default}"])
    assert len(here) == 2  # that it is not searched makes another search


def test_another_default_is_another_search(
    data_folder: Path, tmp_path: Path, here: list[RunSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=FIXED)
    (name,) = optuna.get_all_study_names(open_study_storage(tmp_path))
    study = open_study(tmp_path, name, 0)
    told = study.user_attrs["settings"]
    del told["head_start"]  # as a release wrote it that did not have this one
    study.set_user_attr("settings", {**told, "head_lr": 0.1})
    tune(str(data_folder), "ridge", tmp_path, trials=1, set_=FIXED)
    assert len(here) == 1  # what is searched has no default
    study.set_user_attr("settings", {**told, "negatives": 7})
    for _ in range(2):
        tune(str(data_folder), "ridge", tmp_path, trials=2, set_=FIXED)
        assert len(here) == 3
    assert "ridge: what was tried with negatives = 7 in place of 5 stays" in capsys.readouterr().out
    study.set_user_attr("settings", {**told, "gone": 1})
    tune(str(data_folder), "ridge", tmp_path, trials=2, set_=FIXED)
    assert "with settings that this release cannot read stays" in capsys.readouterr().out


def test_when_every_trial_fails_the_last_error_is_told(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_: Any) -> float:
        raise SnowdropError("no room")

    monkeypatch.setattr(tuning, "in_own_process", call)
    with pytest.raises(SnowdropError, match="every trial of ridge failed; the last: no room"):
        tune(str(data_folder), "ridge", tmp_path, trials=2, set_=FIXED)


def open_study_storage(folder: Path) -> Any:
    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def test_a_lock_of_optuna_that_was_left_behind_holds_up_no_search(tmp_path: Path) -> None:
    """An interrupt while Optuna gives its lock back would end in another error, and leave it."""
    (tmp_path / "journal.log.lock").symlink_to(tmp_path / "journal.log")
    began = time.monotonic()
    study = open_study(tmp_path, "a search", 0)
    study.tell(study.ask(), 0.5)
    assert len(open_study(tmp_path, "a search", 0).trials) == 1
    assert time.monotonic() - began < 15  # Optuna waits for 30 s
    assert [path.name for path in tmp_path.glob("*.lock*")] == ["journal.log.lock"]


def test_what_was_cut_off_is_not_counted(
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = iter([0.1, SnowdropError("no"), KeyboardInterrupt(), 0.3])

    def call(*_: Any) -> float:
        came = next(calls)
        if isinstance(came, BaseException):
            raise came
        return came

    monkeypatch.setattr(tuning, "in_own_process", call)
    with pytest.raises(SnowdropError, match="stopped after 2 of 3 trials of ridge"):
        tune(str(data_folder), "ridge", tmp_path, trials=3, set_=FIXED)
    tune(str(data_folder), "ridge", tmp_path, trials=3, set_=FIXED)
    name = optuna.get_all_study_names(open_study_storage(tmp_path))[0]
    states = [trial.state for trial in open_study(tmp_path, name, 0).get_trials()]
    assert states == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE
    ]  # fmt: skip
    assert "30.00 %" in (tmp_path / f"{data_folder.name}.toml").read_text()
    assert "ridge: 1 of 3 trials failed; the last: no\n" in capsys.readouterr().out


def test_known_settings_that_were_cut_off_come_again(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []

    def call(_: Any, arguments: tuple[Any, ...], __: Any) -> float:
        tried.append(arguments[0].head_lr)
        if len(tried) in (1, 3):
            raise KeyboardInterrupt
        return 0.1

    monkeypatch.setattr(tuning, "in_own_process", call)
    for _ in range(2):
        with pytest.raises(SnowdropError, match="stopped after"):
            tune(str(data_folder), "cs-fcf", tmp_path, trials=3, set_=FIXED)
    tune(str(data_folder), "cs-fcf", tmp_path, trials=3, set_=FIXED)
    tuned, published = (
        Chosen.parse(f"cs-fcf:{form}").settings(read_tuned([]), {}, {}).head_lr
        for form in ("tuned", "paper")
    )
    assert tried[:4] == [tuned, tuned, published, published]


def test_a_search_begins_with_what_is_known() -> None:
    published = Chosen.parse("ipfedrec:paper").settings({}, {}, {})
    point = as_choices(methods.card("ipfedrec").search, published.flat())
    assert point["local"] == "all users"
    assert point["schedule"] == "every round"
    assert (point["ipfedrec.pull"], point["head_lr"], point["rounds"]) == (10, 0.1, 100)
    space = methods.card("cs-fcf").search
    plain = as_choices(space, Chosen.parse("cs-fcf").settings({}, {}, {}).flat())
    assert plain["local"] == "touched rows"


@pytest.mark.parametrize("method", searchable())
def test_a_search_can_begin_with_the_card(method: str) -> None:
    space = methods.card(method).search
    tuned = Chosen.parse(method).settings({}, {}, {}).flat()
    assert as_choices(space, tuned).keys() == space.keys()


@pytest.mark.parametrize("method", ["ipfedrec", "ifedncf"])
def test_what_ifedrec_published_lies_in_its_search(method: str) -> None:
    space = methods.card(method).search
    published = Chosen.parse(f"{method}:paper").settings({}, {}, {}).flat()
    assert as_choices(space, published).keys() == space.keys()


@pytest.mark.parametrize("error", [None, SnowdropError("no room"), OverflowedError("too large")])
def test_what_a_node_says_is_shown_unless_the_trial_overflows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception | None
) -> None:
    def run(*_: Any, **__: Any) -> dict[str, Any]:
        print("snowdrop node: it says why", file=sys.stderr)
        if error:
            raise error
        return {"validation": {"recall@20": 0.25}, "validated_users": 3}

    monkeypatch.setattr("cli.in_process.run_in_process", run)
    with pytest.raises(type(error)) if error else nullcontext():
        assert validation_recall(RunSettings()) == 0.25
    shown = "" if isinstance(error, OverflowedError) else "snowdrop node: it says why\n"
    assert capsys.readouterr().err == shown


def test_only_methods_with_a_search(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SnowdropError, match="'random' has no settings to search; choose from one-round, "
    ):
        tune(str(data_folder), "random", tmp_path)


def test_several_methods_have_one_file(
    data_folder: Path, tmp_path: Path, here: list[RunSettings], capsys: Any
) -> None:
    tune(str(data_folder), "kernel-profile, tfidf-profile", tmp_path, trials=2)
    assert [settings.card.name for settings in here] == ["kernel-profile"] * 2 + [
        "tfidf-profile"
    ] * 2
    path = tmp_path / f"{data_folder.name}.toml"
    first = path.read_text()
    assert list(read_tuned([path])) == ["kernel-profile", "tfidf-profile"]
    tune(str(data_folder), "kernel-profile", tmp_path, trials=3)
    kept, changed = path.read_text().split("\n\n")
    assert kept == first.split("\n\n")[1].strip()  # the other method's, with its comment
    assert changed.startswith("# 3 trials on")
    assert list(read_tuned([path])) == ["tfidf-profile", "kernel-profile"]


def test_a_mixture_is_searched_with_the_tuned_settings_of_its_parts(
    data_folder: Path, tmp_path: Path, here: list[RunSettings]
) -> None:
    path = tmp_path / f"{data_folder.name}.toml"
    path.write_text(
        "[ridge]\nhead_lr = 7.0\n\n[similar-items]\nhead_lr = 5.0\nsimilar-items.neighbours = 3\n"
    )
    fixed = [*FIXED, "mixture.first=ridge", "mixture.second=similar-items"]
    tune(str(data_folder), "mixture", tmp_path, trials=2, set_=fixed)
    flat = here[-1].flat()
    assert (flat["head_lr"], flat["similar-items.neighbours"]) == (7.0, 3)
    assert flat["mixture.share"] != here[0].flat()["mixture.share"]
    shared = {**QUICK, "mixture.first": "ridge", "mixture.second": "similar-items"}
    assert Chosen.parse("mixture").settings(read_tuned([path]), shared, {}).head_lr == 7.0
    path.write_text("[ridge]\nhead_lr = 8.0\n")  # other parts make another search
    tune(str(data_folder), "mixture", tmp_path, trials=2, set_=fixed)
    assert [settings.head_lr for settings in here] == [7.0, 7.0, 8.0, 8.0]


def test_parts_are_searched_before_what_combines_them(
    data_folder: Path, tmp_path: Path, here: list[RunSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = [*FIXED, "mixture.first=ridge", "mixture.second=similar-items"]
    tune(str(data_folder), "mixture,ridge", tmp_path, trials=2, set_=fixed)
    assert [settings.card.name for settings in here] == 2 * ["ridge"] + 2 * ["mixture"]
    tuned = read_tuned([tmp_path / f"{data_folder.name}.toml"])
    assert not [name for name in tuned["ridge"] if name.startswith("mixture.")]
    found = tuned["ridge"]["head_lr"]
    assert found in {settings.head_lr for settings in here[:2]}
    assert [settings.head_lr for settings in here[2:]] == 2 * [found]


def test_a_setting_of_a_method_that_is_not_searched_is_refused(
    data_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SnowdropError, match=r"--set mdifffr\.steps changes nothing: none of"):
        tune(str(data_folder), "ridge", tmp_path, trials=1, set_=["mdifffr.steps=3"])


@pytest.mark.parametrize("preset", ["paper", "default"])
def test_a_preset_is_not_for_a_search(data_folder: Path, tmp_path: Path, preset: str) -> None:
    with pytest.raises(SnowdropError, match="--set preset is not for a search, which tries"):
        tune(str(data_folder), "ridge", tmp_path / "out", trials=1, set_=[f"preset={preset}"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("", "^no method is named; choose from one-round, "),
        ("mdifffr:paper", "^'mdifffr:paper' cannot be searched: write mdifffr alone, and --set"),
        ("ridge@dim=8", "^'ridge@dim=8' cannot be searched: write ridge alone, and --set"),
    ],
)
def test_a_search_takes_plain_names(
    data_folder: Path, tmp_path: Path, written: str, sentence: str
) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        tune(str(data_folder), written, tmp_path)


def test_a_search_says_where_a_name_is_misspelt() -> None:
    with pytest.raises(SnowdropError, match=r"did you mean 'kernel-ridge'"):
        tuning.check_searchable(["kernel-rige"])


@pytest.mark.parametrize(("gain", "told"), [(0.0, True), (0.1, False)])
def test_a_search_tells_where_nothing_tells_settings_apart(
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gain: float,
    told: bool,
) -> None:
    found = iter([0.5, 0.5 + gain, 0.5])
    monkeypatch.setattr(tuning, "in_own_process", lambda *_: next(found))
    tune(str(data_folder), "ridge", tmp_path, trials=3, set_=FIXED)
    said = capsys.readouterr().out
    assert ("all trials came out the same" in said) is told
    assert f"--methods ridge --tuned {tmp_path / data_folder.name}.toml --out DIR" in said
