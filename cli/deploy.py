"""`snowdrop deploy`: from a folder of keys to a running federation."""

import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from cli import deploy_node, deploy_status
from cli.prepare.folder import carry_features, read
from cli.prepare.generated import generated
from client_app.interactions import first_user
from common.errors import SnowdropError
from common.settings import Answer
from deploy import certificate, local, supervisor
from deploy import folder as federation_folder
from deploy.backup import back_up
from deploy.backup import restore as bring_back
from deploy.data import share
from deploy.federation import FIRST_PORT, Federation
from deploy.log_lines import json_lines
from deploy.processes import SYNTHETIC, processes

app = typer.Typer(no_args_is_help=True, help="Set up and run a federation of separate processes.")

app.command()(deploy_status.status)
app.command()(deploy_node.policy)
app.command()(deploy_node.withdraw)

Dir = Annotated[Path, typer.Argument(metavar="DIR", help="the federation's folder")]
ProcessName = Annotated[str, typer.Argument(help="superlink, executor, or a node's name")]


@app.command()
def init(
    folder: Dir,
    nodes: Annotated[int, typer.Option(min=1, help="number of nodes")] = 2,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="name or address of the server, for its certificate; nodes use the first "
            "(default: this machine's loopback only)"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="name for `flwr run . NAME` (default: DIR's name)")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=60000, help="first port, for nodes; 0: free ones")
    ] = FIRST_PORT,
    control_host: Annotated[
        str, typer.Option(help="address of the Control API: whoever reaches it may run code")
    ] = "127.0.0.1",
    at: Annotated[
        Path | None, typer.Option(help="where DIR will stand on the machines (default: as here)")
    ] = None,
    programs: Annotated[
        str | None,
        typer.Option(help="folder of Flower's programs on the machines (default: as here)"),
    ] = None,
    force: Annotated[bool, typer.Option(help="replace all keys that are there")] = False,
    keep: Annotated[bool, typer.Option(help="leave a federation that is there alone")] = False,
) -> None:
    """Make certificates, node keys, settings, start scripts and systemd units."""
    folder = folder.absolute()
    if supervisor.supervisor_pid(folder):
        raise SnowdropError(f"{folder} is up; `snowdrop deploy down {folder}` ends it")
    federation = Federation.new(
        at.absolute() if at else folder,
        name or folder.name,
        nodes,
        tuple(host or ()),
        port,
        str(Path(sys.executable).parent) if programs is None else programs,
        control_host,
    )
    federation = federation_folder.make(folder, federation, force, keep)
    federation_folder.describe(folder, federation)


@app.command("share")
def share_data(
    folder: Dir, data: Annotated[Path, typer.Option(help="the data folder to share out")]
) -> None:
    """Give the server the items, and each node its users' interactions."""
    federation = Federation.load(folder)
    users = share(*read(data.absolute()), folder.absolute(), federation.node_names())
    carry_features(data.absolute(), folder.absolute() / "server" / "data")
    told = ", ".join(f"{name} {count}" for name, count in users.items())
    typer.echo(f"shared {data}: users of {told}")


@app.command()
def up(
    folder: Dir,
    data: Annotated[
        Path | None, typer.Option(help="data folder to share out first (default: as it is)")
    ] = None,
    demo: Annotated[bool, typer.Option(help="share out generated demo data first")] = False,
) -> None:
    """Start the whole federation on this machine, and wait until it is ready."""
    folder = folder.absolute()
    federation = Federation.load(folder)
    if demo and data is not None:
        raise SnowdropError("--demo and --data are two sources of data; give one of them")
    if supervisor.supervisor_pid(folder):
        raise SnowdropError(f"{folder} is up; `snowdrop deploy status {folder}` shows its state")
    if demo:
        data = folder / "demo-data"
        if not (data / "items.csv").exists():
            generated(data)
    if data is not None:
        share_data(folder, data)
    local.up(folder, typer.echo)
    for sentence in federation_folder.refused_runs(folder, federation):
        typer.echo(sentence)
    home = folder / "server" / "flower-home"
    node, user = _some_user(folder, federation)
    typer.echo(
        f"the federation is up. Start a run, in the folder of Snowdrop's source:\n"
        f"  FLWR_HOME={home} flwr run . {federation.name} --stream\n"
        f"its results go to {folder / 'server' / 'run'}; then, on a node:\n"
        f"  snowdrop recommend {folder / 'nodes' / node / 'state'} --user {user}\n"
        f"`snowdrop deploy status {folder}` shows the state of each process, `down` ends them."
    )


