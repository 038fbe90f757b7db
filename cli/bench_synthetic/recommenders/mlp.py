"""A network that reads a user's whole row of items and returns it: an autoencoder."""

import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cli.bench_synthetic.protocol import Material
from cli.bench_synthetic.recommenders.base import Recommender
from client_app.synthesis.base import Watch, unwatched
from common.errors import OverflowedError, SnowdropError

CODE = 8
WIDTHS = (512, 256, 256)
DROPOUT = 0.5
RATE = 1e-3
EPSILON = 1e-7
"""Of Adam, as Keras has it."""
BATCH = 16
EPOCHS = 200
VALIDATION = 0.2
PATIENCE = 10
MIN_DELTA = 1e-3
_CHECKED_AT_ONCE = 256
_MANY = 0.3
"""Share of the items from which it is quicker to take all of them."""


class MLP(Recommender):
    """Row of 0 and 1 → embedding of each 0 and 1 → 512 → 256 → 256 → the same row.

    The published code's network (arXiv 2311.03488, section 5.1.3, where the paper says something
    else): binary cross-entropy with the row itself as the target, Adam, dropout of one half. It
    stops when the root mean squared error on a fifth of the rows has not fallen by 0.001 for ten
    epochs, and takes the best epoch.

    ``published`` validates on the last fifth of the rows, which are synthetic ones where synthetic
    users stand last. Rows that the published code scored in its search stand last in `augment`; in
    `replace` they are trained on alone, while other synthesizers' rows stand beside what is folded
    in. Otherwise, the validation rows are a random fifth of all but the reported users' rows.
    """

    title = "MLP"
    effort = 30.0

    def fit(self, material: Material, seed: int, watch: Watch = unwatched) -> None:
        trained, checked = self._rows(material, np.random.default_rng([seed, 1]))
        if not trained.shape[0] or not checked.shape[0]:
            raise SnowdropError("there are too few users for a fifth of them to be held out")
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = Autoencoder(material.items, trained.shape[0] + checked.shape[0])
            network = network.to(self.device)
            self._network = self._train(network, trained, checked, seed, watch)
        self._shown = material.reported.likes

    def _rows(self, material: Material, draws: np.random.Generator) -> tuple[csr_array, csr_array]:
        """Rows to train on and rows to stop on."""
        real, known, made = (
            part.likes for part in (material.real, material.reported, material.synthetic)
        )
        if not self.published:
            rows = csr_array(vstack([real, made], format="csr"))
            order = draws.permutation(rows.shape[0])
            cut = int(rows.shape[0] * (1 - VALIDATION))
            trained = csr_array(vstack([rows[np.sort(order[:cut])], known], format="csr"))
            return trained, rows[np.sort(order[cut:])]
        if material.by_search:
            parts = [real, known, made] if real.shape[0] else [made]
        else:
            parts = [real, made, known]
        rows = csr_array(vstack(parts, format="csr"))
        cut = int(rows.shape[0] * (1 - VALIDATION))
        return rows[:cut], rows[cut:]

    def _train(
        self,
        network: "Autoencoder",
        trained: csr_array,
        checked: csr_array,
        seed: int,
        watch: Watch,
    ) -> "Autoencoder":
        optimizer = torch.optim.Adam(network.parameters(), RATE, eps=EPSILON, fused=True)
        draws = np.random.default_rng([seed, 2])
        best, best_state, since = math.inf, network.state_dict(), 0
        for epoch in range(EPOCHS):
            watch("training the MLP", epoch, EPOCHS)
            network.train()
            order = draws.permutation(trained.shape[0])
            for start in range(0, len(order), BATCH):
                rows = dense(trained, order[start : start + BATCH], self.device)
                optimizer.zero_grad()
                loss = binary_cross_entropy_with_logits(network(rows), rows)
                loss.backward()
                optimizer.step()
            error = self._error(network, checked)
            if not math.isfinite(error):
                raise OverflowedError(f"the numbers of the MLP overflowed in epoch {epoch + 1}")
            if error + MIN_DELTA < best:
                best, best_state, since = error, copy.deepcopy(network.state_dict()), 0
            elif (since := since + 1) == PATIENCE:
                break
        network.load_state_dict(best_state)
        return network.eval()

    @torch.no_grad()
    def _error(self, network: "Autoencoder", checked: csr_array) -> float:
        """Root mean squared error over all cells of rows."""
        network.eval()
        total = 0.0
        for start in range(0, checked.shape[0], _CHECKED_AT_ONCE):
            places = np.arange(start, min(start + _CHECKED_AT_ONCE, checked.shape[0]))
            rows = dense(checked, places, self.device)
            total += float(((torch.sigmoid(network(rows)) - rows) ** 2).sum(dtype=torch.float64))
        return math.sqrt(total / (checked.shape[0] * checked.shape[1]))

    @torch.no_grad()
    def scores(self, rows: slice) -> Tensor:
        places = np.arange(self._shown.shape[0])[rows]
        found = [
            self._network(dense(self._shown, places[at : at + _CHECKED_AT_ONCE], self.device))
            for at in range(0, len(places), _CHECKED_AT_ONCE)
        ]
        return torch.cat(found).float().cpu()


