"""The folder of a federation: making it, and adding nodes to it."""

import shutil
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import typer

from common.durable import make_folder, write_atomic
from common.errors import SnowdropError
from common.settings import LEAST, Answer
from common.toml import toml_lines
from deploy import certificate, credentials
from deploy.federation import Federation
from deploy.processes import POLICY, SECRET, SETTINGS, SYNTHETIC, processes
from deploy.systemd import write_start_files


def make(folder: Path, federation: Federation, force: bool, keep: bool) -> Federation:
    """Write credentials, settings and start files of a federation into ``folder``.

    Parameters
    ----------
    folder : Path
    federation : Federation
    force : bool
        Make everything anew; keys that were registered before are refused from then on.
    keep : bool
        Leave a federation that is there already as it is.

    Raises
    ------
    SnowdropError
        If a federation is there already and neither ``force`` nor ``keep`` is given, or the folder
        cannot be made.
    """
    if (folder / "federation.json").exists() and not force:
        if keep:
            return Federation.load(folder)
        raise SnowdropError(f"{folder} holds a federation; --force replaces all its keys")
    make_folder(folder)
    folder.chmod(0o700)
    _keep_out_of_git(folder)
    credentials.make_authority(folder / "ca", federation.name)
    shutil.rmtree(folder / "server" / "node-keys", ignore_errors=True)
    for stale in ("superlink.db", "registered.json"):
        (folder / "server" / stale).unlink(missing_ok=True)
    certificate.renew(folder, federation)
    credentials.make_secret(folder / SECRET)
    for name in federation.node_names():
        give_key(folder, name)
    _write_settings(folder, federation)
    _write_connection(folder, federation)
    federation.save(folder)
    give_partners(folder, federation)
    give_policies(folder, federation)
    write_start_files(federation, folder)
    return federation


def give_key(folder: Path, name: str) -> None:
    """Make a new key for a node; the server gets a copy of its public half, to register it."""
    place = folder / "nodes" / name
    credentials.make_node_key(place)
    _copy(folder / "ca" / "ca.crt", place / "ca.crt")
    _copy(place / "key.pub", folder / "server" / "node-keys" / f"{name}.pub")
    for process in ("data", "state"):
        (place / process).mkdir(exist_ok=True)


def add_node(folder: Path, name: str, free_port: bool) -> Federation:
    """Add a node with its key and its start files; the federation with that node."""
    federation = Federation.load(folder).with_node(name, free=free_port)
    give_key(folder, name)
    federation.save(folder)
    give_policies(folder, federation)
    give_partners(folder, federation)
    write_start_files(federation, folder)
    return federation


def move(folder: Path, federation: Federation, root: PurePosixPath) -> Federation:
    """Say in all files of a federation's folder that it will stand in ``root``."""
    moved = federation.model_copy(update={"root": root})
    _keep_out_of_git(folder)
    settings = folder / "server" / SETTINGS
    if settings.exists():
        told = settings.read_text().replace(str(federation.root), str(root))
        write_atomic(settings, told.encode())
    _write_connection(folder, moved)
    moved.save(folder)
    write_start_files(moved, folder)
    return moved


def set_answer(folder: Path, name: str, answer: Answer) -> Federation:
    """The federation in which a node answers otherwise, with its start files.

    Raises
    ------
    SnowdropError
        If there is no such node, or its folder of synthetic users is missing or not marked as such
        and it shall send some.
    """
    federation = Federation.load(folder).with_answer(name, answer)
    check_synthetic(folder, federation)
    federation.save(folder)
    give_policies(folder, federation)
    write_start_files(federation, folder)
    return federation


def give_policies(folder: Path, federation: Federation) -> None:
    """Write the policy of each node that has none, and its partners; what is there is its owner's.

    Raises
    ------
    SnowdropError
        If one that is there cannot be read.
    """
    from client_app.policy import PARTNERS, Policy, template

    for name in federation.node_names():
        path = folder / "nodes" / name / POLICY
        if not path.exists():
            credentials.write_public(path, template(len(federation.nodes)).encode())
        if not path.with_name(PARTNERS).exists():
            credentials.write_public(path.with_name(PARTNERS), _public_keys(folder, federation))
        Policy.read(path)


def refused_runs(folder: Path, federation: Federation) -> list[str]:
    """A sentence on the server's settings, where some nodes refuse what these ask for."""
    return _refused(folder, federation, _by_policy(folder, federation)[1])


