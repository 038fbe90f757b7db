"""The files of a run: what is written is what is read, whole or refused in one sentence."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from common.errors import FormatError, SnowdropError
from common.settings import RunSettings
from server_app.run_folder import FORMAT, RunFolder, round_columns

SUMMARY = {
    "method": "some method", "test": {"recall@20": 0.5},
    "baselines": {"a rule": {"kind": "rule", "title": "A rule", "test": {"recall@20": 0.25}}},
}  # fmt: skip
SAMPLE = [{"history": ["Fée"], "history_length": 1, "recommended": []}]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A folder that the first write makes."""
    return RunFolder(tmp_path / "deep" / "run")


def test_what_is_written_is_read(folder: RunFolder) -> None:
    settings = RunSettings.parse({"dim": 8, "rounds": 3, "data": "/d"})
    users = pl.DataFrame({"user": [0, 1], "recall@20": [0.5, 1.0]})
    arrays = {"warm": np.eye(3, dtype=np.float32), "cold": np.zeros((0, 3), np.float32)}
    folder.write_settings(settings)
    folder.write_summary(SUMMARY)
    folder.write_published({"items": 3})
    folder.write_plot("metrics.png", b"image")
    folder.write_users(users)
    folder.write_embeddings(arrays)
    assert not folder.is_whole
    folder.write_sample(SAMPLE)
    assert folder.is_whole
    assert folder.read_settings() == settings
    assert folder.read_summary() == {"format": FORMAT} | SUMMARY
    assert folder.read_published() == {"format": FORMAT, "items": 3}
    assert (folder.path / "metrics.png").read_bytes() == b"image"
    read = folder.read_users()
    assert read is not None and read.equals(users)
    embeddings = folder.read_embeddings()
    assert embeddings.keys() == arrays.keys()
    for name, rows in arrays.items():
        np.testing.assert_array_equal(embeddings[name], rows)
    assert folder.read_sample() == SAMPLE


def test_when_a_node_last_answered_is_kept_over_runs(folder: RunFolder) -> None:
    assert folder.read_answered() == {}
    folder.write_answered({1: "2026-11-24T08:00:00+00:00", 2: "2026-11-24T08:00:00+00:00"})
    folder.write_answered({2: "2026-11-25T08:00:00+00:00"})
    folder.write_answered({2: "2026-11-24T23:00:00+00:00"})  # noted earlier, and written later
    assert folder.read_answered() == {
        "1": "2026-11-24T08:00:00+00:00",
        "2": "2026-11-25T08:00:00+00:00",
    }
    (folder.path / "nodes.json").write_text("{")
    assert folder.read_answered() == {}


def test_a_folder_with_a_training_is_refused_unless_settings_say_what_becomes_of_it(
    folder: RunFolder,
) -> None:
    (folder.path / "checkpoint").mkdir(parents=True)
    folder.refuse_training(RunSettings.parse({}))
    (folder.path / "checkpoint" / "round-000002.ckpt").touch()
    for option in ("", "--set "):
        with pytest.raises(SnowdropError) as refusal:
            folder.refuse_training(RunSettings.parse({}), option)
        assert str(refusal.value) == (
            f"{folder.path} holds a training: {option}resume=true goes on with it, "
            f"{option}fresh=true deletes it and begins anew"
        )
    for key in ("resume", "fresh"):
        folder.refuse_training(RunSettings.parse({key: True}))


def test_an_empty_folder_holds_nothing(folder: RunFolder) -> None:
    for _ in range(2):
        assert folder.read_settings() is folder.read_summary() is folder.read_published() is None
        assert folder.read_users() is folder.read_sample() is None
        assert folder.read_rounds() == [] and folder.read_embeddings() == {}
        assert folder.rounds_done() == 0
        assert not folder.is_whole and not folder.is_run
        folder.path.mkdir(parents=True, exist_ok=True)


def test_one_row_per_round_with_the_known_columns_first(folder: RunFolder) -> None:
    folder.write_rounds(
        [
            {"round": 1, "epsilon": 0.5, "loss": 0.25, "users": 7},
            {"round": 2, "loss": float("nan"), "noise": "Laplace", "epsilon": 1.0},
        ]
    )
    header = (folder.path / "rounds.csv").read_text().splitlines()[0].split(",")
    assert header == [*round_columns(), "epsilon", "noise"]
    first, second = folder.read_rounds()
    assert (first["round"], first["users"], first["loss"]) == (1, 7, 0.25)
    assert first["epsilon"] == 0.5 and first["noise"] is None and first["generator_loss"] is None
    assert second["round"] == 2 and np.isnan(second["loss"]) and second["noise"] == "Laplace"
    assert folder.rounds_done() == 2
    assert folder.is_run


