import csv
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cli.bench import command, runs
from cli.bench.methods import Chosen, choose
from cli.bench.results import row
from cli.bench.runs import Run, data_checksum, execute, perform, plan
from cli.in_process import InProcessGrid
from client_app.methods import base as node_half
from common.durable import lock_folder
from common.errors import SnowdropError
from server_app import run as server_run
from server_app.measure import Task
from server_app.run_folder import RunFolder
from tests.cli.conftest import QUICK
from tests.synthesizers import drawn

__all__ = ["drawn"]

RULES = ["kernel-ridge", "kernel-profile", "tfidf-profile", "content-profile", "random"]


def planned(
    methods: str, data: Path, out: Path, seeds: int = 1, twins: bool = False, **shared: Any
) -> list[Run]:
    return plan(
        choose(methods, twins, shared.get("task", "cold-items")),
        range(seeds),
        str(data),
        out,
        {},
        QUICK | shared,
    )


def summary_of(run: Run) -> dict[str, Any]:
    summary = RunFolder(run.folder).read_summary()
    assert summary is not None
    return summary


def test_a_run_is_known_by_its_settings_and_its_data(data_folder: Path, tmp_path: Path) -> None:
    first = planned("ridge,mdifffr", data_folder, tmp_path, 2)
    assert [r.digest for r in planned("ridge,mdifffr", data_folder, tmp_path / "b", 2)] == [
        r.digest for r in first
    ]
    count = 2 * (2 + len(RULES))
    assert len({run.digest for run in first}) == len({run.folder for run in first}) == count
    changed = planned("ridge,mdifffr", data_folder, tmp_path, 2, head_lr=3.0)
    assert not {r.digest for r in changed} & {r.digest for r in first}
    assert first[0].folder.name == f"ridge-0-{first[0].digest}"
    twin = planned("mdifffr", data_folder, tmp_path, twins=True)[1]
    assert twin.folder.name == f"mdifffr_frozen-0-{twin.digest}"


def test_settings_of_one_method_make_no_run_of_another_anew(
    data_folder: Path, tmp_path: Path
) -> None:
    ridge, diffusion, *_ = planned("ridge,mdifffr", data_folder, tmp_path)
    changed = {"mdifffr.steps": 9, "top": 3}  # the second changes no result
    ridge_again, other, *_ = planned("ridge,mdifffr", data_folder, tmp_path, **changed)
    assert ridge_again.digest == ridge.digest
    assert other.digest != diffusion.digest


def test_a_run_is_known_by_what_differs_from_the_defaults(
    data_folder: Path, tmp_path: Path
) -> None:
    ridge = planned("ridge", data_folder, tmp_path)[0]
    spelt_out = planned(
        "ridge", data_folder, tmp_path, negatives=5, **{"ridge.target": "embedding"}
    )
    assert spelt_out[0].digest == ridge.digest


