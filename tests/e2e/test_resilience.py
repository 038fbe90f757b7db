"""What a federation must survive: crashes, restarts, damage, bad nodes; and its everyday job."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from client_app.interactions import NodeInteractions
from client_app.store import StateStore
from common.errors import SnowdropError
from server_app.checkpoint import Checkpoints
from tests.e2e.checkpoints import assert_same_training, checkpoints, newest
from tests.e2e.federation import Federation, Run, federation, snowdrop, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with federation(tmp_path_factory.mktemp("resilience") / "fed") as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(fed: Federation) -> Run:
    """Two rounds in which nothing happens; later tests train it on."""
    run = fed.run()
    assert run.wait() == "finished:completed", run.log()
    return run


def flip_a_byte(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_a_training_goes_on_after_its_serverapp_was_killed(
    fed: Federation, undisturbed: Run
) -> None:
    run = fed.run()
    run.wait_for_round(1)
    with pytest.raises(SnowdropError, match="another run is using"):
        Checkpoints(run.folder / "checkpoint")
    fed.kill_serverapp()
    assert run.wait() != "finished:completed"

    again = fed.run(run.folder, resume=True)
    assert again.wait() == "finished:completed", again.log()
    assert "going on after round" in again.log()
    assert again.rounds()["round"].to_list() == [1, 2]
    assert_same_training(again.folder, undisturbed.folder)


def test_a_training_goes_on_after_the_superlink_was_killed(
    fed: Federation, undisturbed: Run
) -> None:
    run = fed.run()
    run.wait_for_round(1)
    fed.kill("superlink")
    wait_for(fed.all_online, 120, "SuperLink and nodes are back")
    if run.wait() != "finished:completed":  # else the run has outlived its SuperLink
        run = fed.run(run.folder, resume=True)
        assert run.wait() == "finished:completed", run.log()
    assert run.rounds()["round"].to_list() == [1, 2]
    assert_same_training(run.folder, undisturbed.folder)


def test_a_damaged_checkpoint_takes_server_and_nodes_one_round_back(
    fed: Federation, undisturbed: Run
) -> None:
    before = newest(undisturbed.folder)["table"]
    flip_a_byte(checkpoints(undisturbed.folder)[-1])
    again = fed.run(undisturbed.folder, resume=True)
    assert again.wait() == "finished:completed", again.log()
    log = again.log()
    assert log.count("is damaged") == 1
    assert "going on after round 1" in log
    torch.testing.assert_close(newest(again.folder)["table"], before, atol=1e-5, rtol=0)


def one_more(fed: Federation, run: Run, **settings: object) -> dict[str, Any]:
    """Train a finished training for one round more; that round's row."""
    again = fed.run(run.folder, rounds=len(run.users()) + 1, resume=True, **settings)
    assert again.wait() == "finished:completed", again.log()
    row: dict[str, Any] = again.rounds().row(-1, named=True)
    return row | {"log": again.log()}


def poison(fed: Federation, run: Run, node: str, value: float) -> None:
    """Fill the heads that a node keeps of the newest round with a number."""
    store, state = StateStore(fed.state(node)), newest(run.folder)
    users = NodeInteractions(tuple(fed.users_of(node)), {}, 0, 0)
    heads = {"weight": torch.full((len(users.users), 16), value)}
    heads["bias"] = torch.zeros(len(users.users), 1)
    assert (fed.state(node) / "trainings" / state["id"]).is_dir()
    store.save(state["id"], state["round"], users, heads)


def newest_state(fed: Federation, run: Run, node: str) -> Path:
    state = newest(run.folder)
    return fed.state(node) / "trainings" / state["id"] / f"round-{state['round']:06d}.state"


def test_a_bad_node_is_refused_and_a_damaged_state_replaced(
    fed: Federation, undisturbed: Run
) -> None:
    poison(fed, undisturbed, "node-1", float("nan"))
    flip_a_byte(newest_state(fed, undisturbed, "node-0"))
    before = fed.log("node-0").count("is damaged")
    row = one_more(fed, undisturbed)
    assert (row["users"], row["failed_nodes"]) == (len(fed.users_of("node-0")), 1)
    assert "ended in a refusal" in row["log"]
    assert fed.log("node-0").count("is damaged") == before + 1

    poison(fed, undisturbed, "node-1", 1e7)
    row = one_more(fed, undisturbed, max_update_norm=1000.0)
    assert (row["users"], row["failed_nodes"]) == (len(fed.users_of("node-0")), 1)
    assert "above max_update_norm" in row["log"]
    poison(fed, undisturbed, "node-1", 0.0)  # it is well again


