"""A folder of synthetic users is written, read back, and refused where its mark is missing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from client_app.synthesis.folder import INTERACTIONS, SUMMARY, read_synthetic, write_synthetic
from common.durable import write_atomic
from common.errors import SnowdropError

ITEMS = ("007", "ä", "x,y")
LIKES = csr_array(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=bool))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_synthetic(tmp_path / "made", LIKES, ITEMS, {"epsilon": 1.5, "users": 3})
    return tmp_path / "made"


def test_what_is_written_is_read_back(folder: Path) -> None:
    made = read_synthetic(folder)
    assert made.rows.rows() == [
        ("synthetic-0", "007"), ("synthetic-0", "x,y"), ("synthetic-2", "ä"),
    ]  # fmt: skip
    assert made.epsilon == 1.5
    assert made.summary == {"format": 1, "synthetic": True, "epsilon": 1.5, "users": 3}


def test_no_epsilon_is_stated_unless_one_is_given(tmp_path: Path) -> None:
    write_synthetic(tmp_path, LIKES, ITEMS, {})
    assert read_synthetic(tmp_path).epsilon is None


def test_the_name_is_that_of_the_interactions(folder: Path, tmp_path: Path) -> None:
    name = read_synthetic(folder).name
    assert len(name) == 16
    write_synthetic(tmp_path / "again", LIKES, ITEMS, {"epsilon": 9})
    assert read_synthetic(tmp_path / "again").name == name
    write_synthetic(tmp_path / "other", LIKES[:2], ITEMS, {"epsilon": 1.5})
    assert read_synthetic(tmp_path / "other").name != name


def test_ids_of_many_users_sort_as_they_are_numbered(tmp_path: Path) -> None:
    many = csr_array(np.ones((12, 1), dtype=bool))
    write_synthetic(tmp_path, many, ["a"], {})
    users = pl.read_csv(tmp_path / INTERACTIONS)["user_id"]
    assert users.to_list() == users.sort().to_list()
    assert users[0] == "synthetic-00"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "has no summary.json; `snowdrop synthesize` makes one"),
        ("{", "summary.json cannot be read as JSON"),
        ("[]", "does not say that its users are synthetic"),
        ({"users": 3}, "does not say that its users are synthetic"),
        ({"synthetic": "yes"}, "does not say that its users are synthetic"),
        ({"synthetic": True, "format": 2}, "is of a later release"),
        ({"synthetic": True, "epsilon": -1}, "epsilon = -1, which must be above 0, or null"),
        ({"synthetic": True, "epsilon": "1"}, "which must be above 0, or null"),
    ],
)
def test_a_folder_without_its_mark_is_refused(folder: Path, content: Any, sentence: str) -> None:
    (folder / SUMMARY).unlink()
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / SUMMARY).write_text(text)
    with pytest.raises(SnowdropError, match=sentence):
        read_synthetic(folder)


def test_the_mark_is_gone_while_the_interactions_are_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(path: Path, content: bytes) -> None:
        if path.name == SUMMARY:
            raise KeyboardInterrupt
        write_atomic(path, content)

    monkeypatch.setattr("client_app.synthesis.folder.write_atomic", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(folder, LIKES[:1], ITEMS, {})
    with pytest.raises(SnowdropError, match=r"has no summary\.json"):
        read_synthetic(folder)