def test_a_run_that_was_made_with_an_older_default_stays_and_is_made_anew_beside_it(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def make(run: Run, *_: Any) -> None:
        RunFolder(run.folder).write_settings(run.settings)
        RunFolder(run.folder).write_sample([])

    old, *others = planned("ridge", data_folder, tmp_path)
    for run in (old, *others):
        make(run)
    assert planned("ridge", data_folder, tmp_path)[0] == old
    stored = RunFolder(old.folder).read_settings()
    assert stored is not None
    # As a release wrote it whose default was another one, on another machine.
    told = {"negatives": 7, "run_dir": "/elsewhere", "top": 3}
    RunFolder(old.folder).write_settings(stored.model_copy(update=told))
    new, *same = planned("ridge", data_folder, tmp_path)
    assert same == others
    assert new.folder != old.folder and not new.whole and old.whole
    assert new.former == "ridge, seed 0, with negatives = 7 in place of 5"

    def stop(runs: list[Run], *_: Any) -> list[str]:
        assert runs == [new]
        make(new)
        raise SnowdropError("enough")

    monkeypatch.setattr(command, "make", stop)
    with pytest.raises(SnowdropError, match="enough"):
        command.bench(
            str(data_folder), tmp_path, "ridge", seeds=1, twins=False,
            set_=[f"{k}={v}" for k, v in QUICK.items()],
        )  # fmt: skip
    assert (
        "1 of them were made when other defaults held, such as ridge, seed 0, with negatives = 7 "
        "in place of 5: they stay where they are, and are made anew with today's"
    ) in capsys.readouterr().out
    assert planned("ridge", data_folder, tmp_path)[0] == new and new.whole
    (old.folder / "settings.json").write_text('{"format": 2, "method": "gone"}')
    again = planned("ridge", data_folder, tmp_path)[0]
    assert again.folder == new.folder
    assert again.former == "ridge, seed 0, whose settings this release cannot read"


def test_a_run_of_before_a_setting_had_what_its_method_did_then(
    data_folder: Path, tmp_path: Path
) -> None:
    old = planned("one-round", data_folder, tmp_path)[0]
    RunFolder(old.folder).write_settings(old.settings)
    RunFolder(old.folder).write_sample([])
    assert planned("one-round", data_folder, tmp_path)[0] == old
    path = old.folder / "settings.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in told.items() if k != "one-round.kernels"}))
    new = planned("one-round", data_folder, tmp_path)[0]
    assert new.former == "one-round, seed 0, with one-round.kernels = 1 in place of 0"
    assert new.folder != old.folder


def test_the_checksum_is_of_the_content(data_folder: Path, tmp_path: Path) -> None:
    for name in ("items.csv", "interactions.csv"):
        (tmp_path / name).write_bytes((data_folder / name).read_bytes())
    assert data_checksum(str(tmp_path), {}) == data_checksum(str(data_folder), {})
    (tmp_path / "text.features.npy").write_bytes(b"features")
    assert data_checksum(str(tmp_path), {}) != data_checksum(str(data_folder), {})
    (tmp_path / "text.features.npy").unlink()
    with (tmp_path / "interactions.csv").open("a") as file:
        file.write("somebody,item-00001\n")
    assert data_checksum(str(tmp_path), {}) != data_checksum(str(data_folder), {})


def test_the_checksum_is_of_images_that_are_read(data_folder: Path, tmp_path: Path) -> None:
    for name in ("items.csv", "interactions.csv"):
        (tmp_path / name).write_bytes((data_folder / name).read_bytes())
    image = tmp_path / "images" / "item-00001.png"
    image.parent.mkdir()
    image.write_bytes(b"one")
    kinds = (
        {"modalities": "text, image"},
        {"modalities": "text", "modality": "text,image:0.5"},
        {"modalities": "text", "modality": "text"},
    )
    before = [data_checksum(str(tmp_path), settings) for settings in kinds]
    image.write_bytes(b"two")
    after = [data_checksum(str(tmp_path), settings) for settings in kinds]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]
    (tmp_path / "image.features.npy").write_bytes(b"read in the images' place")
    before = [data_checksum(str(tmp_path), settings) for settings in kinds]
    image.write_bytes(b"three")
    assert before == [data_checksum(str(tmp_path), settings) for settings in kinds]


def test_runs_without_images_stay_where_another_method_reads_them(
    data_folder: Path, tmp_path: Path
) -> None:
    for name in ("items.csv", "interactions.csv"):
        (tmp_path / name).write_bytes((data_folder / name).read_bytes())
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / "item-00001.png"
    digests = []
    for content in (b"one", b"two"):
        image.write_bytes(content)
        chosen = [Chosen.parse(name) for name in ("ridge", "ridge@modality=text+image")]
        runs = plan(chosen, [0], str(tmp_path), tmp_path / "out", {}, {})
        digests.append([run.digest for run in runs])
    assert [one == other for one, other in zip(*digests, strict=True)] == [True, False]


@pytest.mark.parametrize("name", ["mixture", "mdifffr:frozen", "ifedncf", *RULES])
def test_what_a_run_leaves(data_folder: Path, tmp_path: Path, name: str) -> None:
    run = next(r for r in planned(name, data_folder, tmp_path) if r.chosen.name == name)
    perform(run)
    assert run.whole
    left = {path.name for path in run.folder.iterdir()}
    head = {"embeddings.npz"} if run.chosen.kind == "trained" else set()
    assert left == {
        "settings.json", "rounds.csv", "summary.json", "users.parquet", "sample.json", *head
    }  # fmt: skip
    summary = summary_of(run)
    assert (summary["method"], summary["title"]) == (name, run.chosen.title)
    users = pl.read_parquet(run.folder / "users.parquet")
    assert users.columns == ["user", "history", "similarity", "recall@20", "ndcg@20"]
    assert users.height == summary["tested_users"]
    for metric in ("recall@20", "ndcg@20"):
        assert users[metric].mean() == pytest.approx(summary["test"][metric])
    assert users["similarity"].is_between(-1, 1).all()
    assert users["history"].min() >= 1  # type: ignore[operator]

    sample = json.loads((run.folder / "sample.json").read_text())
    titles = set(pl.read_csv(data_folder / "items.csv")["title"])
    recall = dict(users.select("user", "recall@20").iter_rows())
    for user in sample:
        assert {*user["history"], *(item["title"] for item in user["recommended"])} <= titles
        assert not any(i["hit"] for i in user["recommended"]) or recall[user["user"]] > 0
    written = "".join(
        (run.folder / n).read_text() for n in ("summary.json", "rounds.csv", "sample.json")
    )
    everyone = pl.read_csv(data_folder / "interactions.csv")["user_id"].unique().to_list()
    assert not any(user in written for user in everyone)

    if head:
        with np.load(run.folder / "embeddings.npz") as arrays:
            items = summary["dataset"]["items"]
            assert arrays["warm"].shape == (items["warm"], 8)
            assert arrays["cold"].shape == arrays["own_cold"].shape == (items["test"], 8)
            assert arrays["cold_validation"].shape == (items["validation"], 8)
            assert {"snapshot_2_warm", "snapshot_4_cold"} <= set(arrays.files)
            assert arrays["snapshot_4_cold"].shape == (items["test"], 2)


