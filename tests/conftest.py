"""Shared by the tests of several packages."""

import os
from pathlib import Path

import hypothesis
import polars as pl
import pytest

from client_app.demo import demo_interactions
from common import demo, methods


def pytest_configure() -> None:
    """Methods of other packages in this environment take no part unless a test says so."""
    methods.entry_points = lambda **_: []
    # A busy machine is no fault of the code: tests have time limits of their own. A run that is to
    # tell whether a change is sound draws the same examples each time; `explore` draws others.
    hypothesis.settings.register_profile("house", deadline=None, derandomize=True)
    hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers that share the files end together if the files that take minutes come first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith("tests/e2e/"))


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users and 80 items, without a split of its own."""
    folder = tmp_path_factory.mktemp("data")
    titles = [title for title, _ in demo.demo_texts(80, seed=0)]
    items = pl.DataFrame({"item_id": demo.item_ids(80), "title": titles})
    items.write_csv(folder / "items.csv")
    demo_interactions(60, 80, 20, seed=0).write_csv(folder / "interactions.csv")
    return folder
