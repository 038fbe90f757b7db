"""Which methods have a pull, and how strong it is."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client_app.methods import half_of
from client_app.methods.base import Local
from client_app.methods.ipfedrec import IPFedRec
from common.errors import SnowdropError
from common.settings import RunSettings
from common.users.heads import HEADS
from common.users.pull import MappedPull
from common.users.ragged import Ragged
from common.users.randomness import user_keys
from tests.common.users.test_pull import BATCHES, DIM, MAPPED, SAMPLES, TABLE, WARM


def local(
    arrays: dict[str, np.ndarray], method: str = "ipfedrec", **values: Any
) -> tuple[Tensor, Local]:
    run = RunSettings.parse({"method": method, "dim": DIM, **values})
    keys = user_keys(b"s", ["ann"])
    settings = run.training()
    histories = Ragged(np.array([0, 2]), np.array([1, 4]))
    fresh = HEADS[settings.head].fresh(keys, settings)
    return TABLE, Local(settings, histories, keys, arrays, WARM, 0, lambda: fresh)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("ipfedrec", {"ipfedrec.pull": 2.0}),
        ("ifedncf", {"ifedncf.pull": 2.0}),
        ("mixture", {"mixture.first": "ipfedrec", "ipfedrec.pull": 2.0}),
    ],
)
def test_a_method_with_a_pull_takes_its_own_strength(method: str, values: dict[str, Any]) -> None:
    own = local({"mapped": MAPPED.numpy()}, method, **values)
    pull = half_of(method).pull(*own)
    assert isinstance(pull, MappedPull)
    expected = MappedPull(TABLE, MAPPED, 2.0, own[1].settings)
    rows = TABLE[SAMPLES.items]
    one, other = (each.step(rows, SAMPLES, BATCHES) for each in (pull, expected))
    assert torch.equal(one, other)
    assert one.any()


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("ipfedrec", {"ipfedrec.pull": 0}),
        ("ridge", {}),
        ("mixture", {}),
        ("mixture", {"mixture.first": "ridge", "mixture.second": "ipfedrec", "ipfedrec.pull": 2}),
    ],
)
def test_what_has_no_pull(method: str, values: dict[str, Any]) -> None:
    own = local({"mapped": MAPPED.numpy()}, method, **values)
    assert half_of(method).pull(*own) is None


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "^train with a pull carries no mapped embeddings"),
        ({"mapped": MAPPED.numpy()[1:]}, r"'mapped' has shape \(8, 3\), expected \(9, 3\)"),
    ],
)
def test_a_pull_needs_what_the_server_maps(arrays: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        IPFedRec("ipfedrec").pull(*local(arrays))
