"""A federation of separate processes, with TLS and node keys, through good and bad days."""

import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from cli.recommend import find_recommendations
from client_app.synthesis.folder import write_synthetic
from common.errors import SnowdropError
from deploy import supervisor
from deploy.credentials import make_node_key
from tests.e2e.checkpoints import checkpoints, newest
from tests.e2e.federation import Federation, federation, snowdrop, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(560)]


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with federation(tmp_path_factory.mktemp("deployment") / "fed") as made:
        yield made


def test_a_run_over_tls_ends_in_recommendations_on_the_nodes(fed: Federation) -> None:
    run = fed.run()
    assert run.wait() == "finished:completed", run.log()
    assert run.rounds()["users"].to_list() == [80, 80]
    assert run.summary()["failed_answers"] == 0
    for node in ("node-0", "node-1"):
        log = fed.log(node)
        forks = log.count("a fork of the warm process takes this message")
        assert forks == log.count("Start `flwr-clientapp` process") > 2
        user = fed.users_of(node)[0]
        shown = snowdrop("recommend", fed.state(node), "--user", user, "--items", fed.data)
        assert shown.count("item-") == 5
    with pytest.raises(SnowdropError, match="keeps no recommendations"):
        find_recommendations(fed.state("node-0"), fed.users_of("node-1")[0])
    shown = snowdrop("deploy", "status", fed.folder, "--run-dir", run.folder)
    assert shown.count(" yes ") == 4
    assert shown.count(" ago") == 2
    assert "run: round 2 of 2 ·" in shown
    said = json.loads(snowdrop("deploy", "logs", fed.folder, "node-0", "--json").splitlines()[0])
    assert said["process"] == "node-0"
    assert "Created node_id" in snowdrop("deploy", "logs", fed.folder, "superlink")
    interactions = (fed.data / "interactions.csv").read_text().splitlines()[1]
    for path in (fed.folder / "server").rglob("*.csv"):
        assert interactions not in path.read_text()


def test_who_has_no_valid_key_or_speaks_plain_text_gets_nothing(
    fed: Federation, tmp_path: Path
) -> None:
    make_node_key(tmp_path)
    before = fed.log("superlink")
    status, said = fed.node_with(tmp_path / "key")
    assert status != 0
    assert "Failed to activate SuperNode" in said
    refused = fed.log("superlink")[len(before) :]
    assert "No SuperNode found with the given public key" in refused
    assert "Activated" not in refused

    before = fed.log("superlink")
    with socket.create_connection(("127.0.0.1", fed.description.fleet_port), 5) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        plain.settimeout(10)
        assert plain.recv(1024) == b""
    wait_for(
        lambda: "Handshake failed" in fed.log("superlink")[len(before) :], 10, "a line in the log"
    )


def test_nodes_that_come_and_go_do_not_stop_the_training(fed: Federation) -> None:
    chance, last = random.Random(0), 14
    run = fed.run(rounds=last, round_timeout=30, round_retries=10)
    run.wait_for_round(1)
    while len(run.users()) < last - 6:
        node = chance.choice(["node-0", "node-1"])
        fed.stop(node)
        time.sleep(1)
        fed.start(node)
        wait_for(fed.all_online, 120, f"{node} is back")
    assert run.wait() == "finished:completed", run.log()
    rounds = run.rounds()
    assert rounds["round"].to_list() == list(range(1, last + 1))
    assert rounds["loss"][-1] < rounds["loss"][0]
    ended = {path.stem: path.stat().st_mtime for path in checkpoints(run.folder)}
    for node in ("node-0", "node-1"):  # a stale round would be written after the round had ended
        kept = (fed.state(node) / "trainings" / newest(run.folder)["id"]).glob("round-*.state")
        written = {path.stem: path.stat().st_mtime for path in kept}
        assert max(written) >= f"round-{last - 3:06d}"
        assert all(written[name] < ended[name] for name in written.keys() & ended.keys())


