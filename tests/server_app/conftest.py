"""Shared by the tests of the server: one undisturbed run that many tests look at."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.server_app.runs import run_here, run_values

torch.set_num_threads(1)  # the tensors are small: more threads only wait for each other

Ran = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="package")
def plain(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """An undisturbed run on two nodes, with its plots and frozen twin: its folder and summary."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, run_here(run_values(data_folder, folder, twin=True), plots=True)
