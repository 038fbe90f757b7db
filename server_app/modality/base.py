"""What an encoder is, and what those of all modalities share."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.pace import Pace

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

log = logging.getLogger("snowdrop")

_PROGRESS_SECONDS = 5.0

_CONFIG = "config.json"
"""The file that every model of transformers has."""


class TextEncoder(Protocol):
    """Makes features of texts.

    Attributes
    ----------
    identity : str
        Everything that its features depend on, as lines; the first line is a name. Features are
        cached under it. An empty identity means that they are never cached.
    """

    @property
    def identity(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Features of the texts, float32 (texts, c); c is the same in every call."""


class ImageEncoder(Protocol):
    """Makes features of images; ``identity`` is as in `TextEncoder`."""

    @property
    def identity(self) -> str: ...

    def encode(self, images: Sequence["Image"]) -> np.ndarray:
        """Features of RGB images of any size, float32 (images, c); c is always the same."""


TextEncoderFactory = Callable[[RunSettings, "torch.device"], TextEncoder]
"""Makes an encoder for the settings of a run; what is slow waits for the first `encode`."""

ImageEncoderFactory = Callable[[RunSettings, "torch.device"], ImageEncoder]


class Progress:
    """Log lines with the time that is left, at most one every few seconds.

    Parameters
    ----------
    what : str
        What is counted, as a plural: "texts".
    total : int
        How many there are.
    work : float
        The work of all of them in any unit, in which `step` reports it.
    """

    def __init__(self, what: str, total: int, work: float) -> None:
        self._what, self._total, self._done = what, total, 0
        self._pace = Pace(work, _PROGRESS_SECONDS)

    def step(self, count: int, work: float) -> None:
        """``count`` more are done, which took ``work`` of the whole work."""
        self._done += count
        if told := self._pace.step(work):
            log.info(
                "encoded %d of %d %s in %.0f s, about %.0f s left",
                self._done, self._total, self._what, *told,
            )  # fmt: skip


def checked(features: np.ndarray, count: int, encoder: str) -> np.ndarray:
    """The features of an encoder, after a look at their shape.

    Parameters
    ----------
    features : ndarray
    count : int
        How many texts or images it was given.
    encoder : str
        Its name, for the error.

    Returns
    -------
    ndarray, float32 (count, c)

    Raises
    ------
    SnowdropError
        If it is no matrix with one row for each of them.
    """
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or len(features) != count or not features.shape[1]:
        raise SnowdropError(
            f"encoder {encoder!r} made features of the shape {features.shape} from {count} inputs; "
            f"it must make ({count}, c)"
        )
    return features


def model_identity(model: str, parts: Iterable[str]) -> str:
    """Identity of a Hugging Face model: its name or folder, ``parts``, and the folder's files."""
    lines = [model, *parts]
    local = Path(model)
    if local.is_dir():
        files = [(p.name, p.stat()) for p in sorted(local.iterdir()) if p.is_file()]
        lines += [f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in files]
    return "\n".join(lines)


def quiet_transformers() -> None:
    """Keep the progress bars and notes of transformers off the terminal."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def local_files_only(setting: str, model: str, registered: Iterable[str]) -> bool:
    """Whether transformers shall look for a Hugging Face model on this machine alone.

    So it is where the model is a folder, or was downloaded and the Hugging Face Hub cannot be asked
    now. A process asks the Hub once for a model that it then has: transformers asks for file after
    file, each several times, which takes minutes without a network.

    Parameters
    ----------
    setting, model : str
        Which setting names the model, and its name or folder.
    registered : Iterable[str]
        Other encoders that the setting may name.

    Raises
    ------
    SnowdropError
        If the model is neither on this machine nor on the Hub, or the Hub cannot be asked.
    """
    if Path(model).is_dir():
        return True
    try:
        return _without_the_hub(model)
    except _MissingModelError as error:
        raise cannot_load(setting, model, error, registered) from error.__cause__


class _MissingModelError(Exception):
    """Why a model cannot be had."""


@cache
def _without_the_hub(model: str) -> bool:
    """Whether the Hub cannot be asked for a model that is no folder, but was downloaded.

    Raises
    ------
    _MissingModelError
        If the model is neither on this machine nor on the Hub, or the Hub cannot be asked.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        get_hf_file_metadata(hf_hub_url(model, _CONFIG))
    except RepositoryNotFoundError as error:
        reason = "the Hugging Face Hub has no such model, or shows it after a login alone"
        raise _MissingModelError(reason) from error
    except HFValidationError as error:
        reason = "there is no such folder, and no model has a name like that"
        raise _MissingModelError(reason) from error
    except HfHubHTTPError:
        return False  # the Hub answers, and transformers tells what is wrong
    except Exception as error:  # whichever the library raises with which it asks
        if isinstance(try_to_load_from_cache(model, _CONFIG), str):
            return True
        reason = "the Hugging Face Hub cannot be reached, and this machine has no copy of the model"
        raise _MissingModelError(reason) from error
    return False


def cannot_load(
    setting: str, name: str, reason: str | Exception, registered: Iterable[str]
) -> Exception:
    """The error for a model that cannot be loaded, one sentence."""
    first = (str(reason).splitlines() or [type(reason).__name__])[0].rstrip(".")
    known = " or ".join(repr(name) for name in registered)
    return SnowdropError(
        f"{setting} {name!r} cannot be loaded: {first}; give a Hugging Face name, "
        f"a local folder, or {known}"
    )