def test_what_a_run_that_ranks_last_warm_items_leaves(data_folder: Path, tmp_path: Path) -> None:
    run, *_ = planned("ridge", data_folder, tmp_path, task="last-warm-item")
    perform(run)
    summary = summary_of(run)
    users = pl.read_parquet(run.folder / "users.parquet")
    assert users.columns[3:] == ["recall@20", "recall@50", "ndcg@20", "ndcg@50"]
    for metric in users.columns[3:]:
        assert users[metric].mean() == pytest.approx(summary["test"][metric])
    titles = pl.read_csv(data_folder / "items.csv")["title"]
    doubled = set(titles.filter(titles.is_duplicated()))
    assert len(doubled) < 5
    # No item is its own nearest one, and none is recommended again.
    assert (users["similarity"] < 1 - 1e-6).mean() > 0.8  # type: ignore[operator]
    assert users["history"].sum() + 2 * users.height == summary["dataset"]["interactions"]["warm"]
    sample = json.loads((run.folder / "sample.json").read_text())
    assert sample
    for user in sample:
        best = {item["title"] for item in user["recommended"]}
        assert best & set(user["history"]) <= doubled
    with np.load(run.folder / "embeddings.npz") as arrays:
        assert set(arrays.files) == {"warm"}


def test_rules_that_cannot_rank_a_task_do_not_come_with_it() -> None:
    names = {chosen.name for chosen in choose("ridge", True, "last-warm-item")}
    assert names == {"ridge", "ridge:frozen", *RULES} - {"kernel-ridge"}


def test_a_method_of_a_comparison_cannot_rank_something_else() -> None:
    with pytest.raises(SnowdropError, match="changes task; give --set for all methods"):
        Chosen.parse("ridge@task=last-warm-item")


@pytest.mark.parametrize(
    "overflown",
    [
        lambda result: replace(result, change=result.change.fill_(float("nan"))),
        lambda result: replace(result, change=result.change.fill_(1e38)),
        lambda result: replace(result, loss_sum=float("nan")),
    ],
    ids=["nan", "huge", "loss"],
)
def test_a_training_that_overflows_is_tested_at_its_best_round(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overflown: Any
) -> None:
    whole, broken, early = (
        planned("ridge", data_folder, tmp_path / name, evaluate_every=1, keep_rounds=2, rounds=6)[0]
        for name in ("whole", "broken", "early")
    )
    means, best, overflows_in = Task.means, 2, 6
    now = [0]

    def best_early(task: Task, replies: Any, rankings: int) -> Any:
        found = {"recall@20": float(now[0] == best)}
        return [({**metrics, **found}, users) for metrics, users in means(task, replies, rankings)]

    train = node_half.train_round

    def overflow(*given: Any) -> Any:
        now[0] = given[4]
        state, result = train(*given)
        return state, overflown(result) if now[0] == overflows_in else result

    monkeypatch.setattr(Task, "means", best_early)
    monkeypatch.setattr(node_half, "train_round", overflow)
    overflows_in = 7
    perform(whole)
    overflows_in = 6
    perform(broken)
    found = summary_of(broken)
    assert (found["broke_off"], found["best_round"]) == (6, 2)
    assert pl.read_csv(broken.folder / "rounds.csv").height == 5
    assert json.loads((broken.folder / "settings.json").read_text())["rounds"] == 6
    assert found["test"] == summary_of(whole)["test"]
    tables = [pl.read_parquet(run.folder / "users.parquet") for run in (whole, broken)]
    assert tables[0].equals(tables[1])
    assert "broke_off" not in summary_of(whole)
    overflows_in = 1
    with pytest.raises(SnowdropError, match="overflowed on every node in round 1"):
        perform(early)


