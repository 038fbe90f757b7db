"""A node's owner says how it answers; what is started says the same."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from typer.testing import CliRunner

from cli.commands import app
from client_app.synthesis.folder import write_synthetic
from common.errors import SnowdropError
from common.settings import NodeSettings, RunSettings
from deploy import local, supervisor
from deploy.federation import Federation
from deploy.folder import set_answer
from deploy.processes import processes
from deploy.systemd import unit_name

Made = tuple[Path, Federation]


def make_synthetic(folder: Path, name: str) -> Path:
    place = folder / "nodes" / name / "synthetic"
    write_synthetic(place, csr_array(np.eye(3, dtype=bool)), ["a", "b", "c"], {})
    return place


def told(federation: Federation, name: str) -> NodeSettings:
    """What the node's own program makes of its command."""
    (process,) = (p for p in processes(federation) if p.name == name)
    text = process.command[process.command.index("--node-config") + 1]
    config = dict(re.findall(r'([\w-]+)="([^"]*)"', text))
    return NodeSettings.parse(config, RunSettings())


def test_a_new_federation_answers_with_updates(made: Made) -> None:
    _, federation = made
    assert [told(federation, name).answer for name in federation.node_names()] == ["updates"] * 2


def test_the_answer_stands_in_all_that_starts_the_node(made: Made) -> None:
    folder, _ = made
    place = make_synthetic(folder, "node-1")
    done = CliRunner().invoke(app, ["deploy", "answer", str(folder), "node-1", "both"])
    assert done.exit_code == 0
    federation = Federation.load(folder)
    assert [node.answer for node in federation.nodes] == ["updates", "both"]
    assert (told(federation, "node-1").answer, told(federation, "node-1").synthetic) == (
        "both", place,
    )  # fmt: skip
    (process,) = (p for p in processes(federation) if p.name == "node-1")
    for name in ("node-1.sh", unit_name(federation, process)):
        assert "answer=" in (folder / "nodes" / "node-1" / name).read_text()
        assert "answer=" not in (folder / "nodes" / "node-0" / name.replace("-1", "-0")).read_text()
    set_answer(folder, "node-1", "updates")
    assert told(Federation.load(folder), "node-1").answer == "updates"


def test_a_node_without_synthetic_users_cannot_send_any(made: Made) -> None:
    folder, federation = made
    for answer in ("synthetic", "both"):
        with pytest.raises(SnowdropError, match="node-0/synthetic is no folder of synthetic users"):
            set_answer(folder, "node-0", answer)  # type: ignore[arg-type]
    assert Federation.load(folder) == federation
    with pytest.raises(SnowdropError, match="there is no node 'x'; there are node-0, node-1"):
        set_answer(folder, "x", "updates")


def test_up_looks_for_synthetic_users_before_it_starts_anything(made: Made) -> None:
    folder, _ = made
    place = make_synthetic(folder, "node-0")
    set_answer(folder, "node-0", "synthetic")
    (place / "summary.json").unlink()
    with pytest.raises(SnowdropError, match="node-0/synthetic is no folder of synthetic users"):
        local.up(folder, print)
    assert not supervisor.family(folder)


def test_an_answer_that_is_none_is_refused(made: Made) -> None:
    folder, _ = made
    done = CliRunner().invoke(app, ["deploy", "answer", str(folder), "node-1", "perhaps"])
    assert done.exit_code == 2
    assert "perhaps" in done.output
