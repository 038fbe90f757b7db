"""How many users choose the share of what a federation has learnt."""

from typing import Any

import pytest

from common.settings import RunSettings
from server_app import shares
from server_app.methods.base import Scoring
from server_app.shares import asked_of_some


@pytest.mark.parametrize(
    ("changed", "share"),
    [
        ({}, 30 / 40),
        ({"fraction": 0.5}, 30 / 80),
        ({"federated": 0.5, "fraction": 0.5}, 30 / 160),
        ({"nodes": 8, "nodes_per_round": 2}, 30 / 160),
        ({"nodes": 2, "nodes_per_round": 4}, 30 / 40),
    ],
)
def test_users_are_asked_as_a_share_of_all_of_whom_some_took_part(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], share: float
) -> None:
    monkeypatch.setattr(shares, "ASKED", 30)
    settings = RunSettings.parse(changed)
    assert asked_of_some(Scoring("any", {}), 40, settings).arrays["asked"] == pytest.approx(share)


def test_all_are_asked_where_they_are_few() -> None:
    scoring = Scoring("any", {})
    assert (
        asked_of_some(scoring, shares.ASKED // 2, RunSettings.parse({"fraction": 0.5})) is scoring
    )
