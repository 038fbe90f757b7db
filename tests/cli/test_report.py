"""`snowdrop report`: what stands in the page, and what a browser makes of it."""

import csv
import io
import json
import re
import shutil
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from markupsafe import escape
from scipy.linalg import sqrtm
from typer.testing import CliRunner

from cli.commands import app
from cli.report import make_report
from cli.report.charts import LETTERS, Row, Series, cut, line_chart, ticks, value_chart
from cli.report.distance import frechet_distance, misalignment
from cli.report.parts import curve_part
from cli.report.parts.cost import _time_steps
from cli.report.sections import Page as Pages
from cli.report.sections import Section
from cli.report.source import Result, Source, read_source
from cli.report.subject import Subject
from common.durable import write_checked
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.run_folder import RunFolder
from tests.cli.browser import DESKTOP, PHONE, Visit, check_page

EVIL = 'Return of <script>alert("x")</script> & "Sons"'
METRICS = ("recall@20", "recall@50", "recall@100", "precision@20", "ndcg@20", "ndcg@100")


def metrics(recall: float) -> dict[str, float]:
    return dict(zip(METRICS, np.array([1, 1.3, 1.6, 0.1, 0.7, 0.9]) * recall, strict=True))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_rounds(folder: Path, levels: Mapping[int, float]) -> None:
    buffer = io.StringIO()
    names = [f"validation_{name}" for name in METRICS]
    writer = csv.DictWriter(
        buffer,
        ["round", "loss", "generator_loss", *names, "train_seconds", "generator_seconds"],
        restval="",
    )
    writer.writeheader()
    for number in range(1, max(levels) + 1):
        row: dict[str, Any] = {"round": number, "loss": 1 / number, "train_seconds": 0.5}
        if number in levels:
            row |= {f"validation_{k}": v for k, v in metrics(levels[number]).items()}
            row |= {"generator_loss": 0.3, "generator_seconds": 4.0}
        writer.writerow(row)
    (folder / "rounds.csv").write_text(buffer.getvalue())


