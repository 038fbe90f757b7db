"""What a node's half may use, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from client_app.methods.base import Local, groups_of
from common.errors import SnowdropError
from common.settings import RunSettings
from common.users.heads import HEADS
from common.users.ragged import Ragged


def test_groups_that_depend_on_other_users_are_refused_with_noise() -> None:
    """Whatever the server's own settings let it send: the bound is that of one user."""
    clustered = {"method": "group-fusion", "group-fusion.grouping": "clustered", "nodes": 1}
    settings = RunSettings.parse({**clustered, "dim": 4}).training()
    own = settings.group("group-fusion")
    keys = np.arange(3, dtype=np.uint64)
    heads = HEADS[settings.head].fresh(keys, settings)
    numbers = HEADS[settings.head].size(list(heads), 4)
    local = Local(
        settings=settings,
        histories=Ragged(np.arange(4), np.arange(3)),
        keys=keys,
        arrays={"centroids": np.zeros((own.groups, numbers), np.float32)},
        warm=3,
        items=0,
        state_of=lambda: heads,
    )
    assert groups_of(local, own, list(heads)).count == own.groups
    noisy = settings.model_copy(update={"gaussian_scale": 1.0, "clip_norm": 1.0})
    with pytest.raises(SnowdropError, match="users must pick their group by themselves"):
        groups_of(replace(local, settings=noisy), own, list(heads))
