"""Systemd units, environment files and start scripts, from the description of the processes."""

import shlex
from pathlib import Path

from deploy.credentials import write_public
from deploy.federation import Federation
from deploy.processes import Process, processes


def unit(federation: Federation, process: Process) -> str:
    """A unit that starts the process again whenever it ends, however often that is.

    A killed SuperNode's key is refused for up to a minute, and the node exits each time.
    """
    command = " ".join(_quoted(part) for part in process.command)
    return f"""\
[Unit]
Description=Snowdrop {federation.name}: {process.name}, {process.describes}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User=snowdrop
WorkingDirectory={_escaped(str(process.folder))}
EnvironmentFile={_escaped(str(process.folder / f"{process.name}.env"))}
ExecStart={command}
Restart=always
RestartSec=5
TimeoutStopSec=30
UMask=0077
NoNewPrivileges=true
PrivateTmp=true
ProtectSystem=strict
ReadWritePaths={_quoted(str(process.folder))}

[Install]
WantedBy=multi-user.target
"""


def environment_file(process: Process) -> str:
    """Environment variables in a form that both systemd and a shell can read."""
    return "".join(f"{key}={_value(value)}\n" for key, value in process.environment.items())


def start_script(process: Process) -> str:
    """A script that runs the process in the foreground, for a terminal or another supervisor."""
    script = shlex.quote(str(process.folder / f"{process.name}.env"))
    return f"#!/bin/sh\nset -a\n. {script}\nset +a\numask 077\nexec {process.shell()}\n"


def unit_name(federation: Federation, process: Process) -> str:
    """Name of a unit's file."""
    return f"snowdrop-{federation.name}-{process.name}.service"


def write_start_files(federation: Federation, folder: Path) -> None:
    """Unit, environment file and start script of every process, into its own folder."""
    for process in processes(federation):
        place = folder / process.folder.relative_to(federation.root)
        write_public(place / f"{process.name}.env", environment_file(process).encode())
        script = place / f"{process.name}.sh"
        write_public(script, start_script(process).encode())
        script.chmod(0o755)
        text = unit(federation, process)
        write_public(place / unit_name(federation, process), text.encode())


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """A word of a unit's command line: systemd knows quotes, backslashes, % and $."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return _escaped(f'"{escaped}"' if any(c in text for c in " \t\"'\\;") else escaped)


def _value(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
