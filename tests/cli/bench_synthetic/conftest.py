from pathlib import Path

import pytest

from cli.bench_synthetic.protocol import World
from tests.cli.bench_synthetic.worlds import small_world, write_users
from tests.synthesizers import drawn  # noqa: F401  a fixture


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A folder of 60 users in three communities."""
    return write_users(tmp_path / "communities")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same users, read."""
    return small_world(tmp_path_factory.mktemp("users"))
