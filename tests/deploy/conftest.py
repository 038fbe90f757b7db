"""A small federation's folder."""

from pathlib import Path

import pytest

from deploy import folder as federation_folder
from deploy.federation import Federation


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Federation]:
    """A folder with the credentials of a federation of two nodes, and the federation."""
    folder = tmp_path / "my fed"  # a space, for what must be quoted
    description = Federation.new(folder, "fed", 2, ("server.example", "10.1.2.3"))
    return folder, federation_folder.make(folder, description, force=False, keep=False)