def test_a_node_that_cannot_write_says_so_and_loses_nothing(
    fed: Federation, undisturbed: Run
) -> None:
    state = newest_state(fed, undisturbed, "node-1")
    before = state.read_bytes()
    folder = fed.state("node-1") / "trainings"
    aside = folder.rename(folder.with_name("aside"))
    folder.write_text("a file where a folder should be")
    row = one_more(fed, undisturbed)
    folder.unlink()
    aside.rename(folder)
    assert (row["users"], row["failed_nodes"]) == (len(fed.users_of("node-0")), 1)
    assert f"cannot write {folder}" in fed.log("node-1")
    assert state.read_bytes() == before


def add_items(fed: Federation, count: int) -> list[str]:
    """Put copies of the first items into the catalogue, as new ones."""
    path = fed.folder / "server" / "data" / "items.csv"
    items = pl.read_csv(path)
    new = items.head(count).with_columns(item_id="new-" + pl.col("item_id"), split=pl.lit("test"))
    pl.concat([items, new]).write_csv(path)
    return new["item_id"].to_list()


def agree_to_counts(fed: Federation, node: str) -> None:
    """The node's owner lets it tell how many users each new item has."""
    path = fed.folder / "nodes" / node / "policy.toml"
    told = path.read_text()
    assert "query.count" not in told.partition("answers = [")[2]
    path.write_text(told.replace("answers = [", 'answers = ["query.count", '))


def recommended(fed: Federation, node: str) -> pl.DataFrame:
    return pl.read_parquet(fed.state(node) / "recommendations.parquet")


def test_new_items_reach_every_user_and_become_warm(fed: Federation, undisturbed: Run) -> None:
    run = undisturbed
    new = add_items(fed, 3)
    published = fed.run(run.folder, mode="publish", top=500)
    assert published.wait() == "finished:completed", published.log()
    assert "recommended to 80 users on 2 nodes" in published.log()
    for node in ("node-0", "node-1"):
        lists = recommended(fed, node)
        assert sorted(lists["user_id"].unique()) == fed.users_of(node)
        assert set(new) <= set(lists["item_id"])
        seen = pl.read_csv(fed.folder / "nodes" / node / "data" / "interactions.csv")
        assert lists.join(seen, on=["user_id", "item_id"], how="semi").height == 0

    for node in ("node-0", "node-1"):  # a user of each node finds the first new item
        path = fed.folder / "nodes" / node / "data" / "interactions.csv"
        found = pl.DataFrame({"user_id": [fed.users_of(node)[0]], "item_id": [new[0]]})
        seen = pl.read_csv(path).select("user_id", "item_id")
        pl.concat([seen, found]).write_csv(path)
        agree_to_counts(fed, node)
    before = newest(run.folder)
    one_more(fed, run, warm_after=2)
    after = newest(run.folder)
    was, now = (dict(zip(state["ids"], state["splits"], strict=True)) for state in (before, after))
    assert now[new[0]] == "warm"
    assert now[new[1]] == "test"
    assert {item for item in was if was[item] == "warm"} <= {i for i in now if now[i] == "warm"}
    assert (after["id"], after["round"]) == (before["id"], before["round"] + 1)


def test_a_federation_comes_back_in_an_empty_folder_and_trains_on(
    fed: Federation, undisturbed: Run, tmp_path: Path
) -> None:
    """The last test here: it takes the federation down."""
    archive, place = tmp_path / "backup.tar.gz", tmp_path / "restored"
    snowdrop("deploy", "backup", fed.folder, archive)  # while it runs
    fed.down()
    before = newest(undisturbed.folder)
    snowdrop("deploy", "restore", archive, place)
    again = fed.moved_to(place)
    try:
        snowdrop("deploy", "up", place)
        run = again.run(
            place / undisturbed.folder.relative_to(fed.folder),
            rounds=before["round"] + 1, resume=True,
        )  # fmt: skip
        assert run.wait() == "finished:completed", run.log()
        assert f"going on after round {before['round']}" in run.log()
        after = newest(run.folder)
        assert (after["id"], after["round"]) == (before["id"], before["round"] + 1)
        assert run.rounds()["users"][-1] == 80
        for node in ("node-0", "node-1"):  # heads of the round before were there
            kept = sorted((again.state(node) / "trainings" / after["id"]).glob("round-*.state"))
            assert len(kept) >= 2
    finally:
        again.down()
