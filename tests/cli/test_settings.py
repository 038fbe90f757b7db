"""`snowdrop settings`."""

import pytest
from typer.testing import CliRunner

from cli.commands import app
from common import methods
from common.methods import Card
from common.settings import RunSettings
from tests.synthesizers import drawn

__all__ = ["drawn"]


def shown(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Words of each line of the table by its first word."""
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, ["settings", *arguments])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    return {words[0]: words[1:] for words in lines}


@pytest.mark.parametrize("method", ["mixture", "cs-fcf", "ipfedrec:frozen", "tfidf-profile"])
def test_every_setting_of_a_method_is_listed_with_its_value(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown("--method", method, monkeypatch=monkeypatch)
    values = RunSettings.parse({"method": method}).flat()
    assert set(lines) == {"setting", *values}
    assert {name: lines[name][0] for name in ("method", "dim", "rounds", "server_lr")} == {
        name: str(values[name]) for name in ("method", "dim", "rounds", "server_lr")
    }
    assert lines["average"][-2:] == ["users,", "touches"]


def test_published_values_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown("--method", "ipfedrec", "--preset", "paper", monkeypatch=monkeypatch)
    assert lines["setting"][0] == "paper"
    assert lines["ipfedrec.pull"][0] == "10.0"
    assert lines["item_lr_per_item"][0] == "True"


def test_the_preset_chooses_the_method_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch=monkeypatch)["method"][0] == "one-round"
    paper = shown("--preset", "paper", monkeypatch=monkeypatch)
    assert (paper["method"][0], paper["mdifffr.denoiser"][0]) == ("mdifffr", "paper")


def test_a_synthesizers_own_settings_are_listed(
    drawn: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown("--method", "drawn", monkeypatch=monkeypatch)
    assert set(lines) == {"setting", *(f"drawn.{name}" for name in drawn.settings.model_fields)}
    assert lines["drawn.epochs"][0] == "2"
    assert shown("--method", "drawn:paper", monkeypatch=monkeypatch)["drawn.epochs"][0] == "5"
    paper = shown("--method", "drawn:copying", "--preset", "paper", monkeypatch=monkeypatch)
    assert (paper["drawn.epochs"][0], paper["drawn.copies"][0]) == ("5", "0.5")


def test_every_method_is_listed_with_its_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown("--methods", monkeypatch=monkeypatch)
    assert list(lines)[1:] == [*methods.names(), *methods.synthesizers()]
    assert lines["mdifffr"][0] == "trained" and lines["random"][0] == "floor"
    assert lines["mdifffr"][-2:] == ["feature-start,", "frozen"]
    assert "frozen" not in lines["kernel-ridge"]


def test_an_unknown_method_is_one_sentence() -> None:
    result = CliRunner().invoke(app, ["settings", "--method", "popular"])
    assert result.exit_code == 1
    assert "method 'popular' is unknown; choose from one-round, " in str(result.exception)
