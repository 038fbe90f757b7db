"""Checkpoints: whole, few, locked."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.errors import SnowdropError
from server_app.checkpoint import Checkpoints, newest_state


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    kept = Checkpoints(tmp_path / "checkpoint")
    yield kept
    kept.close()


def save(checkpoints: Checkpoints, number: int, keep: int = 3, best: int = 0) -> None:
    table = torch.full((2, 2), float(number))
    checkpoints.save(number, {"round": number, "table": table}, keep, best)


def test_newest_is_what_was_saved_last(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() is None
    for number in (1, 2):
        save(checkpoints, number)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest["round"] == 2
    assert torch.equal(newest["table"], torch.full((2, 2), 2.0))
    assert checkpoints.load(1)["round"] == 1


def test_the_last_few_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    for number in range(1, 8):
        save(checkpoints, number, keep=2, best=3 if number >= 3 else 0)
    assert checkpoints.rounds() == [3, 6, 7]
    save(checkpoints, 8, keep=2, best=8)
    assert checkpoints.rounds() == [7, 8]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_is_passed_over_with_one_warning(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    for number in (1, 2, 3):
        save(checkpoints, number)
    path = checkpoints.folder / "round-000003.ckpt"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes({"truncate": content[:-9], "flip": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, "snowdrop"):
        newest = checkpoints.newest()
    assert newest is not None
    assert newest["round"] == 2
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


def test_load_of_a_missing_round_is_refused(checkpoints: Checkpoints) -> None:
    with pytest.raises(SnowdropError, match=r"round-000009\.ckpt"):
        checkpoints.load(9)


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    with pytest.raises(SnowdropError, match="another run is using"):
        Checkpoints(tmp_path)
    first.close()
    Checkpoints(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SnowdropError, match="cannot make the folder"):
        Checkpoints(tmp_path / "file" / "checkpoint")


def test_clear_forgets_everything(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    checkpoints.clear()
    assert checkpoints.rounds() == []
    assert checkpoints.newest() is None


def test_a_run_that_goes_on_can_be_read(checkpoints: Checkpoints, tmp_path: Path) -> None:
    save(checkpoints, 1)  # and the folder is still held
    newest = newest_state(checkpoints.folder)
    assert newest is not None and newest["round"] == 1
    assert newest_state(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()