def test_a_method_without_rounds_has_a_header_alone(folder: RunFolder) -> None:
    folder.write_rounds([])
    assert (folder.path / "rounds.csv").read_text() == ",".join(round_columns()) + "\n"
    assert folder.read_rounds() == []
    assert folder.rounds_done() == 0


def test_every_object_tells_its_format(folder: RunFolder) -> None:
    folder.write_settings(RunSettings.parse({}))
    folder.write_summary({"method": "m"} | {"format": 1})  # as one that was read and changed
    folder.write_published({})
    for name in ("settings", "summary", "published"):
        assert json.loads((folder.path / f"{name}.json").read_text())["format"] == 2


def test_files_of_before_are_read(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    stored = {"dim": 8, "generator": "ridge", "neighbour_share": 0.0}
    (folder.path / "settings.json").write_text(json.dumps(stored))
    old: dict[str, Any] = {
        "content-profile": {"test": {}},
        "random": {"test": {}},
        "own-features": {"test": {}},
    }
    (folder.path / "summary.json").write_text(json.dumps({"method": "m", "baselines": old}))
    settings = folder.read_settings()
    assert settings is not None and settings.dim == 8
    assert settings.card.name == "ridge"
    summary = folder.read_summary()
    assert summary is not None
    assert summary["format"] == 1 and summary["kind"] == "trained"
    kinds = {name: parts["kind"] for name, parts in summary["baselines"].items()}
    assert kinds == {"content-profile": "rule", "random": "floor", "own-features": "trained"}
    assert summary["baselines"]["own-features"]["title"] == "own-features"


OBJECTS = ("settings.json", "summary.json", "published.json")
READERS: dict[str, Callable[[RunFolder], Any]] = {
    "settings.json": RunFolder.read_settings,
    "summary.json": RunFolder.read_summary,
    "published.json": RunFolder.read_published,
    "rounds.csv": RunFolder.read_rounds,
    "users.parquet": RunFolder.read_users,
    "embeddings.npz": RunFolder.read_embeddings,
    "sample.json": RunFolder.read_sample,
}


@pytest.mark.parametrize("name", OBJECTS)
def test_what_a_later_release_wrote_is_refused(folder: RunFolder, name: str) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / name).write_text('{"format": 3}')
    with pytest.raises(FormatError, match=f"{name} has format 3, and this release reads"):
        READERS[name](folder)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "content",
    [b"no such thing", b"\xff\xfe\x00", b"", b"[1, 2]", b'"text"', b"null", b"PK\x03\x04", b"PAR1"],
)
def test_damage_is_one_sentence_that_names_the_file(
    folder: RunFolder, name: str, content: bytes
) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / name).write_bytes(content)
    with pytest.raises(SnowdropError, match=name) as caught:
        READERS[name](folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ['"2"', "0", "true", "1.5", "null"])
def test_a_format_that_is_no_number_is_damage(folder: RunFolder, number: str) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "published.json").write_text(f'{{"format": {number}}}')
    with pytest.raises(SnowdropError, match="which must be a whole number from 1"):
        folder.read_published()


@pytest.mark.parametrize(
    "text", ["round,loss\none,0.5\n", "round,loss\n1\n", "round,loss\n1,2,3\n", "loss\n0.5\n"]
)
def test_rounds_that_are_no_table(folder: RunFolder, text: str) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "rounds.csv").write_text(text)
    with pytest.raises(SnowdropError, match="a column 'round' that counts rounds"):
        folder.read_rounds()
    assert folder.rounds_done() == 0


def test_settings_of_nobody_are_refused(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "settings.json").write_text('{"format": 2, "colour": "blue"}')
    with pytest.raises(SnowdropError, match=r"settings\.json.*cannot read") as caught:
        folder.read_settings()
    assert "\n" not in str(caught.value)


def test_baselines_of_another_shape_are_refused(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True)
    for baselines in ("[]", '{"random": 0.5}'):
        (folder.path / "summary.json").write_text(f'{{"baselines": {baselines}}}')
        with pytest.raises(SnowdropError, match=r"summary\.json is damaged: 'baselines'"):
            folder.read_summary()


def test_a_folder_in_place_of_a_file_is_one_sentence(folder: RunFolder) -> None:
    (folder.path / "summary.json").mkdir(parents=True)
    with pytest.raises(SnowdropError, match=r"cannot read .*summary\.json"):
        folder.read_summary()


def test_looking_at_a_run_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom server_app.run_folder import RunFolder\n"
        "RunFolder(Path('nowhere')).rounds_done()\n"
        "heavy = ('torch', 'numpy', 'polars', 'matplotlib', 'flwr', 'server_app.app')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
