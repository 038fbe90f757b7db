"""The `snowdrop` command: its entry, which imports nothing that takes time.

Ctrl-C ends it without a word at any moment: while commands are imported, while they run (unless
they say what became of their work), and while Python shuts down.
"""

import os
import signal
import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""

_AGAIN_SECONDS = 0.05


def main() -> None:
    """Run the command; an error that the user can mend is one sentence and exit status 1."""
    signal.signal(signal.SIGINT, _leave)  # nothing has begun; `cli.commands` takes it over
    signal.signal(signal.SIGALRM, _interrupt_again)
    sys.unraisablehook = _silent_interrupt
    from cli.commands import app
    from common.errors import SnowdropError

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SnowdropError as error:
        sys.stdout.flush()
        print(f"snowdrop: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGINT, _leave)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


def _interrupt_again(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _silent_interrupt(lost: "sys.UnraisableHookArgs") -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)


class Interrupt(KeyboardInterrupt):
    """Ctrl-C that nobody can lose: where it is dropped while the command goes on, it comes again.

    Libraries swallow what is raised within a callback or a bare ``except``.
    """

    def __del__(self) -> None:
        if signal.getsignal(signal.SIGALRM) is _interrupt_again:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)


if __name__ == "__main__":
    main()
