"""What a run directory keeps of a training, read back."""

import io
from pathlib import Path
from typing import Any

import torch

from common.durable import read_checked


def checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return sorted((run_dir / "checkpoint").glob("round-*.ckpt"))


def newest(run_dir: Path) -> dict[str, Any]:
    """The server's state in the newest checkpoint."""
    content = io.BytesIO(read_checked(checkpoints(run_dir)[-1]))
    state: dict[str, Any] = torch.load(content, weights_only=True)
    return state


def assert_same_training(one: Path, other: Path) -> None:
    """Two run directories hold the same round's item table, up to float tolerance."""
    here, there = newest(one), newest(other)
    assert here["round"] == there["round"]
    torch.testing.assert_close(here["table"], there["table"], atol=1e-5, rtol=0)