def test_the_baselines_are_those_of_an_ordinary_run(data_folder: Path, tmp_path: Path) -> None:
    whole = planned("ridge", data_folder, tmp_path, twins=True)
    for run in whole:
        perform(run)
    settings = whole[0].settings.model_copy(
        update={"baselines": True, "nodes": 3, "run_dir": str(tmp_path / "ordinary")}
    )
    summary = server_run.run(InProcessGrid(3, settings.flat()), settings, plots=False)
    names = {run.chosen.name: summary_of(run)["test"] for run in whole}
    assert names["ridge"] == pytest.approx(summary["test"])
    assert names["ridge:frozen"] == pytest.approx(summary["baselines"]["frozen"]["test"])
    assert names["ridge:frozen"] != pytest.approx(names["ridge"])
    for name in RULES:
        assert names[name] == pytest.approx(summary["baselines"][name]["test"])


def test_users_of_several_nodes_are_reported_together(data_folder: Path, tmp_path: Path) -> None:
    """How users share nodes changes none of their results."""
    frames = []
    for count in (1, 3):
        (run, *_) = planned("ridge", data_folder, tmp_path / str(count), nodes=count)
        perform(run)
        frames.append(RunFolder(run.folder).read_users())
        assert row(run)["nodes"] == count
    one, other = frames
    assert one is not None and other is not None
    assert one["user"].to_list() == other["user"].to_list()
    np.testing.assert_allclose(one["recall@20"], other["recall@20"])
    assert one["recall@20"].sum() > 0


@pytest.mark.usefixtures("drawn")
def test_runs_of_synthetic_users_are_known_by_their_nodes(
    data_folder: Path, tmp_path: Path
) -> None:
    chosen = "ridge@answer=synthetic,ridge@answer=both,ridge"
    rows: list[dict[str, Any]] = []
    digests = []
    for nodes in (1, 3):
        shared = {"nodes": nodes, "synthesizer": "drawn"}
        runs = planned(chosen, data_folder, tmp_path, **shared)[:3]
        digests.append([run.digest for run in runs])
        if nodes == 3:
            for run in runs:
                perform(run)
                rows.append(row(run))
    one, other = digests
    assert [a == b for a, b in zip(one, other, strict=True)] == [False, False, True]
    assert rows[0]["synthetic_users"] > 0 == rows[2]["synthetic_users"]
    assert rows[0]["mb_up"] < rows[2]["mb_up"] < rows[1]["mb_up"]
    assert not list(tmp_path.rglob("synthetic"))


def test_keep_keeps_the_states(data_folder: Path, tmp_path: Path) -> None:
    run = planned("ridge", data_folder, tmp_path)[0]
    perform(run, keep=True)
    assert list((run.folder / "checkpoint").glob("*.ckpt"))
    assert list((run.folder / "nodes").glob("*/trainings/*/*.state"))


