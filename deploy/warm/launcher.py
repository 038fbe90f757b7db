"""What a SuperNode starts for each message: hands it to the warm process, and waits for its end.

It runs by its path, without any package (``python -I -S``), so that it is there in an instant. The
conversation with the fork server, over a Unix socket in a folder that only the node's account can
enter:

1. The server writes `READY` when it has imported everything.
2. The launcher sends the length of its request with its three standard streams, then the request.
3. The server writes `TAKEN` once a process has been forked for it. Until then, any failure makes
   the launcher become Flower's own program; from then on the message is the fork's.
4. The launcher writes one byte for each signal that it gets, its number.
5. The server writes the exit status, four bytes, negative where a signal ended the fork. Where the
   connection ends without it, the fork was killed with the server; where the launcher's end of it
   closes, the server kills the fork.
"""

# To import pathlib takes as long as all the rest.
# ruff: noqa: PTH100, PTH109, PTH118, PTH120

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

CLIENTAPP = "flwr-clientapp"
PROGRAMS = "bin"
"""Folder of the launcher, in the folder of the warm process."""

SOCKET = "socket"
READY, TAKEN = b"R", b"T"
LENGTH_BYTES, STATUS_BYTES = 8, 4
STREAMS = (0, 1, 2)

_READY_SECONDS = 60.0  # as long as imports may take on a busy machine
_PASSED_ON = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
_OWN_ENVIRONMENT = "--allow-runtime-dependency-installation"
"""With it, a run brings libraries of its own, which the warm process has not imported."""


class NotTakenError(OSError):
    """The warm process did not take a message."""


def main(folder: str, node: int, arguments: list[str]) -> None:
    """Have the warm process handle a message and end as that does, or become Flower's own program.

    Parameters
    ----------
    folder : str
        Of the warm process.
    node : int
        Process id of the SuperNode.
    arguments : list[str]
        Of `flwr-clientapp`.
    """
    os.environ["PATH"] = _without(
        os.path.join(folder, PROGRAMS), os.environ.get("PATH", os.defpath)
    )
    if _OWN_ENVIRONMENT not in arguments:
        try:
            connection = connected(folder)
            hand_over(connection, arguments)
        except OSError as error:
            say(f"the warm process did not take this message ({error}); it starts anew")
            with suppress(OSError):
                start_server(folder, node)
        else:
            end_as(wait(connection))
    os.execvp(CLIENTAPP, [CLIENTAPP, *arguments])


def connected(folder: str) -> socket.socket:
    """A connection to the fork server, which is ready.

    Raises
    ------
    OSError
        If there is no server, or it does not become ready.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_READY_SECONDS)
    in_folder(folder, lambda: connection.connect(SOCKET))
    if connection.recv(1) != READY:
        raise NotTakenError("it has ended")
    connection.settimeout(None)
    return connection


def in_folder(folder: str, act: Callable[[], object]) -> None:
    """Call ``act`` in a folder: a socket's path may have about 100 bytes, a folder's more."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        try:
            act()
        finally:
            os.fchdir(here)
    finally:
        os.close(here)


def hand_over(connection: socket.socket, arguments: list[str]) -> None:
    """Send what a process of its own would have inherited.

    Raises
    ------
    OSError
        If no process was forked for it.
    """
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "umask": umask,
    }
    content = json.dumps(request).encode()
    length = len(content).to_bytes(LENGTH_BYTES, "little")
    socket.send_fds(connection, [length], STREAMS)
    connection.sendall(content)
    for number in _PASSED_ON:  # from here on, none of them may be lost
        signal.signal(number, lambda received, _: _pass_on(connection, received))
    if connection.recv(1) != TAKEN:
        for number in _PASSED_ON:
            signal.signal(number, signal.SIG_DFL)
        raise NotTakenError("it ended before it forked")


def _pass_on(connection: socket.socket, number: int) -> None:
    with suppress(OSError):
        connection.sendall(bytes([number]))


def wait(connection: socket.socket) -> int:
    """The exit status of the fork; that of a killed process where the server is gone."""
    status = b""
    with suppress(OSError):
        while len(status) < STATUS_BYTES and (more := connection.recv(STATUS_BYTES - len(status))):
            status += more
    if len(status) < STATUS_BYTES:
        return -signal.SIGKILL
    return int.from_bytes(status, "little", signed=True)


def start_server(folder: str, node: int) -> None:
    """Start a fork server for a SuperNode; it ends with it, and at once where there is one."""
    import subprocess  # no launcher needs it where there is a server

    server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.py")
    subprocess.Popen(
        [sys.executable, "-P", server, folder, str(node)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def say(what: str) -> None:
    """A line in the node's log."""
    print(f"snowdrop: {what}", file=sys.stderr, flush=True)


def end_as(status: int) -> None:
    """End as the fork did: with its exit status, or by the same signal."""
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(abs(status))


def _without(folder: str, path: str) -> str:
    return os.pathsep.join(part for part in path.split(os.pathsep) if part != folder)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
