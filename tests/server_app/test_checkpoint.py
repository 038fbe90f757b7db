"""Checkpoints: whole, few, locked."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import FormatError, SnowdropError
from server_app import checkpoint as checkpoint_module
from server_app.checkpoint import FORMAT, Checkpoints, newest_state
from tests.server_app.format_1 import OF_METHOD, rewrite
from tests.server_app.runs import run_here, run_values, state_of


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


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("saved", "keep"), [((1,), 3), ((1, 2, 3), 1)])
def test_a_damaged_checkpoint_with_none_right_before_it_loses_nothing(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture, saved: tuple[int, ...], keep: int
) -> None:
    for number in saved:
        save(checkpoints, number, keep=keep, best=1)
    path = checkpoints.folder / f"round-{saved[-1]:06d}.ckpt"
    flip(path)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest["round"] == saved[-1]
    assert "is damaged" in caplog.text
    assert "taking its copy" in caplog.text
    flip(path.with_name(f"{path.name}.copy"))
    newest = checkpoints.newest()
    assert (newest and newest["round"]) == (1 if len(saved) > 1 else None)


def test_a_copy_is_gone_once_it_is_not_needed(checkpoints: Checkpoints) -> None:
    def copies() -> list[str]:
        return sorted(path.name for path in checkpoints.folder.glob("*.copy"))

    save(checkpoints, 1)
    assert copies() == ["round-000001.ckpt.copy"]
    save(checkpoints, 2)
    assert copies() == []
    save(checkpoints, 3, keep=1)
    assert copies() == ["round-000003.ckpt.copy"]
    checkpoints.clear()
    assert copies() == []


def test_the_copy_stays_while_the_round_before_is_damaged(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    save(first, 1)
    first.close()
    flip(tmp_path / "round-000001.ckpt")
    later = Checkpoints(tmp_path)
    save(later, 2)
    flip(tmp_path / "round-000002.ckpt")
    newest = later.newest()
    later.close()
    assert newest is not None
    assert newest["round"] == 2


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


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*ckpt*"))


def test_a_training_makes_way_for_another_one_once_that_has_a_checkpoint(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path)
    save(first, 1)
    first.close()
    before = files(tmp_path)
    assert len(before) == 2  # with its copy
    for ends in (True, False):  # or its process is killed
        second = Checkpoints(tmp_path)
        second.set_aside()
        assert second.rounds() == []
        assert second.newest() is None
        if ends:
            second.close()
            assert files(tmp_path) == before
        else:
            assert second._lock is not None
            second._lock.close()
            assert not set(files(tmp_path)) & set(before)
    third = Checkpoints(tmp_path)
    assert files(tmp_path) == before
    third.set_aside()
    save(third, 1)
    assert files(tmp_path) == before
    third.close()
    assert files(tmp_path) == before


def test_what_a_killed_process_left_set_aside_is_deleted_where_a_newer_one_is_there(
    tmp_path: Path,
) -> None:
    first = Checkpoints(tmp_path)
    save(first, 1)
    (tmp_path / "former-round-000007.ckpt").write_bytes(b"old")
    first.close()
    assert files(tmp_path) == ["round-000001.ckpt", "round-000001.ckpt.copy"]


def test_a_run_that_goes_on_can_be_read(checkpoints: Checkpoints, tmp_path: Path) -> None:
    save(checkpoints, 1)  # and the folder is still held
    newest = newest_state(checkpoints.folder)
    assert newest is not None and newest["round"] == 1
    assert newest_state(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()


# The number of the format.


def test_a_checkpoint_tells_its_format(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    assert checkpoints.load(1)["format"] == FORMAT == 2


def test_what_a_later_release_wrote_is_refused_in_one_sentence(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 1)
    monkeypatch.setattr(checkpoint_module, "FORMAT", 3)
    save(checkpoints, 2)
    monkeypatch.undo()
    sentence = r"round-000002\.ckpt has format 3, this release reads up to 2; go on with"
    for read in (lambda: checkpoints.load(2), checkpoints.newest, checkpoints.best):
        with pytest.raises(FormatError, match=sentence) as refusal:
            read()
        assert "\n" not in str(refusal.value)


def test_a_run_on_what_a_later_release_wrote_is_refused_and_nothing_is_lost(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = run_values(data_folder, tmp_path, method="ridge", baselines=False, rounds=1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "FORMAT", 3)
        run_here(values)
    kept = (tmp_path / "checkpoint" / "round-000001.ckpt").read_bytes()
    for how in ({"resume": True}, {"mode": "publish"}):
        with pytest.raises(FormatError, match="has format 3"):
            run_here({**values, **how})
    assert (tmp_path / "checkpoint" / "round-000001.ckpt").read_bytes() == kept


def values_of(data: Path, run_dir: Path, method: str, **changed: Any) -> dict[str, Any]:
    own = {"ipfedrec": {"average": "touches", "head_start": "zero", "item_lr_per_item": False,
                        "batch_size": 0, "table_start": "features", "condition_dim": 0,
                        "ipfedrec__pull": 0.5, "ipfedrec__refit": True,
                        "ipfedrec__fit_batch": 256, "ipfedrec__lr": 1e-3,
                        "ipfedrec__lr_decay": "cosine", "ipfedrec__weight_decay": 1e-3,
                        "ipfedrec__condition_noise": 0.5}}  # fmt: skip
    return run_values(
        data, run_dir, method=method, baselines=False, **own.get(method, {}), **changed
    )


@pytest.mark.parametrize("method", OF_METHOD)
def test_a_checkpoint_of_format_1_is_read_resumed_and_published(
    data_folder: Path, tmp_path: Path, method: str
) -> None:
    whole, former = tmp_path / "whole", tmp_path / "former"
    expected = run_here(values_of(data_folder, whole, method))
    run_here(values_of(data_folder, former, method, rounds=2))
    id_ = state_of(former, 2)["id"]
    rewrite(former, method)

    read = state_of(former, 2)
    assert read["format"] == 2
    assert read["settings"]["method"] == method
    first = "mdifffr" if method == "mixture" else method
    assert read["settings"][f"{first}.width"] == 16
    assert not {"generator", "neighbour_share", "denoiser_width"} & read["settings"].keys()

    published = run_here(values_of(data_folder, former, method, mode="publish"))
    assert (published["users"], published["round"]) == (60, 2)
    summary = run_here(values_of(data_folder, former, method, resume=True))
    assert summary["training"] == state_of(former, 4)["id"] == id_
    assert summary["test"] == pytest.approx(expected["test"])
    table = state_of(whole, 4)["table"]
    torch.testing.assert_close(state_of(former, 4)["table"], table, atol=1e-6, rtol=0)


def test_a_checkpoint_of_format_1_is_not_mistaken_for_another_methods(
    data_folder: Path, tmp_path: Path
) -> None:
    run_here(values_of(data_folder, tmp_path, "mixture", rounds=1))
    rewrite(tmp_path, "mixture")
    with pytest.raises(SnowdropError, match=r"method = 'mixture', these settings say 'mdifffr'"):
        run_here(values_of(data_folder, tmp_path, "mdifffr", resume=True))
    values = values_of(data_folder, tmp_path, "mixture", resume=True)
    with pytest.raises(SnowdropError, match=r"mdifffr\.attention_heads = 4, these settings say 2"):
        run_here({**values, "mdifffr.attention_heads": 2})