def test_a_node_says_no_when_its_epsilon_is_spent(fed: Federation) -> None:
    """Its owner's limit and its ledger hold over messages, each a process of its own."""
    path = fed.folder / "nodes" / "node-0" / "policy.toml"
    open_to_all = path.read_text()
    path.write_text('epsilon_total = 0.6\nwithout_noise = ["evaluate"]\n')
    run = fed.run(rounds=2, average="users", clip_norm=1.0, laplace_scale=4.0)
    assert run.wait() == "finished:completed", run.log()
    path.write_text(open_to_all)
    assert run.rounds()["users"].to_list() == [80, len(fed.users_of("node-1"))]
    assert "is left out of this train: its owner has not agreed to this train" in run.log()
    assert "its ε is spent" in run.log()
    assert "in 1 rounds" in snowdrop("deploy", "policy", fed.folder / "nodes" / "node-0")


def test_killed_and_late_nodes_take_part_while_rounds_go_on(fed: Federation) -> None:
    run = fed.run(rounds=1000, round_timeout=20)
    wait_for(lambda: 80 in run.users(), 120, "a round with both nodes")
    fed.kill("node-0")
    alone = len(fed.users_of("node-1"))
    wait_for(lambda: alone in run.users(), 90, "a round without the killed node")

    late = pl.read_csv(fed.data / "interactions.csv").with_columns(
        user_id="late-" + pl.col("user_id")
    )
    snowdrop("deploy", "add", fed.folder, "node-2")
    (fed.folder / "nodes" / "node-2" / "policy.toml").write_text("")  # it answers plain sums too
    late.write_csv(fed.folder / "nodes" / "node-2" / "data" / "interactions.csv")
    snowdrop("deploy", "register", fed.folder)

    wait_for(lambda: 160 in run.users(), 200, "all three nodes in one round")
    run.stop()
    rounds = run.rounds()
    assert rounds["round"].to_list() == list(range(1, rounds.height + 1))
    once = rounds.filter(pl.col("failed_nodes") < 2)["train_seconds"]  # else it was repeated
    assert once.max() < 20 + 5
    report = supervisor.report(fed.folder, "node-0")
    assert report is not None
    assert report.restarts >= 1


def test_a_silo_sends_synthetic_users_once_and_takes_part_in_no_round(fed: Federation) -> None:
    """Its owner has looked at synthetic users, and chosen to send them."""
    silo, *others = fed.description.node_names()
    made, items = 25, pl.read_csv(fed.data / "items.csv")["item_id"].to_list()
    likes = np.random.default_rng(0).random((made, len(items))) < 0.1
    likes[:, 0] = True  # everybody has a warm item
    folder = fed.folder / "nodes" / silo / "synthetic"
    write_synthetic(folder, csr_array(likes), items, {"epsilon": 3.0})
    snowdrop("deploy", "answer", fed.folder, silo, "synthetic")
    snowdrop("deploy", "restart", fed.folder, silo)
    wait_for(fed.all_online, 120, "the silo is back")

    run = fed.run(round_timeout=200)
    assert run.wait() == "finished:completed", run.log()
    trained = sum(len(fed.users_of(name)) for name in others)
    everybody = trained + len(fed.users_of(silo))
    assert run.users() == [trained, trained]
    assert run.rounds()["synthetic_users"].to_list() == [made, made]
    summary, log = run.summary(), run.log()
    assert summary["synthetic"]["users"] == made
    assert summary["synthetic"]["silos"] == 1
    assert summary["synthetic"]["epsilon"] == 3.0
    assert summary["failed_answers"] == 0, log
    assert summary["dataset"]["users"] == everybody  # all are tested and served
    assert summary["recommended_users"] == everybody
    shown = snowdrop("recommend", fed.state(silo), "--user", fed.users_of(silo)[0])
    assert shown.count("item-") == 5
    state = newest(run.folder)
    heads = sorted((fed.state(silo) / "trainings" / state["id"]).glob("round-*.state"))
    assert [path.name for path in heads] == ["round-000002.state"]
    (part,) = state["crowd"]["parts"].values()
    assert len(part["offsets"]) == made + 1
    assert "synthetic" in log