def snapshots(rounds: tuple[int, ...], seed: int = 0) -> dict[int, dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    warm, cold = (torch.randn(n, 8, generator=draw) for n in (60, 30))
    return {r: {"warm": warm * r, "cold": cold * r + 5 / r} for r in rounds}


def summary(method: str, **more: Any) -> dict[str, Any]:
    return {
        "format": 2,
        "method": method,
        "generated_data": False,
        "dataset": {
            "users": 1234,
            "items": {"warm": 4, "validation": 1, "test": 3},
            "interactions": {"warm": 9, "validation": 1, "test": 3},
        },
        "best_round": 4,
        "validation": metrics(0.3),
        "test": metrics(0.25),
        "baselines": {},
        "tested_users": 2,
        "timing": {"encode_seconds": 1.5, "total_seconds": 30.0},
        "memory": {"peak_rss_mb": 812.4, "server_peak_rss_mb": 700.0, "device": "cpu"},
    } | more


def baseline(kind: str, title: str, validation: float, test: float) -> dict[str, Any]:
    return {
        "kind": kind, "title": title, "validation": metrics(validation), "test": metrics(test)
    }  # fmt: skip


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run of two users: u1 finds one of its two cold items, u2 its only one."""
    data, folder = tmp_path / "shop", tmp_path / "run"
    data.mkdir()
    folder.mkdir()
    items = [(f"w{k}", "warm") for k in range(4)] + [("v0", "validation")]
    items += [(f"t{k}", "test") for k in range(3)]
    pl.DataFrame(
        {
            "item_id": [item for item, _ in items],
            "title": [EVIL if item == "t0" else f"Title of {item}" for item, _ in items],
            "split": [split for _, split in items],
        }
    ).write_csv(data / "items.csv")
    pairs = [("u1", i) for i in ("w0", "w1", "w2", "t0", "t2")]
    pairs += [("u2", i) for i in ("w0", "w1", "w2", "w3", "v0")]
    pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row").write_csv(
        data / "interactions.csv"
    )
    settings = RunSettings.parse(
        {"method": "mdifffr", "data": str(data), "run_dir": str(folder), "dim": 8}
    )
    RunFolder(folder).write_settings(settings)
    write_rounds(folder, {2: 0.2, 4: 0.3})
    baselines = {
        "some-rule": baseline("rule", "Some rule", 0.2, 0.2),
        "lucky-rule": baseline("rule", "Lucky rule", 0.1, 0.24),
        "frozen": baseline("twin", "MDiffFR, frozen", 0.2, 0.23),
        "random": baseline("floor", "Random", 0.01, 0.01),
        "ridge": baseline("control", "Ridge map", 0.19, 0.19),
    }
    write_json(folder / "summary.json", summary("MDiffFR", baselines=baselines))
    buffer = io.BytesIO()
    torch.save({"snapshots": snapshots((2, 4)), "format": 2}, buffer)
    (folder / "checkpoint").mkdir()
    write_checked(folder / "checkpoint" / "round-000004.ckpt", buffer.getvalue())
    node = folder / "nodes" / "00000"
    node.mkdir(parents=True)
    pl.DataFrame(
        {
            "user_id": ["u1", "u1", "u2", "u2"],
            "rank": [1, 2, 1, 2],
            "item_id": ["t0", "t1", "v0", "t1"],
            "score": [0.9, 0.4, 0.8, 0.2],
        }
    ).write_parquet(node / "recommendations.parquet")
    return folder


def test_groups_of_users_show_what_they_prefer(run_folder: Path, tmp_path: Path) -> None:
    plain = make_report(run_folder, tmp_path / "plain.html").read_text(encoding="utf-8")
    assert "Groups of users" not in plain
    data = tmp_path / "shop"
    items = pl.read_csv(data / "items.csv").with_columns(
        pl.Series("genres", ["War|Drama", "War", "Drama", None, "Comedy", "War", "Comedy", "Drama"])
    )
    items.write_csv(data / "items.csv")
    told = [
        {"share": 0.75, "items": ["w0", "w1", "w3", "gone"]},
        {"share": 0.25, "items": ["t0", "w3"]},
    ]
    write_json(run_folder / "summary.json", summary("MDiffFR", groups=told))
    rounds = "round,group_cosine,group_moves\n1,,\n2,0.9,0.25\n3,0.95,0.05\n"
    (run_folder / "rounds.csv").write_text(rounds)
    page = make_report(run_folder, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Group 1: 75 % of the users" in page and "Group 2: 25 % of the users" in page
    assert "Title of w1" in page and ">gone<" in page
    assert "Of its 2 items: War 100 % (all items: 43 %), Drama 50 % (all items: 43 %)." in page
    assert EVIL not in page and escape(EVIL) in page
    assert "How stable groups are" in page and "25.0 %" in page


@pytest.fixture(scope="module")
def bench_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation, its frozen twin, another one and two rules, with two seeds each."""
    folder = tmp_path_factory.mktemp("bench")
    levels = {
        "mdifffr": (0.3, "trained", ""),
        "ipfedrec:paper@dim=16": (0.2, "trained", ""),
        "content-profile": (0.25, "rule", ""),
        "poor-profile": (0.15, "rule", ""),
        "mdifffr:frozen": (0.24, "trained", "mdifffr"),
    }
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for method, (level, kind, twin_of) in levels.items():
        for seed in range(2):
            digest = f"{len(rows):010x}"
            name = re.sub(r"[^A-Za-z0-9.]+", "_", method)
            run = folder / "runs" / f"{name}-{seed}-{digest}"
            run.mkdir(parents=True)
            settings = RunSettings.parse({"data": str(folder / "office"), "seed": seed, "dim": 8})
            RunFolder(run).write_settings(settings)
            here = level + 0.02 * seed
            more = {"kind": kind, "twin_of": twin_of, "test": metrics(here)}
            write_json(run / "summary.json", summary(method, **more))
            if kind == "trained":
                write_rounds(run, {r: here * r / 9 for r in (3, 6, 9)})
            else:
                RunFolder(run).write_rounds([])
            history = rng.integers(1, 40, 200)
            pl.DataFrame(
                {
                    "user": np.arange(200),
                    "history": history,
                    "similarity": rng.random(200),
                    "recall@20": np.where(history > 20, 0.5, 0.1) + (level - 0.3),
                    "ndcg@20": rng.random(200),
                }
            ).write_parquet(run / "users.parquet")
            if kind == "trained":
                arrays: dict[str, Any] = {
                    "warm": rng.normal(size=(80, 8)),
                    "cold": rng.normal(size=(40, 8)) + seed,
                }
                for number in (3, 6, 9):
                    arrays[f"snapshot_{number}_warm"] = rng.normal(size=(80, 2))
                    arrays[f"snapshot_{number}_cold"] = rng.normal(size=(40, 2)) * number
                np.savez_compressed(run / "embeddings.npz", **arrays)
                sample = {
                    "user": 3,
                    "history_length": 12,
                    "history": [f"Old {EVIL}", "A pen"],
                    "recommended": [
                        {"title": "A pencil", "score": 1.25, "hit": True},
                        {"title": "A ruler", "score": -0.5, "hit": False},
                    ],
                }
                write_json(run / "sample.json", [sample])
            rows.append(
                {"data": "office", "method": method, "kind": kind, "twin_of": twin_of}
                | {"seed": seed}
                | {f"test_{k}": v for k, v in metrics(here).items()}
                | {f"validation_{k}": v for k, v in metrics(here + 0.1).items()}
                | {"seconds": 61.0, "generator_seconds": 7.0, "memory_mb": 512.0, "digest": digest}
            )
    pl.DataFrame(rows).write_csv(folder / "results.csv")
    return folder


class Page(HTMLParser):
    """Text, tags and attribute values of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.values: list[str] = []
        self.feed(content)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(folder: Path) -> tuple[str, Page]:
    content = make_report(folder, folder.parent / f"{folder.name}.html").read_text("utf-8")
    return content, Page(content)


def test_a_run_that_ranks_last_warm_items_says_so(run_folder: Path) -> None:
    settings = RunFolder(run_folder).read_settings()
    assert settings is not None
    RunFolder(run_folder).write_settings(settings.model_copy(update={"task": "last-warm-item"}))
    told = json.loads((run_folder / "summary.json").read_text()) | {"order": "timestamp"}
    write_json(run_folder / "summary.json", told)
    _, page = page_of(run_folder)
    for words in (
        "Warm items on shop",
        "HR@20, MDiffFR",
        "on each user's last warm item",
        "HR@20 ÷ best local rule",
        "Order of interactions",
        "timestamp",
        "The dashed line is the HR@20 of Some rule",
        "HR over rounds",
        "ranked against all items that the user never touched",
    ):
        assert words in page.text, words
    assert "Precision" not in page.text


def test_a_run_is_told_whole(run_folder: Path) -> None:
    content, page = page_of(run_folder)
    for words in (
        "New items on shop",
        "1,234",
        "given with the data",
        "MDiffFR",
        "25.00",
        "1.25 ×",
        "the best local rule, Some rule",
        "+2.0 points",
        "added by the federation compared with its frozen twin",
        "25 × random ranking",
        "The best local rule is Some rule:",
        "from the item table that this run trained: Ridge map.",
        "The dashed line is the Recall@20 of Some rule",
        "Recall over rounds",
        "Fréchet distance",
        "held-out warm items",
        "Recall by length of history",
        "Where the time went",
        "812 MB",
    ):
        assert words in page.text, words
    assert "Generated data" not in page.text
    assert page.text.count("not in this folder") == 1  # similarity, which a bench measures
    assert "snowdrop bench DATA_DIR --out DIR" in page.text
    assert len(content) < 1_500_000


def test_synthetic_users_are_told_where_there_are_any(run_folder: Path) -> None:
    none = {"users": 0, "silos": 0, "epsilon": None, "bytes_up": 0}
    some = {"users": 4321, "silos": 3, "epsilon": None, "bytes_up": 250_000}
    for told, shown in ((none, False), (some, True)):
        write_json(run_folder / "summary.json", summary("MDiffFR", synthetic=told))
        _, page = page_of(run_folder)
        assert ("Synthetic users" in page.text) == shown
    assert "4,321 of 3 nodes, 0.25 MB" in page.text


@pytest.mark.parametrize(("told", "shown"), [(False, False), (True, True), (None, True)])
def test_a_method_without_embeddings_has_no_section_of_them(
    run_folder: Path, told: bool | None, shown: bool
) -> None:
    known = {} if told is None else {"embeddings": told}
    write_json(run_folder / "summary.json", summary("one round", **known))
    _, page = page_of(run_folder)
    assert ("Warm and generated embeddings" in page.text) is shown
    assert ("How far generated items lie from warm ones" in page.text) is shown


def test_dimensions_are_told_of_methods_that_have_some(run_folder: Path) -> None:
    folder = RunFolder(run_folder)
    settings = folder.read_settings()
    assert settings is not None
    for method, told in (("mdifffr", True), ("one-round", False), ("kernel-ridge", False)):
        place = {"data": settings.data, "run_dir": settings.run_dir}
        folder.write_settings(RunSettings.parse({"method": method, **place}))
        _, page = page_of(run_folder)
        assert ("Dimensions" in page.text) is told


def test_the_loss_of_a_generator_is_told_where_there_is_one(run_folder: Path) -> None:
    _, page = page_of(run_folder)
    assert "Mean loss of the users' local training and of the generator, shop" in page.text
    rounds = RunFolder(run_folder).read_rounds()
    RunFolder(run_folder).write_rounds([row | {"generator_loss": None} for row in rounds])
    _, page = page_of(run_folder)
    assert "Mean loss of the users' local training, shop" in page.text
    assert "measure different things" not in page.text


def test_one_round_has_no_curve(run_folder: Path) -> None:
    write_rounds(run_folder, {1: 0.2})
    _, page = page_of(run_folder)
    for words in ("Learning, round by round", "Recall over rounds", "Training loss", "Curves over"):
        assert words not in page.text, words


def test_a_method_of_one_round_has_no_line_among_others(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    for run in (folder / "runs").glob("ipfedrec*"):
        write_rounds(run, {1: 0.2})
    content, _ = page_of(folder)
    label = content[content.index("Recall@20 over rounds: ") :].partition('"')[0]
    assert "mdifffr, " in label and "best local rule" in label
    assert "ipfedrec" not in label


def test_what_was_spent_of_privacy_is_told(run_folder: Path) -> None:
    told = {
        "noise": "gaussian", "noise_by": "server", "rounds": 3, "epsilon_round": 0.5,
        "epsilon": 0.91234, "delta": 1e-6, "metrics_without_noise": True,
    }  # fmt: skip
    quiet = summary("MDiffFR", privacy=None)
    quiet["dataset"] = {"users": 9, "interactions": {"warm": None, "validation": 2, "test": 3}}
    write_json(run_folder / "summary.json", quiet)
    assert "Privacy of a user" not in page_of(run_folder)[1].text
    write_json(run_folder / "summary.json", {**quiet, "privacy": told})
    (run_folder / "rounds.csv").write_text("round,epsilon_total\n1,0.3\n2,0.6\n3,0.9\n")
    _, page = page_of(run_folder)
    words = "ε = 0.912 over 3 rounds at δ = 1e-06, gaussian noise of the server, which is trusted, "
    assert words + "without the metrics" in page.text
    assert "ε over rounds" in page.text


def test_with_noise_it_is_told_that_results_stay_on_the_nodes(run_folder: Path) -> None:
    folder = RunFolder(run_folder)
    noise = {"clip_norm": 1.0, "gaussian_scale": 8.0, "average": "users"}
    settings = folder.read_settings()
    assert settings is not None
    folder.write_settings(RunSettings.parse({**settings.flat(), **noise}))
    quiet = {k: v for k, v in summary("MDiffFR").items() if k not in ("test", "baselines")}
    write_json(run_folder / "summary.json", quiet)
    _, page = page_of(run_folder)
    assert "Test results: they stay on the nodes, since metrics carry no noise" in page.text
    folder.write_settings(settings)
    _, page = page_of(run_folder)
    assert "Test results, which a run has at its end: not in this folder" in page.text


def test_the_time_of_a_run_is_told_by_steps_that_add_up(run_folder: Path) -> None:
    timing = {
        "encode_seconds": 1.5, "start_seconds": 2.0, "training_seconds": 12.0, "test_seconds": 0.5,
        "recommend_seconds": 0.25, "baselines_seconds": 3.0, "twin_seconds": 10.0,
        "total_seconds": 30.0,
    }  # fmt: skip
    write_json(run_folder / "summary.json", summary("MDiffFR", timing=timing))
    run = read_source(run_folder).runs[0]
    told = dict(_time_steps(run))
    assert told == {
        "encoding items": 1.5, "starting, with nodes": 2.0, "rounds of training": 2.0,
        "training the generator": 8.0, "other work in rounds": 2.0, "testing": 0.5,
        "lists of new items": 0.25, "baselines": 3.0, "frozen twin": 10.0, "all else": 0.75,
    }  # fmt: skip
    assert not [label for label in told if cut(label) != label]
    timing["training_seconds"] = 5.0  # rounds of 10 seconds in all, so others went before
    write_json(run_folder / "summary.json", summary("MDiffFR", timing=timing))
    resumed = dict(_time_steps(read_source(run_folder).runs[0]))
    assert resumed["training, resumed"] == 5.0 and "rounds of training" not in resumed
    assert sum(resumed.values()) == sum(told.values()) == 30.0


def test_times_of_a_run_of_an_older_release_are_told_as_far_as_they_go(run_folder: Path) -> None:
    assert dict(_time_steps(read_source(run_folder).runs[0])) == {
        "encoding items": 1.5, "rounds of training": 2.0, "training the generator": 8.0,
        "all else": 18.5,
    }  # fmt: skip


def test_recall_that_nodes_would_not_tell_is_told_to_be_counted_here(
    run_folder: Path, bench_folder: Path
) -> None:
    words = "It is counted on this machine, which has the data of all simulated users"
    assert words in page_of(run_folder)[1].text
    assert words not in page_of(bench_folder)[1].text


def test_a_folder_with_a_page_of_its_own_keeps_it(tmp_path: Path) -> None:
    attack, other = tmp_path / "attack", tmp_path / "other.html"
    attack.mkdir()
    (attack / "attack.json").write_text("{}")
    with pytest.raises(
        SnowdropError, match="holds an attack, of which there is no report: `snowdrop at"
    ):
        make_report(attack)
    (attack / "report.html").write_text("what was read")
    done = CliRunner().invoke(app, ["report", str(attack)])
    assert done.stdout == f"the report is in {attack / 'report.html'}\n"
    assert make_report(attack, other) == other
    assert other.read_text() == (attack / "report.html").read_text() == "what was read"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"summary.json": '{"synthetic": true}'}, "holds synthetic users, of .* `snowdrop synthes"),
        (
            {"results.csv": "data,protocol,recommender,method\n"},
            "holds a comparison of synthetic users, of .* `snowdrop bench-synthetic` writes",
        ),
        ({"journal.log": "", "shop.toml": ""}, "holds a search of settings, .* `--tuned` of"),
        ({"federation.json": "{}"}, "holds a deployed federation, .* give .*/server/run"),
        ({"items.csv": "item_id\n"}, "holds a data set, .* run `snowdrop simulate` or"),
    ],
)
def test_a_folder_of_another_command_is_told_what_it_is(
    tmp_path: Path, files: Mapping[str, str], told: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(SnowdropError, match=told):
        make_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "report.html").write_text("its own")
    assert make_report(tmp_path).read_text() == "its own"


def test_a_search_beside_a_comparison_does_not_hide_it(bench_folder: Path) -> None:
    (bench_folder / "journal.log").touch()
    assert "New items on office" in page_of(bench_folder)[1].text


def test_a_run_that_has_a_report_gets_a_new_one(run_folder: Path) -> None:
    (run_folder / "report.html").write_text("an older one")
    assert "New items on" in make_report(run_folder).read_text()


def test_settings_that_change_no_result_are_shown_too(run_folder: Path) -> None:
    folder = RunFolder(run_folder)
    settings = folder.read_settings()
    assert settings is not None
    given = {"secure_sums": True, "nodes": 3, "encode_cache": "/some/cache", "dim": 8}
    folder.write_settings(RunSettings.parse({**settings.flat(), **given}))
    content, page = page_of(run_folder)
    assert "<dt>secure_sums</dt><dd>True</dd>" in content
    assert "<dt>dim</dt><dd>8</dd>" in content
    assert "encode_cache" not in page.text and str(run_folder.parent) not in content


def test_recall_of_kept_lists_is_counted_over_all_cold_items(run_folder: Path) -> None:
    users = read_source(run_folder).runs[0].users
    assert users is not None
    assert users.sort("history").to_dicts() == [
        {"recall@2": 0.5, "history": 3},
        {"recall@2": 1.0, "history": 4},
    ]


def test_users_see_titles_and_what_they_did_interact_with(run_folder: Path) -> None:
    by_length = {user.history_length: user for user in read_source(run_folder).runs[0].sample}
    assert [item.title for item in by_length[4].history] == [f"Title of w{k}" for k in range(4)]
    assert [(i.title, i.hit) for i in by_length[3].recommended] == [
        (EVIL, True),
        ("Title of t1", False),
    ]


def test_no_user_id_stands_in_the_page(run_folder: Path) -> None:
    content, page = page_of(run_folder)
    assert "User A" in page.text
    assert not re.search(r"\bu[12]\b", content)


def test_titles_are_text_and_nothing_else(run_folder: Path, bench_folder: Path) -> None:
    for folder in (run_folder, bench_folder):
        content, page = page_of(folder)
        assert EVIL in page.text
        assert EVIL not in content
        assert page.tags.count("script") == 2  # the points of the map, and the page's own


def test_nothing_is_loaded_from_anywhere(run_folder: Path, bench_folder: Path) -> None:
    for folder in (run_folder, bench_folder):
        content, page = page_of(folder)
        assert not re.search(r"(?:https?:)?//\w", content)
        assert {"link", "img", "iframe"} & set(page.tags) <= {"link"}  # its empty icon
        assert "default-src 'none'" in content


def test_generated_data_is_called_so_everywhere(run_folder: Path) -> None:
    write_json(run_folder / "summary.json", summary("MDiffFR", generated_data=True))
    _, page = page_of(run_folder)
    assert "Generated data: no real person did any of this" in page.text
    assert page.text.count("generated data, seed 0") >= 4


def test_a_bench_shows_means_with_their_spread(bench_folder: Path) -> None:
    content, page = page_of(bench_folder)
    assert re.search(r"31\.00\s+± 1\.41", page.text)  # 0.30 and 0.32
    assert re.search(r'class="best"><span>31\.00', content)
    assert re.search(r'class="second"><span>26\.00', content)
    for words in (
        "ipfedrec:paper@dim=16",
        "mean over seeds 0, 1",
        "Recall by similarity to warm items",
        "1.19 × the best local rule, content-profile which needs no federation; the difference is "
        "more than noise",
        "+6.0 points added by the federation compared with its frozen twin; the difference is "
        "more than noise",
        "The best local rule is content-profile:",
        "Time of the generator",
        "512 MB",
    ):
        assert words in page.text, words
    assert "not in this folder" not in page.text


def test_a_method_without_rounds_is_a_level_not_a_curve(bench_folder: Path) -> None:
    content, _ = page_of(bench_folder)
    chart = next(s for s in re.findall(r"<svg.*?</svg>", content, re.S) if "NDCG@20 over" in s)
    assert chart.count("dashed") == 1
    assert "best local rule" in chart
    assert "poor-profile" not in chart


def test_a_mean_over_seeds_ends_where_one_of_them_ends(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    runs = (folder / "runs").glob("mdifffr-*")
    for levels, run in zip(({3: 0.1, 6: 0.2, 9: 0.81}, {3: 0.11, 6: 0.22}), runs, strict=True):
        write_rounds(run, levels)
    _, page = page_of(folder)
    table = page.text[page.text.index("Recall@20 over rounds") :]
    assert "21.0 %" in table
    assert "81.0 %" not in table


def test_runs_that_are_not_compared_are_left_out(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    compared = next((folder / "runs").glob("mdifffr-0-*"))
    old = folder / "runs" / "mdifffr-0-0123456789"
    shutil.copytree(compared, old)
    write_rounds(old, {3: 0.9})
    assert read_source(folder).results
    assert {run.path.name for run in read_source(folder).runs} == {
        path.name for path in (folder / "runs").iterdir() if path != old
    }


def table_of(folder: Path) -> pl.DataFrame:
    """``results.csv``; a digest may look like a number and is none."""
    return pl.read_csv(folder / "results.csv", schema_overrides={"digest": pl.String})


def lines_of(folder: Path) -> dict[str, list[str]]:
    """Cells of the result table by method."""
    content = page_of(folder)[0]
    table = content[content.index('aria-label="Result table"') :].split("</table>")[0]
    rows = [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", table, re.S)
    ]
    return {row[0]: row[1:] for row in rows}


def test_a_frozen_twin_stands_under_its_method(bench_folder: Path) -> None:
    lines = lines_of(bench_folder)
    assert list(lines)[1:] == [
        "mdifffr", "↳ mdifffr:frozen", "content-profile", "ipfedrec:paper@dim=16", "poor-profile",
    ]  # fmt: skip
    assert lines["Method"][-3:] == ["Recall@20 ÷ best local rule", "Federation adds", "Runs"]
    assert lines["mdifffr"][-3:] == ["1.192 ▲", "+6.00 ▲", "2"]
    assert lines["↳ mdifffr:frozen"][-3:] == ["0.962", "", "2"]  # within noise
    assert lines["content-profile"][-3] == "1.000"


def test_marks_tell_what_is_behind_the_best(bench_folder: Path, run_folder: Path) -> None:
    lines = lines_of(bench_folder)
    assert lines["mdifffr"][0] == "31.00 ± 1.41"
    assert lines["content-profile"][0].startswith("26.00*")
    assert not lines["content-profile"][1].startswith("33.80*")  # of single users it is not known
    assert "paired bootstrap over users" in page_of(bench_folder)[1].text
    single = lines_of(run_folder)
    assert single["MDiffFR"][-2:] == ["1.250", "+2.00"]
    assert "bootstrap" not in page_of(run_folder)[1].text


def test_a_comparison_of_before_is_read(bench_folder: Path, tmp_path: Path) -> None:
    """Its results.csv had no kinds, and rules had rounds."""
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    table = table_of(folder).drop("kind", "twin_of")
    for run in (folder / "runs").iterdir():
        told = json.loads((run / "summary.json").read_text())
        del told["format"], told["kind"], told["twin_of"]
        write_json(run / "summary.json", told)
    for run in (folder / "runs").glob("content*"):
        write_rounds(run, {3: 0.1, 6: 0.2})
    table.write_csv(folder / "results.csv")
    for _ in range(2):
        lines = lines_of(folder)
        assert lines["content-profile"][-2] == "1.000"
        assert lines["mdifffr"][-2:] == ["1.192 ▲", "2"]
        source = read_source(folder)
        assert {r.kind for r in source.results if r.method == "content-profile"} == {"rule"}
        assert {r.kind for r in source.runs if r.method == "content-profile"} == {"rule"}
        content = page_of(folder)[0]
        chart = next(s for s in re.findall(r"<svg.*?</svg>", content, re.S) if "NDCG@20 over" in s)
        assert "content-profile" not in chart
        (folder / "results.csv").unlink(missing_ok=True)  # and while it goes on


def test_a_run_that_a_later_release_made_is_refused(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    run = next((folder / "runs").glob("mdifffr-0-*"))
    write_json(run / "summary.json", summary("mdifffr", format=99))
    for place in (folder, run):
        with pytest.raises(SnowdropError, match="has format 99, and this release reads"):
            make_report(place)


@pytest.mark.parametrize("content", ["method,seed\n", "no such thing", "\xff"])
def test_a_damaged_table_is_told_and_runs_are_read(
    bench_folder: Path, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    (folder / "results.csv").write_bytes(content.encode("latin-1"))
    _, page = page_of(folder)
    assert "results.csv is damaged: it" in page.text
    assert re.search(r"31\.00\s+± 1\.41", page.text)


def test_users_of_another_shape_are_told(bench_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(next((bench_folder / "runs").glob("mdifffr-0-*")), run)
    shapes: list[Any] = [[{"history": ["A pen"]}], [{"history": 3}], ["A pen"], {"users": []}]
    for shape in shapes:
        write_json(run / "sample.json", shape)
        _, page = page_of(run)
        assert "sample.json is damaged" in page.text
        again = "Users' recommendations: sample.json is damaged; snowdrop simulate"
        assert again in page.text
        assert "not in this folder" not in page.text


def test_the_run_of_a_rule_has_itself_as_the_bar(bench_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(next((bench_folder / "runs").glob("content*-0-*")), run)
    told = json.loads((run / "summary.json").read_text())
    told["baselines"] = {"content-profile": baseline("rule", "content-profile", 0.2, 0.2)}
    write_json(run / "summary.json", told)
    source: Source = read_source(run)
    assert [(r.kind, r.twin_of) for r in source.results] == [("rule", "")]
    _, page = page_of(run)
    assert "× the best local rule" not in page.text
    assert "Curves over rounds: not in this folder" in page.text


def test_methods_with_the_same_settings_are_told_apart(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    first = next((folder / "runs").glob("mdifffr-0-*"))
    digest = first.name.rsplit("-")[-1]
    shutil.copytree(first, folder / "runs" / f"mdifffr_dim_256-0-{digest}")
    write_json(
        folder / "runs" / f"mdifffr_dim_256-0-{digest}" / "summary.json",
        summary("mdifffr@dim=256", test=metrics(0.3)),
    )
    table = table_of(folder)
    row = table.filter(pl.col("digest") == digest)
    pl.concat([table, row.with_columns(pl.lit("mdifffr@dim=256").alias("method"))]).write_csv(
        folder / "results.csv"
    )
    methods = [run.method for run in read_source(folder).runs]
    assert methods.count("mdifffr@dim=256") == 1
    assert methods.count("mdifffr") == 2


def test_a_comparison_whose_first_run_goes_on(bench_folder: Path, tmp_path: Path) -> None:
    there = next((bench_folder / "runs").glob("mdifffr-0-*"))
    here = tmp_path / "bench" / "runs" / there.name
    here.mkdir(parents=True)
    for name in ("settings.json", "rounds.csv"):
        shutil.copy(there / name, here / name)
    assert "Recall@20 over rounds" in page_of(tmp_path / "bench")[1].text


def test_a_run_that_ranks_at_random(bench_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "random-0-0123456789"
    shutil.copytree(next((bench_folder / "runs").glob("content*-0-*")), run)
    write_json(run / "summary.json", summary("random", kind="floor", test=metrics(0.01)))
    assert "of a method that is not random" in page_of(run)[1].text


def test_methods_without_validation_stand_in_the_order_of_their_test(
    bench_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    told = "order of their test results, because not all were validated"
    assert told not in page_of(folder)[1].text
    table = table_of(folder)
    table.with_columns(pl.lit(None).alias(f"validation_{k}") for k in METRICS).write_csv(
        folder / "results.csv"
    )
    text = page_of(folder)[1].text
    assert told in text
    assert "because no rule was validated" in text


def test_groups_of_users_have_their_own_recall(bench_folder: Path) -> None:
    _, page = page_of(bench_folder)
    table = page.text[page.text.index("Recall by length of history") :]
    assert re.search(r"1–\d+ \d+ 10\.00 %", table)
    assert re.search(r"–39 \d+ 50\.00 %", table)


def test_a_running_run_is_told_as_far_as_it_is(run_folder: Path) -> None:
    for name in ("summary.json", "checkpoint", "nodes"):
        path = run_folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _, page = page_of(run_folder)
    assert "Recall over rounds" in page.text
    for words in ("Test results", "Embeddings over rounds", "Distances", "Users' recommendations"):
        assert words in page.text, words
    assert "snowdrop simulate DATA_DIR --run-dir DIR makes it" in page.text


def test_a_run_that_was_stopped_is_told_to_go_on(run_folder: Path) -> None:
    (run_folder / "summary.json").unlink()
    _, page = page_of(run_folder)
    goes_on = "not in this folder; snowdrop simulate DATA_DIR --run-dir DIR --set resume=true makes"
    assert f"Test results, which a run has at its end: {goes_on}" in page.text


def test_damaged_parts_are_left_out(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    for run in (folder / "runs").iterdir():
        for name in ("embeddings.npz", "sample.json", "users.parquet", "rounds.csv"):
            (run / name).write_text("no such thing")
    _, page = page_of(folder)
    assert "31.00" in page.text
    assert "not in this folder" not in page.text
    assert page.text.count("is damaged; snowdrop bench DATA_DIR --out DIR makes it anew") == 6
    assert "Curves over rounds: rounds.csv is damaged" in page.text
    told = page.text[page.text.index("Files that could not be read") :]
    for name in ("embeddings.npz", "users.parquet"):
        assert told.count(f"{name} is damaged") == len(list((folder / "runs").iterdir())), name
    assert told.count("rounds.csv is damaged") == 6  # a rule has no rounds
    assert "sample.json is damaged" in told
    assert str(folder) not in page.text


def test_a_run_with_a_damaged_summary_says_so_where_its_results_would_be(
    run_folder: Path,
) -> None:
    (run_folder / "summary.json").write_text('{"test": ')
    _, page = page_of(run_folder)
    what = "Test results, which a run has at its end"
    assert f"{what}: summary.json is damaged; snowdrop simulate" in page.text
    assert "not in this folder" in page.text  # the similarity of users, which a bench measures


def test_a_method_that_diverged_is_left_out_of_what_it_has_not(
    bench_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    for run in (folder / "runs").glob("ipfedrec*"):
        with np.load(run / "embeddings.npz") as arrays:
            np.savez(run / "embeddings.npz", **{k: v * np.nan for k, v in arrays.items()})
    table = table_of(folder)
    lost = pl.when(pl.col("method").str.starts_with("ipfedrec")).then(float("nan"))
    table.with_columns(
        lost.otherwise(pl.col(n)).alias(n) for n in table.columns if "ndcg" in n
    ).write_csv(folder / "results.csv")
    content, page = page_of(folder)
    assert re.search(r"ipfedrec:paper@dim=16\s+21\.00.*?–\s+–", page.text)
    assert "nan" not in content.lower().replace("nano", "")
    assert content.count("<option>") == 2  # only the other federation and its twin have a map


def test_a_bench_that_goes_on_is_read_from_its_runs(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(bench_folder, folder)
    (folder / "results.csv").unlink()
    _, page = page_of(folder)
    assert re.search(r"31\.00\s+± 1\.41", page.text)
    assert "ipfedrec:paper@dim=16" in page.text


def test_the_caption_names_methods_that_diverged(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    table = table_of(bench_folder)
    lost = pl.col("method").str.starts_with("ipfedrec")
    for diverged, told in ((lost, True), (pl.lit(False), False)):
        table.with_columns(diverged.alias("diverged")).write_csv(folder / "results.csv")
        _, page = page_of(folder)
        assert (
            "The training of ipfedrec:paper@dim=16 diverged in at least one run" in page.text
        ) == told


def test_several_data_sets_have_a_chapter_each(bench_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    table = table_of(bench_folder)
    both = pl.concat([table, table.with_columns(pl.lit("films").alias("data"))])
    both.write_csv(folder / "results.csv")
    _, page = page_of(folder)
    assert page.tags.count("h1") == 2
    assert "New items on office" in page.text
    assert "New items on films" in page.text


def test_a_folder_without_results_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match="holds no results; give a folder that"):
        make_report(tmp_path)
    with pytest.raises(SnowdropError, match="is not a folder"):
        make_report(tmp_path / "nowhere")


def test_the_command_writes_beside_the_run_or_where_it_is_told(run_folder: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["report", str(run_folder)]).exit_code == 0
    beside = (run_folder / "report.html").read_text("utf-8")
    out = run_folder / "deep" / "page.html"
    assert runner.invoke(app, ["report", str(run_folder), "--out", str(out)]).exit_code == 0
    assert out.read_text("utf-8") == beside


def test_frechet_distance_has_its_closed_form_on_a_line() -> None:
    """Of N(μ, σ²) and N(ν, τ²): (μ − ν)² + (σ − τ)²."""
    base = np.linspace(-1, 1, 101)[:, None]
    base /= base.std(ddof=1)
    assert frechet_distance(base * 3 + 1, base * 0.5 - 2) == pytest.approx(3**2 + 2.5**2)
    assert frechet_distance(base, base) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_is_what_scipy_says() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    second = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 0.5
    one, two = (np.cov(x, rowvar=False) for x in (first, second))
    gap = first.mean(0) - second.mean(0)
    expected = gap @ gap + np.trace(one + two - 2 * np.real(sqrtm(one @ two)))
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(second, first) == pytest.approx(expected)


def test_frechet_distance_stands_singular_covariances() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(4, 32)), rng.normal(size=(100, 32))
    assert np.isfinite(frechet_distance(few, many))


def test_generated_items_like_warm_ones_are_no_further_than_held_out_ones() -> None:
    rng = np.random.default_rng(0)
    warm, alike = rng.normal(size=(1000, 8)), rng.normal(size=(500, 8))
    same = misalignment(warm, alike)
    far = misalignment(warm, alike + 3)
    crowded = misalignment(warm, np.repeat(warm[:50], 10, axis=0) + 1e-3)
    assert same is not None and far is not None and crowded is not None
    assert same.items == 500
    assert same.frechet_generated == pytest.approx(same.frechet_held_out, abs=0.03)
    assert np.median(same.nearest_generated) == pytest.approx(1, abs=0.1)
    assert np.median(same.nearest_held_out) == pytest.approx(1)
    assert far.frechet_generated == pytest.approx(9, rel=0.1)  # 8 · 3² over a variance of 8
    assert np.median(far.nearest_generated) > 3
    assert np.quantile(crowded.nearest_generated, 0.25) < 0.1


def test_misalignment_does_not_depend_on_scale_and_needs_items() -> None:
    rng = np.random.default_rng(0)
    warm, cold = rng.normal(size=(100, 4)), rng.normal(size=(30, 4)) + 1
    small, large = misalignment(warm, cold), misalignment(100 * warm, 100 * cold)
    assert small is not None and large is not None
    assert small.frechet_generated == pytest.approx(large.frechet_generated)
    assert misalignment(warm, cold[:1]) is None
    assert misalignment(np.ones((10, 4)), cold) is None


def test_long_labels_are_shortened_where_their_ends_still_tell_them_apart() -> None:
    method = "MDiffFR + similar items"
    labels = [method, f"{method}, frozen", "ipfedrec:paper@dim=16,item_lr=0.5"]
    short = [cut(label) for label in labels]
    assert short == [
        "MDiffFR + similar items",
        "MDiffFR + s…tems, frozen",
        "ipfedrec:pa…,item_lr=0.5",
    ]
    assert all(len(label) <= LETTERS for label in short)
    assert cut("x" * LETTERS) == "x" * LETTERS


def test_axes_have_round_numbers() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.13, 0.47) == pytest.approx([0.2, 0.3, 0.4])
    assert ticks(3, 3) == [3]
    flat = line_chart("flat", [Series("all", [(1.0, 1.0), (2.0, 1.0)], 0)], "round", "Recall")
    assert "100 %" in flat and "120 %" not in flat


def test_a_logarithmic_axis_tells_the_places_of_its_points() -> None:
    line = Series("a", [(100, 0.1), (1_000, 0.2), (10_000, 0.3)])
    drawn = str(line_chart("a", [line], "users", "", x_form=lambda x: f"{x:,.0f}", x_log=True))
    marks = [float(x) for x in re.findall(r'<circle [^>]*cx="([\d.]+)"', drawn)]
    assert marks[1] - marks[0] == pytest.approx(marks[2] - marks[1], abs=0.2)
    ticks_told = re.findall(r'<text x="([\d.]+)" y="248.0" class="tick middle" >([^<]*)<', drawn)
    assert [told for _, told in ticks_told] == ["100", "1,000", "10,000"]
    assert [float(x) for x, _ in ticks_told] == pytest.approx(marks, abs=0.2)
    close = [Series("a", [(9_000, 0.1), (10_000, 0.3)]), Series("b", [(100, 0.1)])]
    crowded = str(line_chart("a", close, "users", "", x_form=lambda x: f"{x:,.0f}", x_log=True))
    heights = re.findall(r'y="([\d.]+)" class="tick middle"', crowded)
    assert [float(y) for y in heights] == [248, 261, 248]  # labels that would overlap


def curve_of(methods: Mapping[str, tuple[str, str, float, float | None]]) -> Subject:
    """A comparison of two seeds: kind, twin of, Recall@20 of the first seed, users."""
    results = {
        name: [
            Result("films", name, seed, kind, twin, metrics(recall + more), metrics(recall),
                   federation_users=users)
            for seed, more in (("0", 0.0), ("1", 0.02))
        ]
        for name, (kind, twin, recall, users) in methods.items()
    }  # fmt: skip
    return Subject(True, "films", [], results, list(results), "sums")


def test_a_curve_has_methods_twins_and_the_best_rule() -> None:
    told: dict[str, tuple[str, str, float, float | None]] = {
        "sums": ("trained", "", 0.30, 900),
        "sums:frozen": ("trained", "sums", 0.20, 900),
        "sums@dim=8@federated=0.1": ("trained", "", 0.10, 90),
        "sums@federated=0.1": ("trained", "", 0.25, 90),
        "rule": ("rule", "", 0.22, None),
        "weaker rule": ("rule", "", 0.12, None),
    }
    recall, ndcg = curve_part(curve_of(told)).figures
    assert recall.title == "Recall@20 against the number of users"
    assert recall.head == ["Users in the federation", "sums", "sums:frozen", "rule"]
    assert recall.rows == [
        ["90", "26.0 %", "21.0 %", "23.0 %"],
        ["900", "31.0 %", "21.0 %", "23.0 %"],
    ]
    assert str(recall.svg).count("dashed") == 2
    assert ndcg.rows[0][1] == "18.2 %"
    fewer = {name: of for name, of in told.items() if "federated" not in name}
    assert curve_part(curve_of(fewer)).figures == []


def test_charts_stand_one_point_and_zeros() -> None:
    assert "<circle" in line_chart("x", [Series("one", [(1, 0.0)])], "round", "loss")
    assert "nan" not in value_chart("x", [Row("nothing", 0.0)], "seconds")


@pytest.fixture(params=["run", "bench"])
def report(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = request.getfixturevalue(f"{request.param}_folder")
    return make_report(folder, tmp_path / "page.html")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_charts_are_drawn_quietly_and_whole(
    browser: Any, report: Path, size: dict[str, int]
) -> None:
    visit = Visit(browser, report, viewport=size)
    check_page(visit, size["width"], least=8)


def test_the_slider_moves_the_points(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, viewport=DESKTOP)
    places = "['warm', 'cold'].map(k => document.querySelector(`.stage .${k}`).getAttribute('d'))"
    last = visit.page.evaluate(places)
    slider = visit.page.locator("input[type=range]")
    slider.focus()
    slider.press("Home")
    first = visit.page.evaluate(places)
    assert first[0] != last[0] and first[1] != last[1]
    assert len(first[0].split("M")) == len(last[0].split("M")) > 20
    rounds = json.loads(visit.page.locator("#maps").text_content() or "")[0]["methods"]
    numbers = next(iter(rounds.values()))["rounds"]
    assert visit.page.locator(".map output").text_content() == str(numbers[0])
    assert slider.get_attribute("aria-valuetext") == f"round {numbers[0]}"
    slider.press("End")
    assert visit.page.evaluate(places) == last
    assert visit.noise == []


def test_another_method_has_other_points(browser: Any, bench_folder: Path, tmp_path: Path) -> None:
    visit = Visit(browser, make_report(bench_folder, tmp_path / "page.html"))
    place = "document.querySelector('.stage .cold').getAttribute('d')"
    before = visit.page.evaluate(place)
    visit.page.select_option(".map select", "ipfedrec:paper@dim=16")
    assert visit.page.evaluate(place) != before
    assert visit.page.locator(".which").text_content() == "ipfedrec:paper@dim=16"
    assert visit.noise == []


def test_points_glide_and_rounds_play(browser: Any, bench_folder: Path, tmp_path: Path) -> None:
    visit = Visit(browser, make_report(bench_folder, tmp_path / "page.html"))
    visit.page.emulate_media(reduced_motion="no-preference")
    visit.page.get_by_role("button", name="Play the rounds").click()
    for number in (3, 6, 9):
        visit.page.locator(".map output", has_text=str(number)).wait_for()
    visit.page.get_by_role("button", name="Play the rounds").wait_for()
    assert visit.noise == []


def test_marks_tell_their_value(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, viewport=DESKTOP)
    mark = visit.page.locator(".chart .mark").first
    mark.scroll_into_view_if_needed()
    visit.page.evaluate("() => new Promise(done => setTimeout(done, 100))")  # scrolling hides tips
    mark.hover()
    tip = visit.page.locator("#tip")
    assert tip.is_visible()
    assert "%" in (tip.text_content() or "")


def test_a_printed_table_is_as_wide_as_its_paper(
    browser: Any, bench_folder: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide.html"
    head = ["Method", *(f"{name}@{k}" for name in ("Recall", "NDCG") for k in (1, 3, 5, 9, 20, 50))]
    row = ["a method with a long name@mdifffr.steps=50", *(["0.5584 ± 0.0176"] * 12)]
    page = Pages("bench", "Wide", "tables", "", "today", "snowdrop")
    wide.write_text(page.render([Section("Results", head=head, rows=[row])]), encoding="utf-8")
    a4 = {"width": 688, "height": 900}  # between the margins
    for path in (make_report(bench_folder, tmp_path / "page.html"), wide):
        visit = Visit(browser, path, viewport=a4)
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate("document.documentElement.scrollWidth") == a4["width"]


def test_dark_light_and_print_have_colours_of_their_own(browser: Any, report: Path) -> None:
    visit = Visit(browser, report, viewport=DESKTOP, color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = visit.page.evaluate(paper)
    visit.page.emulate_media(color_scheme="dark")
    dark = visit.page.evaluate(paper)
    visit.page.emulate_media(color_scheme="dark", media="print")
    assert visit.page.evaluate(paper) == "rgb(255, 255, 255)"
    assert light != dark
    assert visit.page.locator(".prints svg").first.is_visible()
    assert not visit.page.locator(".controls").is_visible()
