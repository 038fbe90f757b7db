"""The policies that new nodes get: strict where there are enough nodes for secure sums."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from client_app.policy import FILE, PARTNERS, Policy
from deploy.federation import Federation

STRICT, PLAIN = (True, 3), (False, 1)


def deploy(*arguments: object) -> str:
    """What a command prints, without the breaks of its lines."""
    done = CliRunner().invoke(app, ["deploy", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def init(folder: Path, nodes: int, *more: str) -> str:
    return deploy("init", folder, "--nodes", nodes, "--port", 0, *more)


def asked_of_sums(folder: Path) -> dict[str, tuple[bool, int]]:
    """By each node's policy: whether sums must be secure, and over how many nodes."""
    policies = {
        name: Policy.read(folder / "nodes" / name / FILE)
        for name in Federation.load(folder).node_names()
    }
    return {name: (one.secure_sums, one.fewest_participants) for name, one in policies.items()}


@pytest.mark.parametrize(("nodes", "agreed"), [(1, PLAIN), (2, PLAIN), (3, STRICT), (4, STRICT)])
def test_new_nodes_are_strict_where_there_are_enough(
    tmp_path: Path, nodes: int, agreed: tuple[bool, int]
) -> None:
    assert "secure" not in init(tmp_path / "fed", nodes)
    assert set(asked_of_sums(tmp_path / "fed").values()) == {agreed}


def test_the_third_node_is_strict_and_the_older_ones_are_their_owners(tmp_path: Path) -> None:
    folder = tmp_path / "fed"
    init(folder, 1)
    assert "secure" not in deploy("add", folder, "second")
    files = [folder / "nodes" / name / FILE for name in ("node-0", "second")]
    before = [path.read_bytes() for path in files]
    said = deploy("add", folder, "third")
    assert asked_of_sums(folder) == {"node-0": PLAIN, "second": PLAIN, "third": STRICT}
    assert [path.read_bytes() for path in files] == before
    assert (
        "node-0 and second would also answer without secure sums, by the policy.toml that is "
        "here: the owners can write secure_sums = true and fewest_participants = 3 into it." in said
    )
    settings = folder / "server" / "settings.toml"
    assert (
        f"third will refuse every run without secure sums, and {settings} does not ask for them: "
        "write secure_sums = true and nodes = 3 into it." in said
    )

    asked = settings.read_text().replace("nodes = 1", "nodes = 3") + "secure_sums = true\n"
    settings.write_text(asked)
    files[0].write_text("secure_sums = true\n")
    said = deploy("add", folder, "fourth")
    assert "second would also answer without secure sums" in said
    assert "node-0" not in said
    assert "settings.toml" not in said
    assert settings.read_text() == asked

    settings.write_text("no TOML")
    files[1].write_text("fewest_participants = 3\n")
    said = deploy("add", folder, "fifth")
    assert "would also answer" not in said
    assert "node-0, second, third, fourth and fifth will refuse every run without" in said


def test_a_start_tells_of_settings_that_all_nodes_will_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fed"
    init(folder, 3)
    monkeypatch.setattr("deploy.local.up", lambda *_: None)
    monkeypatch.setattr("cli.deploy._some_user", lambda *_: ("node-0", "somebody"))
    assert "will refuse" not in deploy("up", folder)
    settings = folder / "server" / "settings.toml"
    settings.write_text(settings.read_text().replace("secure_sums = true", ""))
    said = deploy("up", folder)
    assert f"will refuse every run without secure sums, and {settings} does not ask" in said


def test_a_federation_that_is_made_anew_tells_which_policies_are_older(tmp_path: Path) -> None:
    folder = tmp_path / "fed"
    init(folder, 2)
    said = init(folder, 3, "--force")
    assert asked_of_sums(folder) == {"node-0": PLAIN, "node-1": PLAIN, "node-2": STRICT}
    assert "node-0 and node-1 would also answer without secure sums" in said
    assert "settings.toml" not in said
    (folder / "nodes" / "node-0" / FILE).unlink()  # on another machine, or of an older release
    said = init(folder, 3, "--keep")
    assert "node-1 would also answer without secure sums" in said
    assert "node-0 and" not in said


@pytest.mark.parametrize(
    ("partners", "agreed"), [(None, PLAIN), (0, PLAIN), (2, PLAIN), (3, STRICT)]
)
def test_a_policy_that_an_owner_has_written_follows_the_partners(
    tmp_path: Path, partners: int | None, agreed: tuple[bool, int]
) -> None:
    folder = tmp_path / "fed"
    init(folder, 1)
    place = folder / "nodes" / "node-0"
    (place / FILE).unlink()
    (place / PARTNERS).unlink()
    if partners is not None:
        (place / PARTNERS).write_text("".join(f"ssh key-{k} node-{k}\n" for k in range(partners)))
    deploy("policy", place, "--write")
    assert asked_of_sums(folder) == {"node-0": agreed}