def test_only_what_is_missing_is_made(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made: list[str] = []

    def here(run: Run, keep: bool, watch: Any) -> None:
        if len(made) == 2 and "stop" in shared:
            raise KeyboardInterrupt
        perform(run, keep)
        watch(1.0)
        made.append(run.chosen.name)

    monkeypatch.setattr(command, "execute", here)
    shared = [f"{k}={v}" for k, v in QUICK.items()]
    arguments: dict[str, Any] = {"chosen": "ridge", "seeds": 2, "twins": False}
    count = 2 * (1 + len(RULES))
    shared.append("stop")
    with pytest.raises(SnowdropError, match="'stop' has no '='"):
        command.bench(str(data_folder), tmp_path, set_=shared, **arguments)
    settings = [part for part in shared if part != "stop"]
    stopped = rf"stopped; 2 of {count} runs are in .*the same command"
    with pytest.raises(SnowdropError, match=stopped):
        command.bench(str(data_folder), tmp_path, set_=settings, **arguments)
    with (tmp_path / "results.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == made
    shared.remove("stop")
    command.bench(str(data_folder), tmp_path, set_=settings, **arguments)
    assert len(made) == count
    assert f"{count} runs, 2 of them are there already" in capsys.readouterr().out
    command.bench(str(data_folder), tmp_path, set_=settings, **arguments)
    assert len(made) == count
    told = capsys.readouterr().out
    unread = (
        "warning: --set mdifffr.fit_steps changes nothing: none of these methods is or contains"
    )
    assert told.count(unread) == 1
    written = (tmp_path / "results.md").read_text()
    assert "random" in written and "have not run yet" not in written


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_comparison_goes_on_after_a_run_that_failed(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    def here(run: Run, keep: bool, watch: Any) -> None:
        if run.chosen.name == "ridge" and run.seed == 0:
            raise SnowdropError("ridge, seed 0: no room")
        perform(run, keep)

    monkeypatch.setattr(command, "execute", here)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments: dict[str, Any] = {"set_": [f"{k}={v}" for k, v in QUICK.items()], "jobs": jobs}
    failed = r"1 of 12 runs failed, .*: ridge, seed 0: no room$"
    with pytest.raises(SnowdropError, match=failed):
        command.bench(str(data_folder), tmp_path, "ridge", seeds=2, twins=False, **arguments)
    with (tmp_path / "results.csv").open() as file:
        made = sorted((row["method"], row["seed"]) for row in csv.DictReader(file))
    baselines = [(name, seed) for name in RULES for seed in "01"]
    assert made == sorted([("ridge", "1"), *baselines])
    written = (tmp_path / "results.md").read_text()
    assert "have not run yet: ridge (seed 0)." in written
    assert "Given to all methods: `dim=8`, `rounds=4`" in written


@pytest.mark.parametrize(
    ("given", "jobs", "expected"), [("", 4, "2"), ("1", 4, "1"), ("6", 4, "2"), ("6", 1, "6")]
)
def test_runs_share_the_cores_that_the_caller_gives(
    monkeypatch: pytest.MonkeyPatch, given: str, jobs: int, expected: str
) -> None:
    monkeypatch.setattr(runs.os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    runs.share_cores(jobs)
    assert runs.os.environ["OMP_NUM_THREADS"] == expected


def test_it_is_said_which_methods_a_file_of_tuned_settings_is_for(tmp_path: Path) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text("[ridge]\nnegatives = 2\n\n[mdifffr]\nnegatives = 3\n")
    compared = [Chosen.parse(name) for name in ("ridge", "ridge:frozen", "ipfedrec")]
    said = command._given({}, [file], plan(compared, [0], "demo", tmp_path, {}, {}))
    assert said == f"Tuned settings of `{file}`, which all others do without: ridge."


def test_no_run_pays_for_the_encoder(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def call(work: Any, arguments: tuple[Any, ...], watch: Any) -> Any:
        called.append(work.__name__)
        return work(*arguments)

    monkeypatch.setattr(runs, "in_own_process", call)
    execute(planned("ridge", data_folder, tmp_path)[0], False, lambda share: None)
    assert called == ["encode_items", "perform"]


def test_a_failed_run_leaves_nothing(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes((data_folder / "items.csv").read_bytes())
    features = np.random.default_rng(0).normal(size=(80, 24)).astype(np.float32)
    np.save(tmp_path / "text.features.npy", features)
    run = planned("ridge", tmp_path, tmp_path / "out")[0]
    with pytest.raises(SnowdropError, match=r"ridge, seed 0: .*no usable answer"):
        execute(run, False, lambda share: None)
    assert not run.folder.exists()


def test_two_comparisons_in_one_folder_are_refused(data_folder: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path, ""), pytest.raises(SnowdropError, match="another run is using"):
        command.bench(str(data_folder), tmp_path, "ridge", seeds=1)


def test_without_test_interactions_nothing_is_begun(data_folder: Path, tmp_path: Path) -> None:
    items = pl.read_csv(data_folder / "items.csv")
    there = pl.read_csv(data_folder / "interactions.csv")["item_id"].unique().sort().to_list()
    brand_new = pl.DataFrame({"item_id": ["new"]}).join(items.head(1).drop("item_id"), how="cross")
    split = pl.when(pl.col("item_id") == "new").then(pl.lit("test")).otherwise(pl.lit("warm"))
    known = items.filter(pl.col("item_id").is_in(there)).select(brand_new.columns)
    data = tmp_path / "data"
    data.mkdir()
    pl.concat([known, brand_new]).with_columns(split=split).write_csv(data / "items.csv")
    (data / "interactions.csv").write_bytes((data_folder / "interactions.csv").read_bytes())
    with pytest.raises(SnowdropError, match="interaction with a test item"):
        command.bench(str(data), tmp_path / "out", "ridge", seeds=1)
    assert not (tmp_path / "out").exists()


def test_a_run_ends_with_the_command_that_was_killed(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from tests.cli.bench.staying import stay\n"
        "from cli.bench.runs import in_own_process\n"
        "in_own_process(stay, (sys.argv[1],), lambda: None, ['cli.bench.mortal'])\n"
    )
    told = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", script, str(told)]) as parent:
        while not told.exists() or not told.read_text():
            assert parent.poll() is None
            time.sleep(0.1)
        child = int(told.read_text())
        parent.kill()
    until = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
