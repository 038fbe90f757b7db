"""Which half a node takes, and what every half has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client_app.methods import half_of
from client_app.methods.base import Local, NodeMethod
from client_app.methods.fcf import FCF
from client_app.methods.fedncf import FedNCF
from client_app.methods.fedrap import FedRAP
from client_app.methods.gfmfr import GFMFR
from client_app.methods.group_fusion import GroupFusion
from client_app.methods.ifedncf import IFedNCF
from client_app.methods.ipfedrec import IPFedRec
from client_app.methods.mixture import Mixture
from client_app.methods.one_round import OneRound
from client_app.methods.pfedrec import PFedRec
from client_app.methods.softmax_table import SoftmaxTable
from client_app.scorers import SCORERS, Scorer
from common import methods
from common.errors import SnowdropError
from common.messages import TrainRequest
from common.methods import Card
from common.settings import RunSettings
from common.users.heads import HEADS
from common.users.ragged import Ragged
from common.users.randomness import user_keys

OWN = {
    "ipfedrec": IPFedRec,
    "ifedncf": IFedNCF,
    "mixture": Mixture,
    "fcf": FCF,
    "fedncf": FedNCF,
    "pfedrec": PFedRec,
    "fedrap": FedRAP,
    "one-round": OneRound,
    "softmax-table": SoftmaxTable,
    "gfmfr": GFMFR,
    "group-fusion": GroupFusion,
}
KEYS = user_keys(b"s", ["ann", "bob"])
HISTORIES = Ragged(np.array([0, 2, 5]), np.array([1, 4, 0, 2, 3]))
HEADER: dict[str, Any] = {"catalogue": "v", "training": "ab" * 8, "round": 1}
TABLE = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_a_half(name: str) -> None:
    half = half_of(name)
    assert type(half) is OWN.get(name, NodeMethod)
    assert half.name == name


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SnowdropError, match="method 'nobody' is unknown"):
        half_of("nobody")


class Nothing(Scorer):
    def __init__(self, local: Local) -> None: ...

    def __call__(self, users: np.ndarray) -> Tensor:
        return torch.zeros(len(users), 1)


class Outside(NodeMethod):
    scorers: Mapping[str, type[Scorer]] = {"nothing": Nothing}


@pytest.mark.parametrize(
    ("node", "sentence"),
    [("client_app.scorers:Head", "is no NodeMethod"), ("client_app.scorers:SCORERS", "is no Node"),
     ("no.such.module:Half", "cannot be imported"), (f"{__name__}:Nobody", "cannot be imported")],
)  # fmt: skip
def test_a_half_that_is_none_is_refused(
    node: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Card("outside", "Outside", "trained", "a:B", node=node)
    monkeypatch.setattr(methods, "cards", lambda: {"outside": own})
    with pytest.raises(SnowdropError, match=sentence):
        half_of("outside")


def local_of(run: RunSettings, arrays: dict[str, np.ndarray]) -> Local:
    settings = run.training()
    fresh = HEADS[settings.head].fresh(KEYS, settings)
    return Local(settings, HISTORIES, KEYS, arrays, len(TABLE), 3, lambda: fresh)


def test_a_half_brings_scorers_of_its_own() -> None:
    local = local_of(RunSettings.parse({"dim": 4}), {})
    assert isinstance(Outside("outside").scorer("nothing", local), Nothing)
    assert isinstance(Outside("outside").scorer("random", local), SCORERS["random"])
    with pytest.raises(SnowdropError, match="the scorer 'nothing' is unknown"):
        NodeMethod("ridge").scorer("nothing", local)


@pytest.mark.parametrize("average", ["touches", "users"])
def test_a_round_answers_sums_divided_by_the_scale(average: str) -> None:
    run = RunSettings.parse({"method": "ridge", "dim": 4, "average": average})
    header: dict[str, Any] = {
        "catalogue": "v",
        "training": "ab" * 8,
        "round": 1,
        "settings": run.pack(),
    }
    answers = []
    for scale in (1.0, 4.0):
        request = TrainRequest(**header, best_round=0, scale=scale, arrays={"table": TABLE})
        state, answer = half_of("ridge").train(request, local_of(run, {"table": TABLE}))
        assert set(answer.sums) == {"change", *(["touches"] if average == "touches" else [])}
        assert answer.users == 2
        assert state["weight"].any()
        answers.append(answer.sums["change"])
    np.testing.assert_array_equal(answers[0], answers[1] * 4)
    assert answers[0].any()


def test_a_mixture_trains_as_its_first_method() -> None:
    """With the same settings, the mixture's answer equals that of its first method alone."""
    shared = {"dim": 4, "ipfedrec.pull": 3.0}
    mapped = TABLE[::-1].copy()
    arrays = {"table": TABLE, "mapped": mapped}
    answers = []
    for values in ({"method": "ipfedrec"}, {"method": "mixture", "mixture.first": "ipfedrec"}):
        run = RunSettings.parse({**shared, **values})
        header: dict[str, Any] = {
            "catalogue": "v",
            "training": "ab" * 8,
            "round": 1,
            "settings": run.pack(),
        }
        request = TrainRequest(**header, best_round=0, arrays=arrays)
        half = half_of(run.training().card.name)
        answers.append(half.train(request, local_of(run, arrays))[1])
    np.testing.assert_array_equal(answers[0].sums["change"], answers[1].sums["change"])
    assert answers[0].loss_sum == answers[1].loss_sum
