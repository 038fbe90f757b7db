"""What is remembered of registered keys, over a `flwr` that does what each test says."""

from typing import Any

import pytest

from common.errors import SnowdropError
from deploy import folder as federation_folder
from deploy import local
from tests.deploy.test_credentials import Made


class FakeFlower:
    """Takes every key once, and knows no id that it did not give."""

    connection = "fed"

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.fails = False

    def json(self, *arguments: str) -> dict[str, Any]:
        if arguments[1] == "list":
            return {"nodes": [{"node-id": one} for one in self.ids]}
        if arguments[1] == "unregister":
            self.ids.remove(arguments[2])
            return {}
        if self.fails:
            raise SnowdropError("flwr supernode failed")
        if any(one.endswith(arguments[2][-20:]) for one in self.ids):
            raise SnowdropError("flwr supernode failed: [code: 23] Public key already in use.")
        self.ids.append(f"id-{len(self.ids)}-{arguments[2][-20:]}")
        return {"node-id": self.ids[-1]}


def test_a_key_that_was_given_up_is_not_given_up_again(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    flower = FakeFlower()
    monkeypatch.setattr(local, "connection", lambda *_: flower)
    assert local.register(*made) == ["node-0", "node-1"]
    assert local.register(*made) == []
    federation_folder.give_key(made[0], "node-0")
    flower.fails = True
    with pytest.raises(SnowdropError):
        local.register(*made)
    flower.fails = False
    assert local.register(*made) == ["node-0"]
    assert {node["id"] for node in local.registered(made[0]).values()} == set(flower.ids)


@pytest.mark.parametrize("name", ["node-0", "node-1"])
def test_a_key_that_was_registered_without_being_written_down_is_found_again(
    made: Made, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A command that was interrupted may have ended between the two."""
    flower = FakeFlower()
    monkeypatch.setattr(local, "connection", lambda *_: flower)
    local.register(*made)
    known = local.registered(made[0])
    local._remember(made[0], {other: one for other, one in known.items() if other != name})
    assert local.register(*made) == [name]
    assert local.registered(made[0]) == known
    flower.ids.append("id-of-somebody")
    local._remember(made[0], {other: one for other, one in known.items() if other != name})
    with pytest.raises(SnowdropError, match="already in use"):
        local.register(*made)


def test_a_node_that_came_before_the_superlink_is_not_yet_back(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restored SuperLink takes nodes for online that were so when it was backed up."""
    flower = FakeFlower()
    monkeypatch.setattr(local, "connection", lambda *_: flower)
    local.register(*made)
    elapsed = zip(flower.ids, (4.0, 300.0), strict=True)
    listed = [
        {"node-id": node, "status": "online", "online-elapsed": seconds}
        for node, seconds in elapsed
    ]
    monkeypatch.setattr(flower, "json", lambda *_: {"nodes": listed})
    assert local.online(*made, within=5.0) == {"node-0"}
    assert local.online(*made) == {"node-0", "node-1"}
    listed[0]["status"] = "offline"
    assert local.online(*made) == {"node-1"}
