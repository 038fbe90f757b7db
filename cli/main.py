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
    sys.unraisablehook = _keep_interrupt
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


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


def _interrupt_again(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _keep_interrupt(lost: "sys.UnraisableHookArgs") -> None:
    """An interrupt that fell where Python can raise nothing, such as a callback, comes again."""
    if lost.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(lost)


if __name__ == "__main__":
    main()
