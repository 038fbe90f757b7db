"""Runs in this process with features that need no encoder."""

from typing import Any

import tests.server_app.encoders  # noqa: F401  registers the text encoder 'themes'
from tests.cli.browser import browser  # noqa: F401  a fixture

QUICK: dict[str, Any] = {
    "dim": 8,
    "rounds": 4,
    "evaluate_every": 2,
    "mdifffr.fit_steps": 4,
    "mdifffr.width": 16,
    "mdifffr.steps": 4,
    "server_device": "cpu",
    "encoder": "themes",
}