@app.command()
def down(folder: Dir) -> None:
    """End the federation and all its processes."""
    folder = folder.absolute()
    under_way = bool(supervisor.serverapps(folder))
    ran = local.down(folder)
    if not ran:
        Federation.load(folder)  # is it a federation's folder at all?
    everything = "all ended, the run that was under way too" if under_way else "all ended"
    typer.echo(everything if ran else "nothing was running")


@app.command()
def logs(
    folder: Dir,
    name: Annotated[str, typer.Argument(help="superlink, executor, supervisor, or a node's name")],
    follow: Annotated[bool, typer.Option(help="go on as the log grows")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object for each line")] = False,
) -> None:
    """Print the log of a process."""
    folder = folder.absolute()
    if name != "supervisor":
        _known(folder, name)
    path = supervisor.log_path(folder, name)
    if not path.exists():
        raise SnowdropError(f"{name} has no log yet: {path} is missing")
    if not follow:
        text = path.read_text(errors="replace")
        typer.echo(json_lines(text.splitlines(), name) if as_json else text, nl=False)
        return
    command = ["tail", "-n", "+1", "-F", str(path)]
    if not as_json:
        raise typer.Exit(subprocess.run(command).returncode)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as tail:
        assert tail.stdout is not None
        for line in tail.stdout:
            typer.echo(json_lines([line], name), nl=False)


@app.command()
def stop(folder: Dir, name: ProcessName) -> None:
    """End one process; it stays down until `start`."""
    folder = _supervised(folder.absolute(), name)
    supervisor.held_path(folder, name).touch()
    _until(folder, name, "held")


@app.command()
def start(folder: Dir, name: ProcessName) -> None:
    """Start a process that was stopped."""
    folder = _supervised(folder.absolute(), name)
    supervisor.held_path(folder, name).unlink(missing_ok=True)
    _until(folder, name, "running")


@app.command()
def restart(folder: Dir, name: ProcessName) -> None:
    """Stop and start a process."""
    stop(folder, name)
    start(folder, name)


@app.command()
def add(folder: Dir, name: Annotated[str, typer.Argument(help="the new node's name")]) -> None:
    """Make the folder and key of one more node; `register` lets it in."""
    folder = folder.absolute()
    used = Federation.load(folder)
    # Ports that were picked free do not follow the first one.
    picked = used.control_port != used.fleet_port + 1
    larger = federation_folder.add_node(folder, name, free_port=picked)
    typer.echo(
        f"{folder / 'nodes' / name} is made; put its interactions.csv into data/ there, then "
        f"`snowdrop deploy register {folder}`"
    )
    for sentence in federation_folder.where_sums_are_plain(folder, larger):
        typer.echo(sentence)


@app.command()
def remove(folder: Dir, name: ProcessName) -> None:
    """Shut a node out; its folder stays."""
    folder = folder.absolute()
    federation = Federation.load(folder)
    smaller = federation.without_node(name)
    local.unregister(folder, federation, name)
    (folder / "server" / "node-keys" / f"{name}.pub").unlink(missing_ok=True)
    smaller.save(folder)
    federation_folder.give_partners(folder, smaller)
    typer.echo(f"{name} is shut out; its folder stays: {folder / 'nodes' / name}")


@app.command()
def answer(
    folder: Dir,
    name: Annotated[str, typer.Argument(help="the node's name")],
    how: Annotated[
        Answer,
        typer.Argument(
            metavar="ANSWER",
            help="updates: in every round; synthetic: synthetic users once, and no updates; both",
        ),
    ],
) -> None:
    """Say how a node answers a training; its owner decides."""
    folder = folder.absolute()
    federation_folder.set_answer(folder, name, how)
    place = folder / "nodes" / name
    sent = "" if how == "updates" else f"; the synthetic users in {place / SYNTHETIC} are sent once"
    typer.echo(f"{name} answers with {how} once it is restarted{sent}")


@app.command()
def rekey(folder: Dir, name: ProcessName) -> None:
    """Make a new key for a node; `register` swaps it for the old one."""
    folder = folder.absolute()
    (federation := Federation.load(folder)).known(name)
    federation_folder.give_key(folder, name)
    federation_folder.give_partners(folder, federation)
    typer.echo(f"{folder / 'nodes' / name / 'key'} is new; `snowdrop deploy register {folder}`")


@app.command()
def register(folder: Dir) -> None:
    """Register new node keys with the SuperLink."""
    folder = folder.absolute()
    new = local.register(folder, Federation.load(folder))
    for name in new:
        supervisor.held_path(folder, name).unlink(missing_ok=True)
    typer.echo(f"registered: {', '.join(new)}" if new else "there is no new key")


@app.command()
def backup(
    folder: Dir,
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="the back-up, a .tar.gz file")],
    authority: Annotated[
        bool, typer.Option(help="with ca/, whose key can sign certificates")
    ] = True,
    force: Annotated[bool, typer.Option(help="replace a file that is there")] = False,
) -> None:
    """Write all of the federation that is on this machine into one file, while it runs too."""
    count = back_up(folder.absolute(), archive.absolute(), authority, force)
    typer.echo(f"{archive} holds {count} files, private keys and interactions among them")


