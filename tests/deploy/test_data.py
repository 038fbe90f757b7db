"""A data folder shared out: every user on one node, and no interaction on the server."""

from pathlib import Path

import polars as pl
import pytest

from cli.prepare.folder import read
from client_app.interactions import shard_of
from common.catalogue import read_catalogue
from common.errors import SnowdropError
from deploy.data import share

NODES = ["node-0", "node-1", "node-2"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Thirty users with a few interactions each, among four items."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "items.csv").write_text(
        'item_id,title,split\n01,"Apple, red",warm\n02,Bread,validation\n'
        "03,Cheese,test\n04,Dust,warm\n"
    )
    lines = [f"user-{u},0{1 + (u * k) % 4}" for u in range(30) for k in range(3)]
    (folder / "interactions.csv").write_text("user_id,item_id\n" + "\n".join(lines) + "\n")
    return folder


def test_shares_partition_the_interactions_by_user(source: Path, tmp_path: Path) -> None:
    items, interactions = read(source)
    counts = share(items, interactions, tmp_path / "fed", NODES)
    shares = [
        pl.read_csv(
            tmp_path / "fed" / "nodes" / name / "data" / "interactions.csv", infer_schema=False
        )
        for name in NODES
    ]
    assert pl.concat(shares).sort(pl.all()).equals(interactions.sort(pl.all()))
    for number, (name, frame) in enumerate(zip(NODES, shares, strict=True)):
        users = frame["user_id"].unique().to_list()
        assert len(users) == counts[name] > 0
        assert set(shard_of(users, 3)) == {number}
    assert sum(counts.values()) == 30


def test_the_server_gets_the_items_and_nothing_else(source: Path, tmp_path: Path) -> None:
    share(*read(source), tmp_path / "fed", NODES)
    server = tmp_path / "fed" / "server"
    assert [path for path in server.rglob("*") if path.is_file()] == [server / "data" / "items.csv"]
    here, there = read_catalogue(server / "data", 0), read_catalogue(source, 0)
    assert here.index().version == there.index().version
    assert here.texts == there.texts
    assert "user-" not in (server / "data" / "items.csv").read_text()


def test_a_split_in_files_reaches_the_server_and_the_nodes(source: Path, tmp_path: Path) -> None:
    (source / "interactions.csv").unlink()
    (source / "items.csv").write_text("item_id,title\n01,Apple\n02,Bread\n03,Cheese\n")
    for name, item in (("train", "01"), ("validation", "02"), ("test", "03")):
        (source / f"{name}.csv").write_text(f"user_id,item_id\nu,{item}\n")
    share(*read(source), tmp_path / "fed", ["only"])
    assert set(pl.read_csv(tmp_path / "fed" / "server" / "data" / "items.csv")["split"]) == {
        "warm",
        "validation",
        "test",
    }


def test_a_federation_without_nodes_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match="no nodes"):
        share(*read(source), tmp_path / "fed", [])
