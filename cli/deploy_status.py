"""`snowdrop deploy status`: the processes of a federation, its run, and its nodes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.errors import SnowdropError
from common.task import metric_words
from deploy import certificate, local, supervisor
from deploy.federation import Federation
from deploy.health import healthy
from deploy.processes import processes
from server_app.run_folder import RunFolder


def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the federation's folder")],
    run_dir: Annotated[
        Path | None, typer.Option(help="folder of the run (default: DIR/server/run)")
    ] = None,
) -> None:
    """Show the state of each process and of the run; exit status 1 unless all take part."""
    folder = folder.absolute()
    federation = Federation.load(folder)
    supervised = supervisor.supervisor_pid(folder) is not None
    every = processes(federation)
    well = {p.name: healthy(p.health, 2.0) for p in every} if supervised else {}
    online = local.online(folder, federation) if well.get(every[0].name) else set()
    run = RunFolder((run_dir or folder / "server" / "run").absolute())
    answered = run.read_answered()
    ids = {name: node["id"] for name, node in local.registered(folder).items()}
    table = status_table()
    good = supervised
    for process in every:
        report = supervisor.report(folder, process.name) if supervised else None
        is_node = process.name in federation.node_names()
        part = well.get(process.name, False) and (process.name in online or not is_node)
        good = good and part
        last = answered.get(ids.get(process.name, ""))
        table.add_row(
            process.name,
            report.state if report else "down",
            str(report.pid or "") if report else "",
            "yes" if part else "no",
            str(report.restarts) if report else "",
            local_time(report.since) if report else "",
            age(last, datetime.now(UTC)) if last else "",
        )
    Console().print(table)
    typer.echo(run_line(run, under_way=bool(supervised and supervisor.serverapps(folder))))
    typer.echo(certificate_line(folder))
    if well.get(every[0].name):
        for name in federation.node_names():
            if name not in online and (why := local.node_obstacle(folder, federation, name)):
                typer.echo(f"{name} cannot take part: {why}")
    if not good:
        raise typer.Exit(1)


def run_line(run: RunFolder, under_way: bool) -> str:
    """Round, validation, ε and failures of a run, as far as it tells."""
    try:
        settings, rounds = run.read_settings(), run.read_rounds()
    except SnowdropError as error:
        return f"run: {error}"
    if settings is None and under_way:
        return (
            f"run: under way, with nothing in {run.path} yet: it encodes the items' texts, or "
            "writes to another folder (--run-dir)"
        )
    if settings is None:
        return f"run: none yet in {run.path}"
    parts = [f"round {rounds[-1]['round'] if rounds else 0} of {settings.rounds}"]
    parts.append("under way" if under_way else "not under way")
    best = "validation_recall@20"
    if measured := [row for row in rounds if row.get(best) is not None]:
        last = measured[-1]
        told = metric_words("recall@20", settings.task)
        parts.append(f"validation {told} {100 * last[best]:.2f} % after round {last['round']}")
    if rounds and rounds[-1].get("epsilon_total") is not None:
        parts.append(f"ε {rounds[-1]['epsilon_total']:.3g}")
    if rounds and rounds[-1].get("failed_nodes"):
        parts.append(f"{rounds[-1]['failed_nodes']} failed answers in the last round")
    return "run: " + " · ".join(parts)


def certificate_line(folder: Path) -> str:
    """Until when the server's certificate is valid."""
    try:
        ends = certificate.validity(folder)[1]
    except SnowdropError as error:
        return f"certificate: {error}"
    return f"certificate: valid until {ends:%Y-%m-%d} ({(ends - datetime.now(UTC)).days} days)"


def status_table() -> Table:
    """An empty table of processes, which breaks long cells and never cuts them."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    heads = ("process", "state", "pid", "takes part", "restarts", "since", "last answer")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def age(moment: str, now: datetime) -> str:
    """How long ago a moment in ISO format was, in its largest whole unit."""
    seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def local_time(moment: str) -> str:
    """A moment in ISO format with its offset, as this machine's clock shows it, to the second."""
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S}"
