"""Features that were made before, on disk: one file for each encoder, rows by content digest."""

import glob
import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from common.durable import read_checked, write_checked
from common.errors import SnowdropError
from common.settings import RunSettings, cache_home

log = logging.getLogger("snowdrop")


def content_digest(content: bytes) -> str:
    """What a text or an image is known by in the cache, 32 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:32]


def cache_path(identity: str, suffix: str, settings: RunSettings) -> Path | None:
    """The cache file of an encoder, or None for one without an identity.

    Parameters
    ----------
    identity : str
        As in `server_app.modality.base.TextEncoder`.
    suffix : str
        Follows the encoder's name in the name of the file.
    settings : RunSettings
        ``encode_cache``.
    """
    if not identity:
        return None
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    name = Path(identity.splitlines()[0]).name
    return _folder(settings) / f"{name}{suffix}-{digest}.npz"


def holds_some(encoder: str, settings: RunSettings) -> bool:
    """Whether the cache may have features of an encoder, by its name."""
    return any(_folder(settings).glob(f"{glob.escape(Path(encoder).name)}-*.npz"))


def _folder(settings: RunSettings) -> Path:
    place = Path(settings.encode_cache) if settings.encode_cache else cache_home()
    return place / "features"


def through_cache(
    wanted: Sequence[str],
    path: Path | None,
    encode_places: Callable[[list[int]], tuple[list[int], np.ndarray]],
    what: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Features by digest, the missing ones made and kept.

    Parameters
    ----------
    wanted : Sequence[str]
        A digest for each input; equal ones are encoded once.
    path : Path or None
        The cache file; None caches nothing.
    encode_places : callable
        Is given places in ``wanted``, and returns the places that it could encode, in the same
        order, with their features, float32 (those places, c).
    what : str
        What is encoded, as a plural, for the log.

    Returns
    -------
    rows : ndarray, int64 (wanted,)
        Where the features of each are; −1 for those that could not be encoded.
    features : ndarray, float32 (rows of the cache, c)

    Raises
    ------
    SnowdropError
        If the encoder's features have another width than the cached ones.
    """
    digests, features = _read(path) if path else ([], np.zeros((0, 0), np.float32))
    known = {digest: row for row, digest in enumerate(digests)}
    missing: dict[str, int] = {}
    for place, digest in enumerate(wanted):
        if digest not in known:
            missing.setdefault(digest, place)
    if missing:
        made, fresh = encode_places(list(missing.values()))
        if len(made) and len(features) and features.shape[1] != fresh.shape[1]:
            raise SnowdropError(
                f"the encoder makes {fresh.shape[1]} numbers of one input, and {path} holds "
                f"{features.shape[1]}; an encoder that changed needs another identity"
            )
        known |= {wanted[place]: len(digests) + k for k, place in enumerate(made)}
        digests = [*digests, *(wanted[place] for place in made)]
        features = np.concatenate([features, fresh]) if len(features) else fresh
        if path and len(made):
            _write(path, digests, features, what)
    else:
        log.info("all %d %s were encoded before", len(wanted), what)
    return np.array([known.get(digest, -1) for digest in wanted], np.int64), features


def _read(path: Path) -> tuple[list[str], np.ndarray]:
    if path.exists():
        try:
            with np.load(io.BytesIO(read_checked(path))) as stored:
                return stored["digests"].tolist(), stored["features"]
        except SnowdropError as error:
            log.warning("%s; encoding again", error)
    return [], np.zeros((0, 0), np.float32)


def _write(path: Path, digests: list[str], features: np.ndarray, what: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, digests=np.asarray(digests), features=features)
    try:
        write_checked(path, buffer.getvalue())
    except SnowdropError as error:
        log.warning("%s; the %s will be encoded again next time", error, what)
