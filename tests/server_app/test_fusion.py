"""Each fusion module against a plain loop over groups and items, and its training."""

import numpy as np
import pytest
import torch
from torch import Tensor

from server_app import fusion
from server_app.fusion import FUSIONS, Fusion, Network

GROUPS, ITEMS, DIM, WIDTH, SIZES = 3, 7, 4, 5, (6, 2)
DRAW = torch.Generator().manual_seed(5)
FEATURES = [torch.randn(ITEMS, size, generator=DRAW) for size in SIZES]


def network_of(name: str, seed: int = 1) -> Network:
    torch.manual_seed(seed)
    made = Network(name, GROUPS, SIZES, DIM, WIDTH)
    for part in made.parameters():
        torch.nn.init.normal_(part, std=0.7)  # biases, too
    return made.eval()


def fusion_of(name: str, lr: float = 0.01, optimizer: str = "adamw") -> Fusion:
    return Fusion(network_of(name), optimizer, lr, 0.0, torch.device("cpu"))


def linear(part: torch.nn.Module, row: Tensor) -> Tensor:
    assert isinstance(part, torch.nn.Linear)
    return part.weight @ row + part.bias


def plain(name: str, module: torch.nn.Module, tokens: list[Tensor]) -> Tensor:
    """One item of one group, as the papers write it."""
    if name == "sum":
        return tokens[0] + tokens[1] + tokens[2]
    beside = torch.cat(tokens)
    if name == "mlp":
        assert isinstance(module, fusion.Mlp)
        return linear(module[3], linear(module[1], beside).relu())
    if name == "gate":
        assert isinstance(module, fusion.Gate)
        gated = [linear(g, t).sigmoid() * t for g, t in zip(module.gates, tokens, strict=True)]
        return linear(module.out, torch.cat(gated))
    if name == "attention":
        assert isinstance(module, fusion.Attention)
        weight, bias = module.attention.in_proj_weight, module.attention.in_proj_bias
        q, k, v = (
            [weight[j * DIM : (j + 1) * DIM] @ t + bias[j * DIM : (j + 1) * DIM] for t in tokens]
            for j in range(3)
        )
        mixed = []
        for one in q:
            shares = torch.stack([one @ other for other in k]).div(DIM**0.5).softmax(0)
            seen = sum(share * value for share, value in zip(shares, v, strict=True))
            mixed.append(linear(module.attention.out_proj, seen))
        return linear(module.out, torch.cat(mixed))
    assert isinstance(module, fusion.Mixture)
    names = ("sum", "mlp", "gate")
    made = [plain(n, one, tokens) for n, one in zip(names, module.experts, strict=True)]
    hidden = linear(module.router[0], torch.cat(made)).relu()
    shares = linear(module.router[3], hidden).softmax(0)
    return shares[0] * made[0] + shares[1] * made[1] + shares[2] * made[2]


@pytest.mark.parametrize("name", FUSIONS)
def test_a_module_is_that_of_each_item_and_group_alone(name: str) -> None:
    network = network_of(name)
    groups = torch.tensor([2, 0])
    with torch.no_grad():
        made = network(groups, FEATURES)
        assert made.shape == (2, ITEMS, DIM)
        for row, group in enumerate(groups):
            for item in range(ITEMS):
                tokens = [network.groups[group]]
                for part, features in zip(network.inputs, FEATURES, strict=True):
                    tokens.append(linear(part, features[item]))
                expected = plain(name, network.fuse, tokens)
                torch.testing.assert_close(made[row, item], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_an_item_does_not_depend_on_those_beside_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, groups = fusion_of(name), torch.arange(GROUPS)
    whole = torch.cat(list(one.make(groups, FEATURES)), 1)
    monkeypatch.setattr(fusion, "ITEMS_AT_ONCE", 2)
    parts = list(one.make(groups, FEATURES))
    assert [part.shape[1] for part in parts] == [2, 2, 2, 1]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


@pytest.mark.parametrize("name", FUSIONS)
def test_training_comes_from_the_seed_and_goes_on(name: str) -> None:
    groups, targets = torch.arange(GROUPS), torch.randn(GROUPS, ITEMS, DIM, generator=DRAW)
    losses = {}
    for key, stops in {"whole": [None], "cut": [1], "other": [None]}.items():
        one = fusion_of(name)
        seeds = [3, 4] if key != "other" else [5, 6]
        first = one.fit(groups, targets, FEATURES, 5, 3, seeds[0])
        if stops[0]:
            again = fusion_of(name)
            again.restore(one.state())
            one = again
        losses[key] = first, one.fit(groups, targets, FEATURES, 5, 3, seeds[1])
    assert losses["whole"] == losses["cut"]
    assert losses["whole"] != losses["other"]


@pytest.mark.parametrize("name", FUSIONS)
def test_it_learns_what_groups_and_items_share(name: str) -> None:
    draw = torch.Generator().manual_seed(1)
    of_group = torch.randn(GROUPS, 1, DIM, generator=draw)
    of_item = FEATURES[0] @ torch.randn(SIZES[0], DIM, generator=draw)
    targets, groups = of_group + of_item, torch.arange(GROUPS)
    one = fusion_of(name, lr=0.02)
    first = one.fit(groups, targets, FEATURES, 1, ITEMS, 0)
    one.fit(groups, targets, FEATURES, 400, ITEMS, 1)
    made = torch.cat(list(one.make(groups, FEATURES)), 1)
    assert float((made - targets).square().mean()) < 0.2 * first


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_is_that_of_plain_sgd(weighted: bool) -> None:
    weights = torch.rand(2, ITEMS, generator=DRAW) if weighted else torch.ones(2, ITEMS)
    one, targets = fusion_of("mlp", 0.1, "sgd"), torch.randn(2, ITEMS, DIM, generator=DRAW)
    groups, network = torch.tensor([0, 2]), network_of("mlp")
    loss = 0.0
    for row, group in enumerate(groups):
        for item in range(ITEMS):
            made = network(group[None], [part[item : item + 1] for part in FEATURES])[0, 0]
            loss = loss + weights[row, item] * (made - targets[row, item]).square().sum()
    loss = loss / (2 * ITEMS * DIM)
    loss.backward()  # type: ignore[attr-defined]
    given = weights if weighted else None
    made_loss = one.fit(groups, targets, FEATURES, 1, ITEMS, 0, weights=given)
    assert made_loss == pytest.approx(loss.item())  # type: ignore[attr-defined]
    after = one.state()["network"]
    for name, part in network.named_parameters():
        expected = part - 0.1 * (torch.zeros_like(part) if part.grad is None else part.grad)
        torch.testing.assert_close(after[name], expected)


def test_steps_are_passes_in_random_order() -> None:
    torch.manual_seed(1)
    steps = list(fusion._batches(5, 5, 2))
    assert [len(one) for one in steps] == [2, 2, 1, 2, 2]
    assert sorted(torch.cat(steps[:3]).tolist()) == list(range(5))
    assert len(list(fusion._batches(5, 2, 100))) == 2
    assert np.array_equal(np.sort(next(fusion._batches(4, 1, 9))), np.arange(4))
