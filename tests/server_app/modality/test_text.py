"""Texts → features with the bundled encoder and registered ones, and their cache."""

import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from common.durable import read_checked, write_checked
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app import pace
from server_app.modality import TEXT_ENCODERS, encode, register_text_encoder
from server_app.modality import base as modality_base
from server_app.modality.cache import content_digest
from server_app.modality.text import HuggingFaceText, text_encoder
from tests.server_app.modality.conftest import CPU, settings_of

TEXTS = (
    "Snowdrop",
    "A long text about a flower that blooms in the cold while everything else still sleeps. " * 3,
    "Fountain pen, blue",
    "Snow",
)


class Letters:
    """Two numbers from each text: its length and its first letter."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return np.array([[len(t), ord(t[0])] for t in texts], np.float32)


@pytest.fixture(scope="module")
def one_at_a_time() -> Callable[[str, str], np.ndarray]:
    """Features of a text by transformers alone, without padding."""
    folder = bundled_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bert = AutoModel.from_pretrained(folder).eval()

    def features(text: str, pooling: str) -> np.ndarray:
        with torch.inference_mode():
            hidden = bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return (hidden[0] if pooling == "cls" else hidden.mean(0)).numpy()

    return features


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> Letters:
    """Stands for the encoder ``letters``; its identity is that of the settings it was made for."""
    encoder = Letters("")

    def made(settings: RunSettings, _: torch.device) -> Letters:
        encoder.identity = f"letters\n{settings.pooling}\n{settings.max_tokens}"
        return encoder

    monkeypatch.setitem(TEXT_ENCODERS, "letters", made)
    return encoder


def bundled_model() -> str:
    encoder = text_encoder(RunSettings.parse({}), CPU)
    assert isinstance(encoder, HuggingFaceText)
    return encoder.model


def forbidden(*_: object) -> np.ndarray:
    raise AssertionError("the model was loaded")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_batches_give_what_single_texts_give_and_the_cache_the_same_again(
    tmp_path: Path,
    one_at_a_time: Callable[[str, str], np.ndarray],
    pooling: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(tmp_path, pooling=pooling, encoder_dtype="float32")
    features = encode(TEXTS, settings, CPU)
    expected = np.stack([one_at_a_time(text, pooling) for text in TEXTS])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-4)
    monkeypatch.setattr(HuggingFaceText, "encode", forbidden)
    np.testing.assert_array_equal(encode(TEXTS[::-1], settings, CPU), features[::-1])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_bfloat16_is_close_to_float32_and_has_a_cache_of_its_own(
    tmp_path: Path, pooling: str
) -> None:
    half, whole = (
        encode(TEXTS, settings_of(tmp_path, pooling=pooling, encoder_dtype=dtype), CPU)
        for dtype in ("bfloat16", "float32")
    )
    assert half.dtype == whole.dtype == np.float32
    lengths = np.linalg.norm(half, axis=1) * np.linalg.norm(whole, axis=1)
    cosines = (half * whole).sum(axis=1) / lengths
    assert cosines.min() > 0.999
    assert (half != whole).any()


def test_long_texts_are_cut_at_max_tokens(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, max_tokens=8, encoder_dtype="float32")
    short, long = encode(["one two three four five six", "one two three four five six seven eight"],
                         settings, CPU)  # fmt: skip
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_only_new_texts_are_encoded_and_equal_ones_once(tmp_path: Path, letters: Letters) -> None:
    settings = settings_of(tmp_path, encoder="letters")
    first = encode(["b", "aaa", "b"], settings, CPU)
    second = encode(["cc", "aaa", "b", "cc"], settings, CPU)
    assert letters.calls == [["b", "aaa"], ["cc"]]
    np.testing.assert_array_equal(first, [[1, 98], [3, 97], [1, 98]])
    np.testing.assert_array_equal(second, [[2, 99], [3, 97], [1, 98], [2, 99]])


@pytest.mark.parametrize("changed", [{"pooling": "cls"}, {"max_tokens": 32}])
def test_other_settings_have_a_cache_of_their_own(
    tmp_path: Path, letters: Letters, changed: dict[str, object]
) -> None:
    encode(["a"], settings_of(tmp_path, encoder="letters"), CPU)
    encode(["a"], settings_of(tmp_path, encoder="letters", **changed), CPU)
    assert len(letters.calls) == 2


def test_a_damaged_cache_is_replaced_with_a_warning(
    tmp_path: Path, letters: Letters, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, encoder="letters")
    before = encode(["a", "bb"], settings, CPU)
    (path,) = (tmp_path / "features").iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING, "snowdrop"):
        after = encode(["a", "bb"], settings, CPU)
    np.testing.assert_array_equal(after, before)
    assert "encoding again" in caplog.text
    encode(["a", "bb"], settings, CPU)
    assert len(letters.calls) == 2


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, letters: Letters, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "snowdrop"):
        features = encode(["a"], settings_of(tmp_path / "file", encoder="letters"), CPU)
    np.testing.assert_array_equal(features, [[1, 97]])
    assert "encoded again next time" in caplog.text


def test_an_unknown_encoder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    settings = settings_of(tmp_path, encoder=str(tmp_path / "empty"))
    with pytest.raises(SnowdropError, match="cannot be loaded") as refusal:
        encode(["a"], settings, CPU)
    assert "\n" not in str(refusal.value)
    assert "local folder, or 'minilm'" in str(refusal.value)


def test_batches_are_made_of_texts_of_like_length(tmp_path: Path) -> None:
    """Bit for bit: the batches decide on the padding, and with it on the last digits."""
    settings = settings_of(tmp_path, max_tokens=16, encoder_dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    bert = AutoModel.from_pretrained(bundled_model()).eval()
    expected = np.zeros((4, 384), np.float32)
    with torch.inference_mode():
        for at in ([1, 2, 0], [3]):
            batch = [TEXTS[k] for k in at]
            tokens = tokenizer(
                batch, padding=True, truncation=True, max_length=16, return_tensors="pt"
            )
            hidden = bert(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            expected[at] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    np.testing.assert_array_equal(encode(TEXTS, settings, CPU), expected)


def test_a_registered_encoder_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server_app.modality.text.TEXT_ENCODERS", known := dict(TEXT_ENCODERS))
    encoder = Letters("mine")
    asked: list[tuple[RunSettings, torch.device]] = []

    def made(settings: RunSettings, device: torch.device) -> Letters:
        asked.append((settings, device))
        return encoder

    register_text_encoder("mine", made)
    assert known.keys() == TEXT_ENCODERS.keys() | {"mine"}
    settings = settings_of(tmp_path, encoder="mine")
    np.testing.assert_array_equal(encode(["aa"], settings, CPU), [[2, 97]])
    assert asked == [(settings, CPU)]


def test_an_encoder_without_identity_is_never_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Letters("")
    monkeypatch.setitem(TEXT_ENCODERS, "themes", lambda *_: encoder)
    settings = settings_of(tmp_path, encoder="themes")
    for _ in range(2):
        np.testing.assert_array_equal(encode(["b", "aa", "b"], settings, CPU)[:, 0], [1, 2, 1])
    assert encoder.calls == [["b", "aa"]] * 2
    assert list(tmp_path.iterdir()) == []


def test_caches_of_before_stay_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name, the digests and the format of a cache file are fixed."""
    monkeypatch.setattr(HuggingFaceText, "encode", forbidden)
    buffer = io.BytesIO()
    digests = ["2fc1b2a4a0b0fdbbd1f4cd36e1c0c7d2", content_digest(b"Snow")]
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(buffer, digests=np.asarray(digests), features=features)
    path = tmp_path / "features" / "bert-tiny-cls-a83bcccaa457.npz"
    write_checked(path, buffer.getvalue())
    settings = settings_of(
        tmp_path,
        encoder="prajjwal1/bert-tiny",
        pooling="cls",
        max_tokens=32,
        encoder_dtype="float32",
    )
    np.testing.assert_array_equal(encode(["Snow"], settings, CPU), features[1:])


