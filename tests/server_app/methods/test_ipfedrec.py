"""IFedRec's attribute network: it learns, goes on from a state, and is what nodes are pulled to."""

from typing import Any

import torch

from common.settings import RunSettings
from server_app.methods.ipfedrec import IPFedRec

CPU = torch.device("cpu")


def network_of(**changed: Any) -> IPFedRec:
    own = {"fit_steps": 300, "lr": 0.01, "condition_noise": 0.0, "refit": True, **changed}
    values = {f"ipfedrec.{name}": value for name, value in own.items()}
    settings = RunSettings.parse({"method": "ipfedrec", "dim": 4, **values})
    return IPFedRec("ipfedrec", 4, 6, settings, CPU)


def make_items() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    conditions = torch.randn(50, 6, generator=draw)
    return torch.tanh(conditions @ torch.randn(6, 4, generator=draw)), conditions


def test_it_learns_the_map() -> None:
    target, conditions = make_items()
    generator = network_of(fit_batch=256)
    before = (generator.generate(conditions, 0) - target).square().mean()
    loss = generator.fit(target, conditions, seed=1)
    after = (generator.generate(conditions, 0) - target).square().mean()
    assert after < 0.05 * before
    assert loss < 0.1 * before


def test_going_on_from_a_checkpoint_changes_nothing() -> None:
    target, conditions = make_items()
    whole, first, second = (network_of(refit=False, fit_steps=5) for _ in range(3))
    for seed in (1, 2):
        whole.fit(target, conditions, seed)
    first.fit(target, conditions, 1)
    second.load_state_dict(first.state_dict())
    second.fit(target, conditions, 2)
    assert torch.equal(whole.generate(conditions, 0), second.generate(conditions, 0))


def test_nodes_are_pulled_to_what_it_makes_where_there_is_a_pull() -> None:
    pulling, alone = network_of(pull=0.5), network_of(pull=0.0)
    assert pulling.mapping is pulling
    assert alone.mapping is None


def test_noise_on_conditions_is_noise() -> None:
    """A constant in place of it would be learnt away by the bias of the first layer."""
    seen: list[torch.Tensor] = []
    generator = network_of(condition_noise=0.5)
    generator._network = lambda condition: seen.append(condition) or condition[:, :4]  # type: ignore[assignment, func-returns-value]
    generator._loss(torch.zeros(4_000, 4), torch.ones(4_000, 6))
    noise = seen[0] - 1
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 0.5) < 0.02
