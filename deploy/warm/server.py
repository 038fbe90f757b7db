"""The fork server: imports what a message needs, once, and forks a process for every message.

It runs by its path and imports nothing of this project, since a fork must load the run's own app.
It has one thread, and computes nothing: a thread, a lock or an OpenMP pool of this process would
be missing or broken in its forks. It ends when its SuperNode has ended, and its forks end with it.
"""

import ctypes
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PRELOADED = (
    "flwr.supernode.cli",
    "flwr.app",
    "flwr.clientapp",
    "httpcore",
    "numpy",
    "scipy.sparse",
    "pydantic.dataclasses",
    "safetensors.torch",
    "torch",
)
"""Libraries of a message. Polars is not among them: it starts threads when it is imported."""

_GRACE_SECONDS = 10.0  # of a new SuperNode: one that is refused ends, and starts again and again
_LOOK_SECONDS = 0.5  # between two looks at whether the SuperNode is there
_TALK_SECONDS = 10.0  # that a launcher has to send its request
_LOCK_SECONDS = 3.0  # that a former server has to end
_END_SECONDS = 5.0  # that forks have to end, before they are killed
_LONGEST_REQUEST = 2**24
_PR_SET_PDEATHSIG = 1
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _launcher() -> Any:
    """The launcher beside this file, which holds what both sides agree on."""
    path = Path(__file__).with_name("launcher.py")
    spec = importlib.util.spec_from_file_location("snowdrop_launcher", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


launcher = _launcher()


@dataclass
class Request:
    """What a launcher hands over."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    umask: int
    streams: list[int] = field(default_factory=list)


class Server:
    """Takes requests until its SuperNode is gone.

    Parameters
    ----------
    listener : socket.socket
    node : int
        Process id of the SuperNode.
    lock : IO[bytes]
        Held while this server is there.
    """

    def __init__(self, listener: socket.socket, node: int, lock: IO[bytes]) -> None:
        self._listener, self._node, self._lock = listener, node, lock
        self._waking, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._forks: dict[int, socket.socket] = {}
        self._libraries = _libraries()
        self._stopping = False

    def serve(self) -> Request | None:
        """Handle what comes; None when the server is to end, a request in each fork."""
        self._waker.setblocking(False)
        self._waking.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *_STOPPING):
            signal.signal(number, lambda *_: None)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._waking, selectors.EVENT_READ)
        while not self._stopping and _is_there(self._node):
            for key, _ in self._selector.select(_LOOK_SECONDS):
                if key.fileobj is self._listener:
                    if (request := self._accept()) is not None:
                        return request
                elif key.fileobj is self._waking:
                    self._signalled()
                else:
                    self._told(key.fileobj)  # type: ignore[arg-type]
        self._end_forks()
        return None

    def _accept(self) -> Request | None:
        """Talk to a launcher, and fork for it; the request in the fork, None here."""
        connection, _ = self._listener.accept()
        if _libraries() != self._libraries:  # a fork would mix old modules with new ones
            connection.close()
            self._stopping = True
            return None
        try:
            connection.settimeout(_TALK_SECONDS)
            connection.sendall(launcher.READY)
            request = _received(connection)
        except (OSError, ValueError, TypeError) as error:
            launcher.say(f"the warm process could not read a request: {error!r}")
            connection.close()
            return None
        connection.setblocking(True)
        return self._fork(connection, request)

    def _fork(self, connection: socket.socket, request: Request) -> Request | None:
        server = os.getpid()
        try:
            with _signals_held():  # else one could reach a fork that still has the handlers of here
                pid = os.fork()
                if pid == 0:
                    connection.close()
                    self._become_a_fork(server)
                    return request
        except OSError as error:
            launcher.say(f"the warm process could not fork: {error}")
            connection.close()
            return None
        finally:
            if os.getpid() == server:
                _close(request.streams)
        self._forks[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ)
        _send(connection, launcher.TAKEN)
        return None

    def _become_a_fork(self, server: int) -> None:
        """Leave all that is the server's."""
        # No fork may outlive the server, however that ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *_STOPPING):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for end in (self._listener, self._waking, self._waker, *self._forks.values()):
            end.close()
        self._lock.close()

    def _signalled(self) -> None:
        if any(number in _STOPPING for number in self._waking.recv(4096)):
            self._stopping = True
        self._reap()

    def _reap(self) -> None:
        """Tell the launchers of forks that have ended how they ended."""
        for pid, connection in list(self._forks.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                _send(connection, code.to_bytes(launcher.STATUS_BYTES, "little", signed=True))
                self._forget(pid)

    def _told(self, connection: socket.socket) -> None:
        """Pass a launcher's signals on; a launcher that is gone was killed, and so is its fork."""
        pid = next((p for p, own in self._forks.items() if own is connection), None)
        if pid is None:  # reaped in the same turn
            return
        try:
            numbers = connection.recv(64)
        except OSError:
            numbers = b""
        for number in numbers or (signal.SIGKILL,):
            os.kill(pid, number)  # not reaped yet, so the id is still the fork's
        if not numbers:
            self._selector.unregister(connection)

    def _forget(self, pid: int) -> None:
        connection = self._forks.pop(pid)
        if connection in self._selector.get_map():
            self._selector.unregister(connection)
        connection.close()

    def _end_forks(self) -> None:
        """Ask forks to end; what is left when this process ends is killed."""
        for pid in self._forks:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while self._forks and time.monotonic() < deadline:
            time.sleep(0.02)
            self._reap()
        for pid in self._forks:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep the signals that this process handles until the end."""
    signals = {signal.SIGCHLD, *_STOPPING}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def _close(streams: list[int]) -> None:
    for stream in streams:
        os.close(stream)


def _send(connection: socket.socket, content: bytes) -> None:
    with suppress(OSError):  # the launcher is gone, which `_told` sees
        connection.sendall(content)


def _received(connection: socket.socket) -> Request:
    """A launcher's request.

    Raises
    ------
    OSError, ValueError, TypeError
        If it is not whole.
    """
    head, streams, _, _ = socket.recv_fds(
        connection, launcher.LENGTH_BYTES, len(launcher.STREAMS), socket.MSG_WAITALL
    )
    try:
        length = int.from_bytes(head, "little")
        if len(head) < launcher.LENGTH_BYTES or len(streams) != len(launcher.STREAMS):
            raise ValueError("the launcher is gone")
        if length > _LONGEST_REQUEST:
            raise ValueError(f"it has {length} bytes")
        content = bytearray()
        while len(content) < length:
            if not (more := connection.recv(length - len(content))):
                raise ValueError("the launcher is gone")
            content += more
        return Request(**json.loads(content), streams=list(streams))
    except BaseException:
        _close(streams)
        raise


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _libraries() -> list[tuple[str, int]]:
    """When a library was last installed or removed, by folder."""
    folders = [Path(part) for part in sys.path if part.endswith("-packages")]
    return [(str(path), path.stat().st_mtime_ns) for path in folders if path.is_dir()]


def take_lock(folder: Path) -> IO[bytes] | None:
    """The lock of the one server of a folder; None where there is one that does not end."""
    lock = (folder / "lock").open("ab")
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                return None
            time.sleep(0.1)


def listen(folder: Path) -> socket.socket:
    """The socket that launchers connect to; they wait there while this process imports."""
    (folder / launcher.SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    launcher.in_folder(str(folder), lambda: listener.bind(launcher.SOCKET))
    listener.listen()
    return listener


def is_worth_it(listener: socket.socket, node: int) -> bool:
    """Wait until there is a message, or the SuperNode has been there for a while; False if not."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while _is_there(node):
        if select.select([listener], [], [], _LOOK_SECONDS)[0] or time.monotonic() > deadline:
            return True
    return False


def become(request: Request) -> None:
    """Be the process that the launcher would have become, up to what it has imported."""
    for own, stream in zip(launcher.STREAMS, request.streams, strict=True):
        os.dup2(stream, own)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    os.umask(request.umask)
    sys.argv[:] = [launcher.CLIENTAPP, *request.arguments]
    importlib.invalidate_caches()
    if "numpy" in sys.modules:  # its global generator was seeded once; that of `random` is anew
        sys.modules["numpy"].random.seed()
    launcher.say("a fork of the warm process takes this message")


def preload(names: tuple[str, ...] = PRELOADED) -> None:
    """Import libraries; what cannot be imported is left to the forks."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            launcher.say(f"the warm process could not import {name}: {error!r}")
    gc.collect()
    gc.freeze()  # else the first collection in a fork copies every page


def main(folder: Path, node: int) -> None:
    """Serve a node's messages until it ends; in a fork, handle one."""
    if (lock := take_lock(folder)) is None:
        return
    listener = listen(folder)
    if not is_worth_it(listener, node):
        return
    began = time.monotonic()
    preload()
    launcher.say(f"the warm process is ready after {time.monotonic() - began:.1f} s")
    request = Server(listener, node, lock).serve()
    if request is not None:
        become(request)
        from flwr.supernode.cli import flwr_clientapp

        flwr_clientapp()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