def dense(matrix: csr_array, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of a matrix, float32 (rows, items)."""
    return torch.from_numpy(matrix[rows].toarray().astype(np.float32)).to(device)


class Autoencoder(nn.Module):
    """The network of `MLP`, initialised as Keras does.

    Parameters
    ----------
    items : int
    users : int
        Rows that it is trained and validated on. The spread of the codes follows it, since the
        published embedding has as many entries as there are users, though only two are used.
    """

    def __init__(self, items: int, users: int) -> None:
        super().__init__()
        self.first = CodedRow(items, WIDTHS[0], users)
        layers: list[nn.Module] = [nn.ReLU(), nn.Dropout(DROPOUT)]
        for before, after in pairwise(WIDTHS):
            linear = nn.Linear(before, after)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU(), nn.Dropout(DROPOUT)]
        last = nn.Linear(WIDTHS[-1], items)
        bound = math.sqrt(3 / WIDTHS[-1])
        nn.init.uniform_(last.weight, -bound, bound)
        nn.init.zeros_(last.bias)
        self.rest = nn.Sequential(*layers, last)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of 0 and 1 → logits of each item, both float32 (users, items)."""
        return self.rest(self.first(rows))


class CodedRow(nn.Module):
    """Embedding of each 0 and 1 of a row, flattened, and a linear layer over that.

    With codes c₀ and c₁ and the layer's part W_i for item i, its output is
    b + Σ_i W_i c₀ + Σ_(i: x_i = 1) W_i (c₁ − c₀): users × items × 8 numbers are never made.

    Parameters
    ----------
    items, width : int
    users : int
        See `Autoencoder`.
    """

    def __init__(self, items: int, width: int, users: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.empty(2, CODE))
        spread = math.sqrt(2 / users)
        # Keras cuts at two standard deviations, and makes up for what that takes away.
        normal = spread / 0.87962566103423978
        nn.init.trunc_normal_(self.codes, std=normal, a=-2 * normal, b=2 * normal)
        self.weight = nn.Parameter(torch.empty(CODE, items, width))
        bound = math.sqrt(6 / (items * CODE + width))
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(width))
        self._gradient: Tensor | None = None

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of 0 and 1, float32 (users, items) → float32 (users, width)."""
        return _Coded.apply(rows, self.codes, self.weight, self) + self.bias

    def gradient(self) -> Tensor:
        """The weight's gradient, whatever is in it: memory that is made once."""
        if self._gradient is None or self._gradient.device != self.weight.device:
            self._gradient = torch.empty_like(self.weight, requires_grad=False)
        return self._gradient


class _Coded(torch.autograd.Function):
    """`CodedRow` without its bias. An item that nobody in the batch has is only in the sums.

    It sets the weight's gradient, and does not add to what is there: to make so large a tensor in
    each step takes longer than all else.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, codes: Tensor, weight: Tensor, layer: CodedRow) -> Tensor:
        had = rows.any(0).nonzero().squeeze(1)
        if len(had) > _MANY * rows.shape[1]:  # all of them, without a copy
            shown, parts, had = rows, weight, had[:0]
        else:
            shown, parts = rows[:, had], weight[:, had]
        summed = weight.sum(1)
        ctx.save_for_backward(had, shown, parts, summed, codes)
        ctx.layer = layer
        had_one = (codes[1] - codes[0]) @ parts.flatten(1)
        return codes[0] @ summed + shown @ had_one.view(-1, weight.shape[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        had, shown, parts, summed, codes = ctx.saved_tensors
        (grad,) = grads
        step, whole = codes[1] - codes[0], torch.outer(codes[0], grad.sum(0))[:, None]
        each = shown.T @ grad  # (items had, width)
        of_one = parts.flatten(1) @ each.flatten()
        of_weight = ctx.layer.gradient()
        if len(each) == of_weight.shape[1]:
            torch.outer(step, each.flatten(), out=of_weight.view(len(step), -1))
            of_weight += whole
        else:
            of_weight.copy_(whole.expand_as(of_weight))
            of_weight.index_add_(1, had, step[:, None, None] * each)
        ctx.layer.weight.grad = of_weight
        return None, torch.stack([summed @ grad.sum(0) - of_one, of_one]), None, None
