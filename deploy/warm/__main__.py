"""`python -P -m deploy.warm flower-supernode …`: becomes that SuperNode, with a warm process.

Before that it says in the node's log what would keep the node from its SuperLink.

The SuperNode keeps this process's id: whoever supervises this process supervises the SuperNode.
"""

import os
import shlex
import sys
import time
from pathlib import Path

from deploy.warm import launcher

SWITCH = "SNOWDROP_WARM"
"""Environment variable; with '0' all is as Flower does it."""

NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
"""An image may set it; a run's app would be compiled anew for every message."""


_AGAIN_SECONDS = 120.0
"""A node that starts again within this time may have been refused."""


def main(command: list[str]) -> None:
    """Start the warm process, and become the SuperNode, which finds it through ``PATH``."""
    home = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr").absolute()
    tell_obstacle(command, home)
    if sys.platform == "linux" and os.environ.get(SWITCH, "1") != "0":
        os.environ.pop(NO_BYTECODE, None)
        try:
            folder = private_folder(home / "warm")
            programs = write_launcher(folder, os.getpid())
            launcher.start_server(str(folder), os.getpid())
            os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        except OSError as error:
            launcher.say(f"there is no warm process for messages: {error}")
    os.execvp(command[0], command)


def tell_obstacle(command: list[str], home: Path) -> None:
    """Say what keeps this node from its SuperLink; the SuperNode then tries all the same.

    Whether its key is let in is asked only where the node has started a moment ago already, since
    the SuperLink notes the question in its log.
    """
    from deploy.reach import obstacle_of

    try:
        home.mkdir(parents=True, exist_ok=True)
        mark = home / "started"
        again = mark.exists() and time.time() - mark.stat().st_mtime < _AGAIN_SECONDS
        mark.touch()
        if (why := obstacle_of(command, with_key=again)) is not None:
            launcher.say(why)
    except Exception as error:  # a look must not keep a node from its work
        launcher.say(f"could not look whether the SuperLink can be reached: {error!r}")


def private_folder(folder: Path) -> Path:
    """The folder, which no other account can enter.

    Raises
    ------
    OSError
        If it is another account's, or cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # fails where it is another account's
    return folder


def write_launcher(folder: Path, node: int) -> Path:
    """Write a program `flwr-clientapp`; the folder that holds it and nothing else.

    Parameters
    ----------
    folder : Path
        Of the warm process.
    node : int
        Process id of the SuperNode.
    """
    command = [sys.executable, "-I", "-S", launcher.__file__, str(folder), str(node)]
    programs = folder / launcher.PROGRAMS
    programs.mkdir(exist_ok=True)
    aside = programs / f"{launcher.CLIENTAPP}.{node}"
    aside.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    aside.chmod(0o700)
    aside.replace(programs / launcher.CLIENTAPP)
    return programs


if __name__ == "__main__":
    main(sys.argv[1:])
