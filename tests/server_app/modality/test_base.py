"""Models of Hugging Face that cannot be had: told at once, and nothing is left behind."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from cli.in_process import InProcessGrid
from cli.simulate import check_data
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.modality import base, check_encoders, encode
from server_app.modality.base import local_files_only
from server_app.run import run
from tests.server_app.modality.conftest import CPU, settings_of

MODEL = "nobody/such-model"
UNREACHABLE = (
    "the Hugging Face Hub cannot be reached, and this machine has no copy of the model; give"
)
Asked = list[str]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], Asked]:
    """Let the Hub answer with an error, or be content; returns what it is asked for."""

    def answers(error: Exception | None) -> Asked:
        asked: Asked = []
        base._without_the_hub.cache_clear()

        def ask(url: str) -> None:
            asked.append(url)
            if error:
                raise error

        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", ask)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
        return asked

    return answers


def test_a_hub_that_cannot_be_reached_is_asked_once(
    tmp_path: Path, hub: Callable[[Exception | None], Asked], caplog: pytest.LogCaptureFixture
) -> None:
    asked = hub(ConnectionError("no network"))
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(SnowdropError, match=f"^encoder '{MODEL}' cannot be loaded: {UNREACHABLE}"),
    ):
        encode(["a"], settings_of(tmp_path, encoder=MODEL), CPU)
    assert len(asked) == 1
    assert asked[0].endswith(f"{MODEL}/resolve/main/config.json")
    assert not caplog.text
    assert not list(tmp_path.iterdir())


def test_a_model_that_was_downloaded_is_read_without_the_hub(
    hub: Callable[[Exception | None], Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(ConnectionError("no network"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "/cache/config.json")
    assert local_files_only("encoder", MODEL, ())


@pytest.mark.parametrize("error", [None, HfHubHTTPError("busy", response=Mock())])
def test_a_hub_that_answers_is_left_to_transformers(
    hub: Callable[[Exception | None], Asked], error: Exception | None
) -> None:
    hub(error)
    assert not local_files_only("encoder", MODEL, ())


def test_a_process_asks_the_hub_once_for_each_model_that_it_has(
    hub: Callable[[Exception | None], Asked],
) -> None:
    asked = hub(None)
    for model in (MODEL, MODEL, "nobody/another"):
        local_files_only("encoder", model, ())
    assert len(asked) == 2


def test_a_name_that_the_hub_does_not_know_is_one_sentence(
    hub: Callable[[Exception | None], Asked],
) -> None:
    hub(RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found", response=Mock()))
    with pytest.raises(SnowdropError, match="has no such model, or shows it after a login alone; "):
        local_files_only("image_encoder", MODEL, ("pixels",))


def test_a_folder_is_not_asked_for(
    tmp_path: Path, hub: Callable[[Exception | None], Asked]
) -> None:
    asked = hub(None)
    assert local_files_only("encoder", str(tmp_path), ())
    with pytest.raises(SnowdropError, match="there is no such folder, and no model has a name"):
        local_files_only("encoder", str(tmp_path / "absent"), ())
    assert not asked


def small_run(data: Path, folder: Path, **changed: Any) -> RunSettings:
    values = {"data": str(data), "run_dir": str(folder / "run"), "encoder": MODEL, **changed}
    return RunSettings.parse({"encode_cache": str(folder / "cache"), **values})


def test_an_encoder_that_cannot_be_had_leaves_no_run_behind(
    data: Path, tmp_path: Path, hub: Callable[[Exception | None], Asked]
) -> None:
    asked = hub(ConnectionError("no network"))
    settings = small_run(data, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SnowdropError, match=UNREACHABLE):
        check_data(settings)
    with pytest.raises(SnowdropError, match=UNREACHABLE):
        check_data(settings.model_copy(update={"data": "demo"}))
    with pytest.raises(SnowdropError, match=UNREACHABLE):
        run(InProcessGrid(1, settings.flat()), settings)
    assert sorted(tmp_path.rglob("*")) == before
    assert len(asked) == 3


def test_an_encoder_that_is_not_needed_is_not_asked_for(
    data: Path, tmp_path: Path, hub: Callable[[Exception | None], Asked]
) -> None:
    asked = hub(ConnectionError("no network"))
    check_encoders(data, small_run(data, tmp_path, encoder="minilm", image_encoder=MODEL))
    cached = tmp_path / "cache" / "features" / "such-model-mean-0.npz"
    cached.parent.mkdir(parents=True)
    cached.touch()
    check_encoders(data, small_run(data, tmp_path))
    cached.unlink()
    np.save(data / "text.features.npy", np.zeros((5, 2)))
    check_encoders(data, small_run(data, tmp_path))
    assert not asked


def test_an_encoder_of_images_that_cannot_be_had_is_told_too(
    data: Path, tmp_path: Path, hub: Callable[[Exception | None], Asked]
) -> None:
    hub(ConnectionError("no network"))
    settings = small_run(data, tmp_path, encoder="minilm", image_encoder=MODEL)
    settings = settings.model_copy(update={"modalities": "text,image"})
    with pytest.raises(SnowdropError, match=f"^image_encoder '{MODEL}' cannot be loaded"):
        check_encoders(data, settings)
