"""What the tests of all modalities share."""

from pathlib import Path

import pytest
import torch

from common.settings import RunSettings

CPU = torch.device("cpu")


def settings_of(folder: Path, **changed: object) -> RunSettings:
    """Settings with small batches and the cache in ``folder``."""
    return RunSettings.parse({"encode_cache": str(folder), "encode_batch": 3, **changed})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with five items, whose rows are not in the order of their ids."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_items(folder, "item_id,title,split\nc,Cat,test\na,Ant,warm\ne,Elk,warm\nb,Bee,warm\n"
                "d,Dog,validation\n")  # fmt: skip
    return folder


def write_items(folder: Path, text: str) -> None:
    (folder / "items.csv").write_text(text)