def where_sums_are_plain(folder: Path, federation: Federation) -> list[str]:
    """Sentences on nodes, and settings, that do without secure sums though enough nodes are there.

    Returns
    -------
    list[str]
        One on the nodes whose policies allow plain sums, and one on the server's settings where
        some nodes refuse what these ask for; each with what to do.
    """
    if len(federation.nodes) < LEAST:
        return []
    plain, strict = _by_policy(folder, federation)
    told = []
    if plain:
        told.append(
            f"{_listed(plain)} would also answer without secure sums, by the {POLICY} that is "
            "here: the owners can write secure_sums = true and fewest_participants = "
            f"{LEAST} into it."
        )
    return told + _refused(folder, federation, strict)


def _refused(folder: Path, federation: Federation, strict: list[str]) -> list[str]:
    nodes, settings = len(federation.nodes), folder / "server" / SETTINGS
    if nodes < LEAST or not strict or not settings.exists():
        return []
    if _given(settings).get("secure_sums"):
        return []
    return [
        f"{_listed(strict)} will refuse every run without secure sums, and {settings} does not "
        f"ask for them: write secure_sums = true and nodes = {nodes} into it."
    ]


def _by_policy(folder: Path, federation: Federation) -> tuple[list[str], list[str]]:
    """Nodes whose policies allow plain sums, and those whose policies do not."""
    from client_app.policy import Policy

    paths = {name: folder / "nodes" / name / POLICY for name in federation.node_names()}
    policies = {name: Policy.read(path) for name, path in paths.items() if path.exists()}
    plain = [name for name, policy in policies.items() if policy.allows_plain_sums]
    return plain, [name for name in policies if name not in plain]


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _given(settings: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(settings.read_text(encoding="utf-8"))
    except ValueError:  # each run says what is wrong with it
        return {}


def give_partners(folder: Path, federation: Federation) -> None:
    """Tell each node anew which nodes may be in secure sums with it: all of the federation."""
    from client_app.policy import PARTNERS

    for name in federation.node_names():
        path = folder / "nodes" / name / PARTNERS
        credentials.write_public(path, _public_keys(folder, federation))


def _public_keys(folder: Path, federation: Federation) -> bytes:
    """The nodes' public keys, one a line, with their names."""
    keys = folder / "server" / "node-keys"
    return b"".join(
        (keys / f"{name}.pub").read_bytes().rstrip() + f" {name}\n".encode()
        for name in federation.node_names()
        if (keys / f"{name}.pub").exists()
    )


def check_synthetic(folder: Path, federation: Federation) -> None:
    """Raise a SnowdropError where a node shall send synthetic users, and has none."""
    from client_app.synthesis.folder import read_mark

    for node in federation.nodes:
        if node.answer != "updates":
            read_mark(folder / "nodes" / node.name / SYNTHETIC)


def _keep_out_of_git(folder: Path) -> None:
    """Private keys and interactions are in it, whatever its name is."""
    write_atomic(folder / ".gitignore", b"*\n")


def _copy(source: Path, target: Path) -> None:
    credentials.write_public(target, source.read_bytes())


def _write_settings(folder: Path, federation: Federation) -> None:
    server = federation.server
    values = {
        "data": str(server / "data"),
        "run_dir": str(server / "run"),
        "encode_cache": str(server / "cache"),
        "nodes": len(federation.nodes),
        "resume": True,
    }
    text = "# Settings of every run on this federation; --run-config changes them for one run.\n"
    text += toml_lines(values)
    if len(federation.nodes) >= LEAST:
        text += (
            "\n# The server learns sums over the nodes alone. More than two thirds of the nodes,\n"
            f"# and at least {LEAST}, must answer a round; else it is repeated (round_retries).\n"
        )
        text += toml_lines({"secure_sums": True})
    text += (
        "\n# The frozen twin, the same method with the federation switched off, takes as many\n"
        "# rounds again. For a comparison: --run-config 'twin=true'.\n"
    )
    path = folder / "server" / SETTINGS
    write_atomic(path, (text + toml_lines({"twin": False})).encode())


def _write_connection(folder: Path, federation: Federation) -> None:
    connection = {
        "address": federation.control_address,
        "root-certificates": str(federation.server / "ca.crt"),
    }
    text = (
        f'[superlink]\ndefault = "{federation.name}"\n\n[superlink.{federation.name}]\n'
        + toml_lines(connection)
    )
    write_atomic(folder / "server" / "flower-home" / "config.toml", text.encode())


def describe(folder: Path, federation: Federation) -> None:
    """Print what was made and what to do with it."""
    typer.echo(f"{folder} holds the federation '{federation.name}':")
    typer.echo("  ca/      the certificate authority; keep ca.key away from every machine")
    typer.echo("  server/  for the server's machine, with systemd units and start scripts")
    for process in processes(federation)[2:]:
        typer.echo(f"  nodes/{process.name}/  for that node's machine, with the same")
    for sentence in where_sums_are_plain(folder, federation):
        typer.echo(sentence)
