"""Three nodes over TLS, whose sums are secure without anybody asking for it."""

from pathlib import Path

import pytest

from server_app.run import SEEN
from tests.e2e.federation import federation, snowdrop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(560)]


def test_three_nodes_have_secure_sums_and_may_insist_on_them(tmp_path: Path) -> None:
    with federation(tmp_path / "fed", nodes=3) as fed:
        for node in fed.description.node_names():
            path = fed.folder / "nodes" / node / "policy.toml"
            agreed = path.read_text().replace("secure_sums = false", "secure_sums = true")
            path.write_text(agreed)
        run = fed.run(rounds=1)
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
