"""Texts → features with the bundled encoder, and their cache."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from common.errors import SnowdropError
from common.settings import RunSettings
from server_app import modality
from server_app.modality import encode, pick_device

CPU = torch.device("cpu")
TEXTS = (
    "Snowdrop",
    "A long text about a flower that blooms in the cold while everything else still sleeps. " * 3,
    "Fountain pen, blue",
    "Snow",
)


def settings_of(folder: Path, **changed: object) -> RunSettings:
    return RunSettings.parse({"encode_cache": str(folder), "encode_batch": 3, **changed})


@pytest.fixture(scope="module")
def one_at_a_time() -> Callable[[str, str], np.ndarray]:
    """Features of a text by transformers alone, without padding."""
    folder = modality._model_path("minilm")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bert = AutoModel.from_pretrained(folder).eval()

    def features(text: str, pooling: str) -> np.ndarray:
        with torch.inference_mode():
            hidden = bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return (hidden[0] if pooling == "cls" else hidden.mean(0)).numpy()

    return features


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of each call of the encoder, which is replaced by numbers from the texts."""
    calls: list[list[str]] = []

    def fake(texts: list[str], *_: object) -> np.ndarray:
        calls.append(texts)
        return np.array([[len(t), ord(t[0])] for t in texts], np.float32)

    monkeypatch.setattr(modality, "_encode_all", fake)
    return calls


def forbidden(*_: object) -> np.ndarray:
    raise AssertionError("the model was loaded")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_batches_give_what_single_texts_give_and_the_cache_the_same_again(
    tmp_path: Path,
    one_at_a_time: Callable[[str, str], np.ndarray],
    pooling: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(tmp_path, pooling=pooling)
    features = encode(TEXTS, settings, CPU)
    expected = np.stack([one_at_a_time(text, pooling) for text in TEXTS])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-4)
    monkeypatch.setattr(modality, "_encode_all", forbidden)
    np.testing.assert_array_equal(encode(TEXTS[::-1], settings, CPU), features[::-1])


def test_long_texts_are_cut_at_max_tokens(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, max_tokens=8)
    short, long = encode(["one two three four five six", "one two three four five six seven eight"],
                         settings, CPU)  # fmt: skip
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_only_new_texts_are_encoded_and_equal_ones_once(
    tmp_path: Path, encoded: list[list[str]]
) -> None:
    settings = settings_of(tmp_path)
    first = encode(["b", "aaa", "b"], settings, CPU)
    second = encode(["cc", "aaa", "b", "cc"], settings, CPU)
    assert encoded == [["b", "aaa"], ["cc"]]
    np.testing.assert_array_equal(first, [[1, 98], [3, 97], [1, 98]])
    np.testing.assert_array_equal(second, [[2, 99], [3, 97], [1, 98], [2, 99]])


@pytest.mark.parametrize("changed", [{"pooling": "cls"}, {"max_tokens": 32}])
def test_other_settings_have_a_cache_of_their_own(
    tmp_path: Path, encoded: list[list[str]], changed: dict[str, object]
) -> None:
    encode(["a"], settings_of(tmp_path), CPU)
    encode(["a"], settings_of(tmp_path, **changed), CPU)
    assert len(encoded) == 2


def test_a_damaged_cache_is_replaced_with_a_warning(
    tmp_path: Path, encoded: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path)
    before = encode(["a", "bb"], settings, CPU)
    (path,) = (tmp_path / "features").iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING, "snowdrop"):
        after = encode(["a", "bb"], settings, CPU)
    np.testing.assert_array_equal(after, before)
    assert "encoding again" in caplog.text
    encode(["a", "bb"], settings, CPU)
    assert len(encoded) == 2


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, encoded: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "snowdrop"):
        features = encode(["a"], settings_of(tmp_path / "file"), CPU)
    np.testing.assert_array_equal(features, [[1, 97]])
    assert "encoded again next time" in caplog.text


def test_an_unknown_encoder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    settings = settings_of(tmp_path, encoder=str(tmp_path / "empty"))
    with pytest.raises(SnowdropError, match="cannot be loaded") as refusal:
        encode(["a"], settings, CPU)
    assert "\n" not in str(refusal.value)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    assert pick_device("cpu") == CPU
    with pytest.raises(SnowdropError, match="'abacus' cannot be used"):
        pick_device("abacus")
