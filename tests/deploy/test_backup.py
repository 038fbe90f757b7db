"""A federation's folder in one file, and back in an empty folder."""

import gzip
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import SnowdropError
from deploy.backup import back_up, restore
from deploy.federation import Federation
from tests.deploy.test_credentials import Made


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def used(made: Made) -> Made:
    """A federation that has data, a checkpoint, a state, and what is made anew."""
    folder = made[0]
    for name in (
        "server/run/checkpoint/round-000001.ckpt", "server/run/checkpoint/lock",
        "server/data/items.csv", "nodes/node-0/state/trainings/ab/round-000001.state",
        "nodes/node-1/state/secret", "logs/superlink.log", "run/superlink.json",
        "server/cache/x.npy", "nodes/node-0/flower-home/warm/lock", "server/run/.rounds.csv.tmp",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    with closing(sqlite3.connect(folder / "server" / "superlink.db")) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table node (id)")
        database.commit()
    return made


def test_what_is_restored_is_what_was_backed_up(used: Made, tmp_path: Path) -> None:
    folder, federation = used
    archive = tmp_path / "out" / "backup.tar.gz"
    with closing(sqlite3.connect(folder / "server" / "superlink.db")) as writing:
        writing.execute("insert into node values (7)")
        writing.commit()  # which stands in the write-ahead log alone
        assert back_up(folder, archive) > 20
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    before = contents(folder)
    assert restore(archive, tmp_path / "new") == federation.model_copy(
        update={"root": tmp_path / "new"}
    )
    after = contents(tmp_path / "new")
    anew = {
        "logs/superlink.log", "run/superlink.json", "server/cache/x.npy",
        "server/run/.rounds.csv.tmp",
        "nodes/node-0/flower-home/warm/lock", "server/run/checkpoint/lock",
        "server/superlink.db-wal", "server/superlink.db-shm",
    }  # fmt: skip
    assert set(before) - anew == set(after)
    told = {name for name in after if str(folder) in before[name].decode(errors="replace")}
    assert {"federation.json", "server/settings.toml", "server/flower-home/config.toml"} <= told
    for name in after:
        moved = before[name].replace(str(folder).encode(), str(tmp_path / "new").encode())
        if name in told:
            assert str(folder).encode() not in after[name]
        elif name != "server/superlink.db":
            assert after[name] == moved
    with closing(sqlite3.connect(tmp_path / "new" / "server" / "superlink.db")) as database:
        assert database.execute("select id from node").fetchall() == [(7,)]
    key = tmp_path / "new" / "nodes" / "node-0" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert Federation.load(tmp_path / "new").root == tmp_path / "new"


def test_the_authority_may_stay_out(used: Made, tmp_path: Path) -> None:
    back_up(used[0], tmp_path / "backup.tar.gz", authority=False)
    restore(tmp_path / "backup.tar.gz", tmp_path / "new")
    assert not (tmp_path / "new" / "ca").exists()
    assert (tmp_path / "new" / "server" / "ca.crt").exists()


def test_what_cannot_be_backed_up_is_one_sentence(used: Made, tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match="holds no federation"):
        back_up(tmp_path / "absent", tmp_path / "backup.tar.gz")
    with pytest.raises(SnowdropError, match=r"is inside .*; give a file elsewhere"):
        back_up(used[0], used[0] / "backup.tar.gz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SnowdropError, match="cannot write"):
        back_up(used[0], tmp_path / "folder", force=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_back_up_that_is_there_is_replaced_only_if_that_is_said(
    used: Made, tmp_path: Path
) -> None:
    archive = tmp_path / "backup.tar.gz"
    archive.write_text("of yesterday")
    with pytest.raises(SnowdropError, match=r"backup\.tar\.gz exists; give --force to replace it"):
        back_up(used[0], archive)
    assert archive.read_text() == "of yesterday"
    back_up(used[0], archive, force=True)
    restore(archive, tmp_path / "new")


def test_git_leaves_a_federation_alone_whatever_its_name(used: Made, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    back_up(used[0], tmp_path / "backup.tar.gz")
    restore(tmp_path / "backup.tar.gz", tmp_path / "another name")
    (tmp_path / "backup.tar.gz").unlink()
    told = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == ""


def test_a_damaged_back_up_leaves_nothing(used: Made, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar.gz"
    back_up(used[0], archive)
    whole = archive.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 16
    foreign = gzip.compress(b"no archive")
    for content in (whole[: len(whole) // 2], bytes(damaged), foreign, b"nothing"):
        archive.write_bytes(content)
        before = set(tmp_path.iterdir())
        with pytest.raises(SnowdropError):
            restore(archive, tmp_path / "new")
        assert set(tmp_path.iterdir()) == before
    archive.write_bytes(whole)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").touch()
    with pytest.raises(SnowdropError, match="is not empty"):
        restore(archive, tmp_path / "new")
    with pytest.raises(SnowdropError, match="absent is missing; give a file that"):
        restore(tmp_path / "absent", tmp_path / "other")
