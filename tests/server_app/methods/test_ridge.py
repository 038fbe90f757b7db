"""The simplest maps: ridge regression, and a cold item's own features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as PlainRidge

from common.settings import RunSettings
from server_app.methods.own_features import OwnFeatures
from server_app.methods.ridge import PENALTIES, Ridge

CPU = torch.device("cpu")


@pytest.mark.parametrize("noise", [0.01, 3.0])
def test_ridge_is_the_closed_form_with_the_best_left_out_error(noise: float) -> None:
    rng = np.random.default_rng(3)
    conditions = rng.normal(size=(25, 4)).astype(np.float32)
    table = conditions @ rng.normal(size=(4, 3)) + noise * rng.normal(size=(25, 3)) + 2
    table = table.astype(np.float32)

    def left_out_error(penalty: float) -> float:
        errors = []
        for k in range(25):
            others = np.arange(25) != k
            model = PlainRidge(penalty).fit(conditions[others], table[others])
            errors.append(((model.predict(conditions[[k]]) - table[k]) ** 2).mean())
        return float(np.mean(errors))

    best = PlainRidge(min(PENALTIES, key=left_out_error)).fit(conditions, table)
    generator = Ridge("ridge", 3, 4, RunSettings(dim=3), CPU)
    loss = generator.fit(torch.from_numpy(table), torch.from_numpy(conditions), seed=0)
    cold = rng.normal(size=(6, 4)).astype(np.float32)
    made = generator.generate(torch.from_numpy(cold), seed=0)
    np.testing.assert_allclose(made.numpy(), best.predict(cold), atol=1e-3)
    assert loss == pytest.approx(((best.predict(conditions) - table) ** 2).mean(), rel=1e-3)

    again = Ridge("ridge", 3, 4, RunSettings(dim=3), CPU)
    again.load_state_dict(generator.state_dict())
    assert torch.equal(again.generate(torch.from_numpy(cold), seed=0), made)


def test_ridge_with_one_dimension() -> None:
    draw = torch.Generator().manual_seed(0)
    conditions, table = torch.randn(20, 4, generator=draw), torch.randn(20, 1, generator=draw)
    generator = Ridge("ridge", 1, 4, RunSettings(dim=1), CPU)
    generator.fit(table, conditions, seed=0)
    assert generator.generate(conditions[:7], seed=0).shape == (7, 1)


def test_an_unfitted_ridge_has_a_state() -> None:
    generator = Ridge("ridge", 3, 4, RunSettings(dim=3), CPU)
    again = Ridge("ridge", 3, 4, RunSettings(dim=3), CPU)
    again.load_state_dict(generator.state_dict())


def test_own_features_change_nothing_of_an_items_own_features() -> None:
    generator = OwnFeatures("own-features", 3, 4, RunSettings(dim=3), CPU)
    assert generator.learns_change
    assert generator.fit(torch.ones(9, 3), torch.ones(9, 4), seed=0) == 0
    assert torch.equal(generator.generate(torch.ones(5, 4), seed=0), torch.zeros(5, 3))
