"""A federation of separate processes, with TLS and node keys, through good and bad days."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from deploy.credentials import make_node_key
from tests.e2e.federation import Federation, federation, snowdrop, wait_for

pytestmark = pytest.mark.slow


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
        user = fed.users_of(node)[0]
        shown = snowdrop("recommend", fed.state(node), "--user", user, "--items", fed.data)
        assert shown.count("item-") == 5
    assert "keeps no recommendations" in str(
        snowdrop_error("recommend", fed.state("node-0"), "--user", fed.users_of("node-1")[0])
    )
    assert "yes" in snowdrop("deploy", "status", fed.folder)
    assert "Created node_id" in snowdrop("deploy", "logs", fed.folder, "superlink")
    interactions = (fed.data / "interactions.csv").read_text().splitlines()[1]
    for path in (fed.folder / "server").rglob("*.csv"):
        assert interactions not in path.read_text()


def snowdrop_error(*arguments: object) -> BaseException:
    """The error that a `snowdrop` command ends in."""
    from typer.testing import CliRunner

    from cli.main import app

    error = CliRunner().invoke(app, [str(a) for a in arguments]).exception
    assert error is not None
    return error


def test_who_has_no_valid_key_or_speaks_plain_text_gets_nothing(
    fed: Federation, tmp_path: Path
) -> None:
    make_node_key(tmp_path)
    before = fed.log("superlink")
    done = fed.refused_node(tmp_path / "key")
    assert done.returncode != 0
    assert "SuperNode ID" not in done.stdout + done.stderr
    said = fed.log("superlink")[len(before) :]
    assert "Activated" not in said
    print(said, done.stdout, done.stderr)

    before = fed.log("superlink")
    with socket.create_connection(("127.0.0.1", fed.description.fleet_port), 5) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        plain.settimeout(10)
        answer = plain.recv(1024)
    assert b"\x00\x00\x00\x04" not in answer  # no settings frame: no HTTP/2 was spoken
    print(answer, fed.log("superlink")[len(before) :])
    raise AssertionError


def test_killed_and_late_nodes_take_part_while_rounds_go_on(fed: Federation) -> None:
    run = fed.run(rounds=1000, round_timeout=15)
    run.wait_for_round(1)
    fed.kill("node-0")
    alone = len(fed.users_of("node-1"))
    wait_for(lambda: alone in run.rounds()["users"], 60, "a round without the killed node")

    last = run.rounds()["round"][-1]
    late = pl.read_csv(fed.data / "interactions.csv").with_columns("late-" + pl.col("user_id"))
    snowdrop("deploy", "add", fed.folder, "node-2")
    late.write_csv(fed.folder / "nodes" / "node-2" / "data" / "interactions.csv")
    snowdrop("deploy", "register", fed.folder)

    wait_for(lambda: 160 in run.rounds()["users"], 200, "all three nodes in one round")
    rounds = run.rounds()
    run.stop()
    assert alone + 80 in rounds["users"] or rounds["users"][-1] == 160
    assert rounds["round"].to_list() == list(range(1, rounds.height + 1))
    assert rounds["round"][-1] > last
    assert rounds["seconds"].max() < 15 + 10
    shutil.rmtree(fed.state("node-2"), ignore_errors=True)
