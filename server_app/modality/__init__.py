"""Items → modality features by name: texts, images, and features files of the data folder.

One file for each kind of encoder. Encoders of one's own are registered by a name
(`register_text_encoder`, `register_image_encoder`), which ``encoder`` and ``image_encoder`` take.
"""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.catalogue import Catalogue
from common.errors import SnowdropError
from common.settings import RunSettings, weighted_modalities
from server_app.modality.base import ImageEncoder, TextEncoder, local_files_only
from server_app.modality.cache import holds_some
from server_app.modality.file import features_file, read_features
from server_app.modality.image import IMAGE_ENCODERS, encode_images, register_image_encoder
from server_app.modality.text import TEXT_ENCODERS, encode, register_text_encoder

if TYPE_CHECKING:
    import torch

__all__ = [
    "IMAGE_ENCODERS",
    "TEXT_ENCODERS",
    "ImageEncoder",
    "TextEncoder",
    "check_encoders",
    "encode",
    "encode_features",
    "modality_names",
    "register_image_encoder",
    "register_text_encoder",
]

log = logging.getLogger("snowdrop")


def encode_features(
    catalogue: Catalogue, folder: Path | None, settings: RunSettings, device: "torch.device"
) -> dict[str, np.ndarray]:
    """The features of all items in each modality that ``modalities`` or ``modality`` names.

    A modality with a features file in the data folder is read from it. Else ``text`` and
    ``image`` are encoded, and what was encoded before comes from the cache.

    Parameters
    ----------
    catalogue : Catalogue
    folder : Path or None
        The data folder; None for generated items, which have texts alone.
    settings : RunSettings
        ``modalities``, ``modality``, ``encoder``, ``image_encoder`` and what they need.
    device : torch.device

    Returns
    -------
    dict of str to ndarray, float32 (items, c)
        Those of ``modalities`` first, rows in the order of the catalogue; each modality has a c
        of its own. An item that has none in a modality has zeros there.

    Raises
    ------
    SnowdropError
        If a modality is unknown, its file is not right, its encoder cannot be loaded, or no item
        has an image.
    """
    features = {}
    for name in modality_names(settings):
        if path := features_file(folder, name):
            features[name] = read_features(path, catalogue)
            log.info(
                "modality '%s' comes from %s; %d of %d items have none, only zeros", name, path,
                int((~features[name].any(1)).sum()), len(features[name]),
            )  # fmt: skip
        elif name == "text":
            features[name] = encode(catalogue.texts, settings, device)
        elif name == "image":
            features[name] = encode_images(catalogue, folder, settings, device)
        else:
            place = f"put {name}.features.npy or {name}.features.parquet into {folder}"
            raise SnowdropError(
                f"the modality '{name}' is neither text nor image nor a features file: "
                f"name text or image{f', or {place}' if folder else ''}"
            )
    return features


def check_encoders(folder: Path | None, settings: RunSettings) -> None:
    """Refuse an encoder of Hugging Face that cannot be had, before anything is made.

    One that has encoded something before may not be needed any more.

    Parameters
    ----------
    folder : Path or None
        The data folder; None for generated items.
    settings : RunSettings
        As for `encode_features`.

    Raises
    ------
    SnowdropError
        If one that is needed is neither on this machine nor on the Hub.
    """
    encoders: dict[str, tuple[str, str, Collection[str]]] = {
        "text": ("encoder", settings.encoder, TEXT_ENCODERS),
        "image": ("image_encoder", settings.image_encoder, IMAGE_ENCODERS),
    }
    for name in modality_names(settings):
        if name in encoders and not features_file(folder, name):
            setting, encoder, registered = encoders[name]
            if encoder not in registered and not holds_some(encoder, settings):
                local_files_only(setting, encoder, registered)


def modality_names(settings: RunSettings) -> list[str]:
    """The names in ``modalities``, in their order, then further ones in ``modality``.

    Raises
    ------
    SnowdropError
        If there is none, or one twice.
    """
    names = [name for part in settings.modalities.split(",") if (name := part.strip())]
    if not names:
        raise SnowdropError("modalities is empty: name at least one, for example text")
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise SnowdropError(f"modalities names '{repeated}' more than once: name each only once")
    return list(dict.fromkeys([*names, *weighted_modalities(settings.modality)]))
