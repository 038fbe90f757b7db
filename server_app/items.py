"""The server's items: the catalogue that the settings name, and its features."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from common import demo
from common.catalogue import Catalogue, ItemIndex, read_catalogue
from common.errors import SnowdropError
from common.settings import DEMO, RunSettings
from common.task import draws_cold

if TYPE_CHECKING:  # a command that reads the catalogue alone does not wait for torch
    import torch

    from server_app.methods.base import World

log = logging.getLogger("snowdrop")


def data_folder(settings: RunSettings) -> Path | None:
    """The data folder, or None for generated demo data.

    Raises
    ------
    SnowdropError
        If it is relative or missing.
    """
    if settings.data == DEMO:
        return None
    folder = Path(settings.data)
    if not folder.is_absolute():
        raise SnowdropError(f"data = {settings.data!r} must be an absolute path, or 'demo'")
    return check_folder(folder)


def check_folder(folder: Path) -> Path:
    """A data folder that is there.

    Raises
    ------
    SnowdropError
        If it is missing, or a file.
    """
    if folder.is_dir():
        return folder
    if folder.exists():
        raise SnowdropError(f"{folder} is a file; give the folder that it is in: {folder.parent}")
    raise SnowdropError(f"the data folder {folder} does not exist")


def load_catalogue(settings: RunSettings) -> Catalogue:
    """The items that the settings name.

    Raises
    ------
    SnowdropError
        If the data folder is missing, relative, or malformed.
    """
    folder = data_folder(settings)
    all_warm = not draws_cold(settings.task)
    if folder is None:
        return demo.demo_catalogue(demo.ITEMS, settings.seed, all_warm)
    return read_catalogue(folder, settings.seed, settings.text_columns, all_warm)


def tell_of_lost(catalogue: Catalogue, former: ItemIndex) -> None:
    """Warn of items that a training began with and the items file holds no more.

    The order of the file does not matter: items are sorted by their ids.
    """
    if lost := sorted(set(former.ids) - set(catalogue.ids)):
        rows = len(set(lost) & set(former.ids_of("warm")))
        log.warning(
            "the items file has lost %d of the training's %d items, the first is '%s'; %d of them "
            "lose their rows in the item table in the next round: if that is not meant, stop this "
            "run and put them back",
            len(lost), len(former.ids), lost[0], rows,
        )  # fmt: skip


def world_of(settings: RunSettings, catalogue: Catalogue, device: "torch.device") -> "World":
    """The catalogue with its features, encoded now or before.

    Raises
    ------
    SnowdropError
        If an encoder cannot be loaded, or a features file does not fit.
    """
    import torch

    from server_app.methods.base import World
    from server_app.modality import encode_features

    made = encode_features(catalogue, data_folder(settings), settings, device)
    features = {name: torch.from_numpy(rows) for name, rows in made.items()}
    return World(settings, catalogue, features, device)
