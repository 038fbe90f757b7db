"""The first layer's shortcut, and which rows are trained on."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

from cli.bench_synthetic.protocol import Material, Rows
from cli.bench_synthetic.recommenders import mlp
from cli.bench_synthetic.recommenders.mlp import CODE, MLP, Autoencoder, CodedRow
from common.errors import OverflowedError

CPU = torch.device("cpu")


class Naive(nn.Module):
    """Embedding of each cell, flattened, and a linear layer, as Keras would do it."""

    def __init__(self, coded: CodedRow) -> None:
        super().__init__()
        items, width = coded.weight.shape[1:]
        self.codes = nn.Embedding(2, CODE)
        self.linear = nn.Linear(items * CODE, width)
        with torch.no_grad():
            self.codes.weight.copy_(coded.codes)
            self.linear.weight.copy_(self.flat(coded.weight))
            self.linear.bias.copy_(coded.bias)

    @staticmethod
    def flat(weight: torch.Tensor) -> torch.Tensor:
        """Codes, items, width → width, items · codes."""
        return weight.permute(2, 1, 0).flatten(1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.linear(self.codes(rows.long()).flatten(1))


@pytest.mark.parametrize("share", [0.05, 0.5])  # few of the items, and all of them
def test_the_first_layer_is_an_embedding_flattened_under_a_linear_layer(share: float) -> None:
    torch.manual_seed(0)
    coded = CodedRow(40, 6, users=10).double()
    naive = Naive(coded).double()
    optimizers = [torch.optim.Adam(model.parameters(), 0.01) for model in (coded, naive)]
    for _ in range(4):
        rows = (torch.rand(3, 40) < share).double()
        target = torch.rand(3, 6).double()
        found = []
        for model, optimizer in zip((coded, naive), optimizers, strict=True):
            optimizer.zero_grad()
            output = model(rows)
            ((output - target) ** 2).sum().backward()
            found.append(output.detach())
        assert torch.allclose(*found)
        assert coded.weight.grad is not None
        assert torch.allclose(Naive.flat(coded.weight.grad), naive.linear.weight.grad)
        assert torch.allclose(coded.codes.grad, naive.codes.weight.grad)
        assert torch.allclose(coded.bias.grad, naive.linear.bias.grad)
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(Naive.flat(coded.weight), naive.linear.weight)


def test_it_starts_as_keras_does() -> None:
    torch.manual_seed(0)
    network = Autoencoder(300, users=50)
    codes = torch.cat([CodedRow(2, 2, users=50).codes.detach() for _ in range(300)])
    assert float(codes.std()) == pytest.approx((2 / 50) ** 0.5, rel=0.05)
    bound = (6 / (300 * CODE + 512)) ** 0.5
    assert float(network.first.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    last = network.rest[-1]
    assert isinstance(last, nn.Linear)
    assert float(last.weight.detach().abs().max()) == pytest.approx((3 / 256) ** 0.5, rel=0.01)
    widths = [part.in_features for part in network.rest if isinstance(part, nn.Linear)]
    assert widths == [512, 256, 256]
    assert not network.first.bias.any()
    assert sum(isinstance(part, nn.Dropout) for part in network.rest) == 3


def numbered(first: int, users: int) -> Rows:
    """Users who can be told apart: each likes the items of its number's binary digits."""
    digits = (np.arange(first, first + users)[:, None] >> np.arange(8)) & 1
    return Rows(csr_array(digits.astype(bool)), csr_array((users, 8), dtype=bool))


def numbers(rows: csr_array) -> list[int]:
    return [int(row @ (1 << np.arange(8))) for row in rows.toarray().astype(int)]


REAL, REPORTED, MADE = (list(range(100, 110)), [1, 2, 3], list(range(200, 212)))


@pytest.mark.parametrize(
    ("mode", "by_search", "order"),
    [
        ("augment", True, [REAL, REPORTED, MADE]),
        ("augment", False, [REAL, MADE, REPORTED]),
        ("replace", True, [MADE]),
        ("replace", False, [MADE, REPORTED]),
    ],
)
def test_the_published_rows_stand_as_in_the_code_and_the_last_fifth_validates(
    mode: str, by_search: bool, order: list[list[int]]
) -> None:
    real = numbered(100, 10) if mode == "augment" else Rows.none(8)
    given = Material(real, numbered(1, 3), numbered(200, 12), by_search=by_search)
    trained, checked = MLP(True, CPU)._rows(given, np.random.default_rng(0))
    whole = [number for part in order for number in part]
    assert numbers(trained) + numbers(checked) == whole
    assert len(numbers(trained)) == int(0.8 * len(whole))


@pytest.mark.parametrize("by_search", [True, False])
def test_likes_alone_treats_all_alike_and_trains_on_all_that_is_known_of_the_reported(
    by_search: bool,
) -> None:
    given = Material(numbered(100, 10), numbered(1, 3), numbered(200, 12), by_search=by_search)
    trained, checked = MLP(False, CPU)._rows(given, np.random.default_rng(0))
    assert set(REPORTED) < set(numbers(trained))
    assert sorted(numbers(trained) + numbers(checked)) == sorted(REAL + REPORTED + MADE)
    assert len(numbers(checked)) == 22 - int(0.8 * 22)


def test_it_stops_after_ten_epochs_that_are_no_better_and_takes_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = iter([0.5, 0.4, 0.3999, *[0.41] * 30])
    states: list[dict[str, Any]] = []

    def error(self: MLP, network: Autoencoder, checked: csr_array) -> float:
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(errors)

    monkeypatch.setattr(MLP, "_error", error)
    model = MLP(True, CPU)
    model.fit(Material(numbered(100, 20), numbered(1, 3), Rows.none(8)), 0)
    assert len(states) == 12  # 0.3999 is no 0.001 better than 0.4
    best = model._network.state_dict()
    assert all(torch.equal(best[name], value) for name, value in states[1].items())


def test_the_error_is_the_root_of_the_mean_square_over_cells() -> None:
    torch.manual_seed(0)
    network = Autoencoder(8, 5)
    rows = numbered(7, 3).likes
    expected = network.eval()(torch.from_numpy(rows.toarray()).float()).sigmoid()
    gap = (expected - torch.from_numpy(rows.toarray()).float()).detach().numpy()
    assert MLP(True, CPU)._error(network, rows) == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-5)


def test_an_overflow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MLP, "_error", lambda *_: float("nan"))
    with pytest.raises(OverflowedError, match="MLP overflowed in epoch 1"):
        MLP(True, CPU).fit(Material(numbered(100, 20), numbered(1, 3), Rows.none(8)), 0)


def test_rows_are_scored_in_eval_mode_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "EPOCHS", 1)
    model = MLP(False, CPU)
    model.fit(Material(numbered(100, 20), numbered(1, 7), Rows.none(8)), 0)
    whole = model.scores(slice(0, 7))
    monkeypatch.setattr(mlp, "_CHECKED_AT_ONCE", 2)
    assert torch.allclose(model.scores(slice(2, 7)), whole[2:], atol=1e-6)
