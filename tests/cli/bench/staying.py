"""Work that lasts, in a module that imports next to nothing: each process imports it anew."""

import os
import time
from pathlib import Path


def stay(told: str) -> None:
    """Write down this process's id, and stay for minutes."""
    Path(told).write_text(str(os.getpid()))
    time.sleep(300)
