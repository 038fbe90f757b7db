"""Three nodes over TLS, whose sums are secure without anybody asking for it."""

import shutil
from pathlib import Path

import pytest

from client_app.policy import refusal
from common.secure.signatures import name_of, read_key
from server_app.run import SEEN
from tests.e2e import left_node, recorded_app
from tests.e2e.federation import ROOT, SMALL, federation, snowdrop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(560)]


WARM = 96
"""Warm items of the federation's 120."""


def recording_app(folder: Path) -> Path:
    """A copy of the app whose nodes keep what leaves them."""
    for package in ("client_app", "common", "server_app"):
        shutil.copytree(ROOT / package, folder / package)
    shutil.copy(recorded_app.__file__, folder / "client_app" / "recorded.py")
    own, other = "client_app.app:app", "client_app.recorded:app"
    described = (ROOT / "pyproject.toml").read_text()
    assert own in described
    (folder / "pyproject.toml").write_text(described.replace(own, other))
    return folder


def test_three_nodes_have_secure_sums_and_insist_on_them(tmp_path: Path) -> None:
    with federation(tmp_path / "fed", nodes=3) as fed:
        run = fed.run(app=recording_app(tmp_path / "app"), rounds=1)
        assert run.wait() == "finished:completed", run.log()
        log, summary = run.log(), run.summary()
        assert SEEN[True] in log
        assert summary["secure_sums"] and summary["failed_answers"] == 0, log
        assert run.users() == [80]
        assert summary["tested_users"] > 0
        user = fed.users_of("node-2")[0]
        assert snowdrop("recommend", fed.state("node-2"), "--user", user).count("item-") == 5
        for node in fed.description.node_names():
            assert not list((fed.state(node) / "sums").glob("*.json"))  # no secret is left
        sent = {
            name_of(read_key(folder / "key")): [
                path.read_bytes() for path in (folder / recorded_app.FOLDER).iterdir()
            ]
            for folder in (fed.folder / "nodes").iterdir()
        }
        # The change of the item table, the users, the loss, and how many numbers were clipped.
        long = WARM * SMALL["dim"] + 3
        left_node.check(sent, left_node.Run(nodes=3, long=long, short=WARM))

        terms = {
            "node-0": {},
            "node-1": {"secure_sums = true": "secure_sums = false"},
            "node-2": {
                "secure_sums = true": "secure_sums = false",
                "fewest_participants = 3": "fewest_participants = 1",
                "methods = []": 'methods = ["one-round"]',
            },
        }
        for node, changes in terms.items():
            path = fed.folder / "nodes" / node / "policy.toml"
            policy = path.read_text()
            for entry, other in changes.items():
                assert policy.count(f"\n{entry}\n") == 1
                policy = policy.replace(f"\n{entry}\n", f"\n{other}\n")
            path.write_text(policy)
        plain = fed.run(rounds=1, secure_sums=False)
        assert plain.wait() == "finished:failed"
        refused = plain.log()
        for entry in ("secure_sums", "fewest_participants", "methods"):
            assert f"has not agreed to this train: {refusal(entry)}" in refused, entry
        assert "no node has agreed to round 1" in refused