@app.command()
def restore(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="what `backup` wrote")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="an empty or a new folder")],
) -> None:
    """Bring a federation back from a back-up; the next run goes on with its training."""
    federation = bring_back(archive.absolute(), folder.absolute())
    typer.echo(
        f"{folder} holds the federation '{federation.name}' as it was; `snowdrop deploy up "
        f"{folder}` starts it, and the next run goes on with its training"
    )


@app.command()
def renew(
    folder: Dir,
    within: Annotated[
        int | None,
        typer.Option(metavar="DAYS", min=0, help="only where it ends within so many days"),
    ] = None,
) -> None:
    """Make a new certificate for the SuperLink, from the same authority."""
    folder = folder.absolute()
    federation = Federation.load(folder)
    if within is None:
        certificate.renew(folder, federation)
    elif not certificate.renew_if_due(folder, federation, within):
        typer.echo(f"the certificate is valid until {certificate.validity(folder)[1]:%Y-%m-%d}")
        return
    if supervisor.supervisor_pid(folder):
        typer.echo("the certificate is new; the SuperLink takes it as soon as no run is under way")
    else:
        typer.echo("the certificate is new; restart the SuperLink for it to be used")


def _some_user(folder: Path, federation: Federation) -> tuple[str, str]:
    """A node and one of its users, as a shell takes it; 'USER' where none can be read."""
    names = federation.node_names()
    for name in names:
        with suppress(SnowdropError):
            if user := first_user(folder / "nodes" / name / "data" / "interactions.csv"):
                return name, shlex.quote(user)
    return names[0], "USER"


def _known(folder: Path, name: str) -> Path:
    names = [process.name for process in processes(Federation.load(folder))]
    if name not in names:
        raise SnowdropError(f"there is no process '{name}'; there are {', '.join(names)}")
    return folder


def _supervised(folder: Path, name: str) -> Path:
    _known(folder, name)
    if supervisor.supervisor_pid(folder) is None:
        raise SnowdropError(f"{folder} is not up; `snowdrop deploy up {folder}` starts it")
    return folder


def _until(folder: Path, name: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while (report := supervisor.report(folder, name)) is None or report.state != state:
        if time.monotonic() > deadline:
            raise SnowdropError(f"{name} is not {state} after a minute; look at its log")
        time.sleep(0.1)
