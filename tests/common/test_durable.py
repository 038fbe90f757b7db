from pathlib import Path

import pytest

from common.durable import make_folder, read_checked, write_atomic, write_checked
from common.errors import SnowdropError


def test_write_replaces_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"old, and longer")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 9])
def test_checked_content_comes_back(tmp_path: Path, content: bytes) -> None:
    write_checked(tmp_path / "file", content)
    assert read_checked(tmp_path / "file") == content


@pytest.mark.parametrize("place", [0, 3, 10, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "file"
    write_checked(path, b"some content")
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(SnowdropError, match="is damaged"):
        read_checked(path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_checked(path, b"some content")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SnowdropError, match="is damaged"):
            read_checked(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match=r"cannot read .*file"):
        read_checked(tmp_path / "file")


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_bytes(b"old")
    make_folder(tmp_path / "new" / "folder")
    make_folder(tmp_path / "new")
    assert (tmp_path / "new" / "folder").is_dir()
    with pytest.raises(SnowdropError, match="blocker is a file; give a folder"):
        make_folder(blocker)
    with pytest.raises(SnowdropError, match=r"cannot make the folder .*: Not a directory"):
        make_folder(blocker / "below")
    with pytest.raises(SnowdropError, match="cannot write"):
        write_atomic(blocker / "file", b"new")
    assert blocker.read_bytes() == b"old"


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failed_write_leaves_the_old_file_and_no_temporaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr(step, full)
    with pytest.raises(SnowdropError, match=r"cannot write .*No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_target_that_is_a_folder_leaves_no_temporaries(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(SnowdropError, match="cannot write"):
        write_atomic(tmp_path / "folder", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
