"""Which modalities are made, from what, and on which device."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from common.catalogue import read_catalogue
from common.demo import demo_catalogue
from common.errors import SnowdropError
from server_app.modality import TEXT_ENCODERS, encode_features, modality_names
from tests.server_app.modality.conftest import CPU, settings_of


class Initials:
    identity = ""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[ord(t[0])] for t in texts], np.float32)


@pytest.fixture(autouse=True)
def initials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEXT_ENCODERS, "initials", lambda *_: Initials())


def made(folder: Path, modalities: str, **changed: object) -> dict[str, np.ndarray]:
    settings = settings_of(folder / "cache", modalities=modalities, encoder="initials", **changed)
    return encode_features(read_catalogue(folder, 0, settings.text_columns), folder, settings, CPU)


def test_text_alone_is_the_default(data: Path) -> None:
    assert settings_of(data).modalities == "text"
    features = made(data, "text")
    assert list(features) == ["text"]
    np.testing.assert_array_equal(features["text"][:, 0], [ord(t) for t in "ABCDE"])


def test_exactly_the_named_modalities_in_their_order(data: Path) -> None:
    np.save(data / "audio.features.npy", np.arange(10.0).reshape(5, 2))
    np.save(data / "unused.features.npy", np.zeros((1, 1)))
    features = made(data, " audio, text ")
    assert list(features) == ["audio", "text"]
    assert {name: f.dtype for name, f in features.items()} == dict.fromkeys(features, np.float32)
    np.testing.assert_array_equal(features["audio"][:, 0], [2, 6, 0, 8, 4])  # a b c d e


def test_a_features_file_replaces_the_encoder(data: Path) -> None:
    np.save(data / "text.features.npy", np.ones((5, 2)))
    np.testing.assert_array_equal(made(data, "text")["text"], np.ones((5, 2)))


@pytest.mark.parametrize("name", ["audio", "../audio"])
def test_an_unknown_modality_is_told_what_would_be_right(data: Path, name: str) -> None:
    np.save(data.parent / "audio.features.npy", np.ones((5, 2)))
    with pytest.raises(SnowdropError) as refusal:
        made(data, f"text,{name}")
    assert str(refusal.value) == (
        f"the modality '{name}' is neither text nor image nor a features file: name "
        f"text or image, or put {name}.features.npy or {name}.features.parquet into {data}"
    )


def test_generated_items_have_texts_alone(tmp_path: Path) -> None:
    catalogue = demo_catalogue(10, seed=0)
    text = encode_features(catalogue, None, settings_of(tmp_path, encoder="initials"), CPU)
    assert text["text"].shape == (10, 1)
    for name, sentence in (("image", "generated items have no images"), ("audio", "neither text")):
        with pytest.raises(SnowdropError, match=sentence):
            settings = settings_of(tmp_path, modalities=name, modality=name)
            encode_features(catalogue, None, settings, CPU)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(" , ", "modalities is empty"), ("text,image,text", "names 'text' more than once")],
)
def test_modalities_are_named_once_and_at_all(tmp_path: Path, given: str, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        modality_names(settings_of(tmp_path, modalities=given))


def test_importing_the_encoders_loads_none_of_their_libraries() -> None:
    code = (
        "import sys, server_app.modality\n"
        "print([n for n in ('torch', 'transformers', 'PIL') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_method_reads_is_loaded_as_well(data: Path) -> None:
    np.save(data / "audio.features.npy", np.arange(10.0).reshape(5, 2))
    assert list(made(data, "text", modality="audio+text")) == ["text", "audio"]
    assert modality_names(settings_of(data, modalities="a", modality="b,a:2")) == ["a", "b"]


def test_items_that_a_features_file_knows_nothing_of_are_counted(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(data / "audio.features.npy", np.array([[0, 0], [1, 0], [0, 0], [0, 2], [3, 3]]))
    with caplog.at_level("INFO", "snowdrop"):
        made(data, "audio")
    assert "audio.features.npy; 2 of 5 items have none, only zeros" in caplog.text