def test_a_cache_file_holds_digests_and_features(tmp_path: Path, letters: Letters) -> None:
    encode(["Snow"], settings_of(tmp_path, encoder="letters"), CPU)
    (path,) = (tmp_path / "features").iterdir()
    assert path.name.startswith("letters-mean-")
    with np.load(io.BytesIO(read_checked(path))) as stored:
        assert stored["digests"].tolist() == ["4f946da92e825d36f42d76f8d7972309"]
        np.testing.assert_array_equal(stored["features"], [[4, ord("S")]])


@pytest.mark.parametrize("made", [np.zeros((1, 3)), np.zeros(2), np.zeros((2, 0))])
def test_features_of_another_shape_are_refused(
    tmp_path: Path, letters: Letters, monkeypatch: pytest.MonkeyPatch, made: np.ndarray
) -> None:
    monkeypatch.setattr(Letters, "encode", lambda *_: made)
    with pytest.raises(SnowdropError, match=r"it must make \(2, c\)"):
        encode(["a", "b"], settings_of(tmp_path, encoder="letters"), CPU)


def test_another_width_under_the_same_identity_is_refused(
    tmp_path: Path, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, encoder="letters")
    encode(["a"], settings, CPU)
    monkeypatch.setattr(Letters, "encode", lambda *_: np.zeros((1, 3)))
    with pytest.raises(SnowdropError, match=r"makes 3 numbers of one input, and .* holds 2"):
        encode(["b"], settings, CPU)


def test_progress_tells_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])
    progress = modality_base.Progress("texts", 40, 100.0)
    with caplog.at_level(logging.INFO, "snowdrop"):
        for second, count, work in ((4, 5, 20), (10, 5, 20), (14, 10, 20), (16, 10, 20)):
            clock[0] = second
            progress.step(count, work)
    assert [record.getMessage() for record in caplog.records] == [
        "encoded 10 of 40 texts in 10 s, about 15 s left",
        "encoded 30 of 40 texts in 16 s, about 4 s left",
    ]


def test_the_cache_of_a_folder_knows_its_name_the_settings_and_its_files(tmp_path: Path) -> None:
    def identity(folder: str, **changed: object) -> str:
        settings = settings_of(tmp_path, encoder=str(tmp_path / folder), **changed)
        return text_encoder(settings, CPU).identity

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    seen = [identity("one"), identity("two"), identity("one", pooling="cls")]
    seen.append(identity("one", max_tokens=32))
    (tmp_path / "one" / "weights").write_text("1")
    seen.append(identity("one"))
    assert len(set(seen)) == len(seen)
    assert identity("one").splitlines()[:3] == [str(tmp_path / "one"), "mean", "256"]


def test_progress_counts_letters_since_long_texts_take_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, float]] = []
    monkeypatch.setattr(modality_base.Progress, "step", lambda _, *step: steps.append(step))
    encode(["aa", "b", "cccc", "ddd"], settings_of(tmp_path), CPU)
    assert steps == [(3, 9), (1, 1)]
