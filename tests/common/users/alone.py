"""One user's round on copies of everything, by autograd: what chunks of users are compared with."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from common.discrete import STEP
from common.settings import TrainingSettings
from common.users.heads import State
from common.users.ragged import Ragged
from common.users.training import RoundResult, batch_order, draw_samples


def in_numbers(result: RoundResult, membership: float = 0.0) -> RoundResult:
    """The sums as numbers, float32, where they count whole steps."""
    if result.change.is_floating_point():
        return result
    members = result.members
    if members is not None and membership:
        members = (members * STEP).float()
    scorer = {name: (part * STEP).float() for name, part in result.scorer.items()}
    change = (result.change * STEP).float()
    return replace(result, change=change, scorer=scorer, members=members)


def plain_scores(head: str, state: State, rows: Tensor) -> Tensor:
    """Scores of one user's rows, float32 (items,), as the papers write them."""
    if head == "linear":
        return rows @ state["weight"] + state["bias"]
    if head == "dot":
        return rows @ state["user"]
    both = torch.cat([state["user"].expand(len(rows), -1), rows], dim=1)
    matrix = torch.cat([state["user_weight"], state["item_weight"]])
    return torch.relu(both @ matrix + state["hidden_bias"]) @ state["weight"] + state["bias"]


@dataclass
class Alone:
    """A user that trains for a round.

    Parameters
    ----------
    settings : TrainingSettings
    head : State
        Its own parts of the scoring head, and those that all users share.
    rates : dict[str, float]
        Learning rates of the parts.
    table : Tensor, float32 (warm, d)
        Its copy of the shared item table.
    own : Tensor, optional
        An item table of its own, float32 (warm, d).
    difference, sparsity : float
        α and β, where it has one.
    own_rate : float
    by_sum : bool
        Whether rows step down the sum of losses.
    teacher : Tensor, optional
        Probability of each item, float32 (warm,).
    distil : float
        Weight of KL(teacher ‖ prediction).
    temperature : float
        What scores are divided by for it.
    ratio : float, optional
        Running mean of (cross-entropy) / KL, by which the weight is multiplied; 0: none yet.
    """

    settings: TrainingSettings
    head: State
    rates: dict[str, float]
    table: Tensor
    own: Tensor | None = None
    difference: float = 0.0
    sparsity: float = 0.0
    own_rate: float = 1.0
    by_sum: bool = False
    teacher: Tensor | None = None
    distil: float = 0.0
    temperature: float = 1.0
    ratio: float | None = None

    def scores(self, head: State, table: Tensor, own: Tensor | None, items: Tensor) -> Tensor:
        rows = table[items] if own is None else table[items] + own[items]
        return plain_scores(self.settings.head, head, rows)

    def losses(self, scores: Tensor, items: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The cross-entropy, and all that depends on the scores."""
        entropy = binary_cross_entropy_with_logits(scores, labels)
        if self.teacher is None:
            return entropy, entropy
        t, p = self.teacher[items], torch.sigmoid(scores / self.temperature)
        kl = (t * (t / p).log() + (1 - t) * ((1 - t) / (1 - p)).log()).mean()
        weight = self.distil * self.temperature**2
        if self.ratio is not None:
            now = min(100.0, entropy.item() / kl.item())
            self.ratio = 0.9 * self.ratio + 0.1 * now if self.ratio else now
            weight *= self.ratio
        return entropy, entropy + weight * kl

    def train(self, items: np.ndarray, key: np.ndarray, number: int) -> tuple[float, Tensor]:
        """Train for a round: the mean loss, and how often each row was sampled."""
        s, warm = self.settings, len(self.table)
        alone = Ragged(np.array([0, len(items)]), items)
        samples = draw_samples(alone, key, number, s.negatives, warm)
        everything, labels = samples.items[0], samples.labels[0]
        item_lr = s.item_lr * (warm if s.item_lr_per_item else 1)
        losses = []
        for epoch in range(s.local_epochs):
            for batch in batch_order(samples, epoch)[0].split(s.batch_size or len(everything)):
                losses.append(self.step(everything[batch], labels[batch], item_lr))
        return float(np.mean(losses)), torch.bincount(everything, minlength=warm)

    def step(self, items: Tensor, labels: Tensor, item_lr: float) -> float:
        leaves = {name: part.clone().requires_grad_() for name, part in self.head.items()}
        scores = self.scores(leaves, self.table, self.own, items)
        entropy, whole = self.losses(scores, items, labels)
        whole.backward()
        self.head = {n: (p - self.rates[n] * p.grad).detach() for n, p in leaves.items()}
        table = self.table.clone().requires_grad_()
        own = None if self.own is None else self.own.clone().requires_grad_()
        _, whole = self.losses(self.scores(self.head, table, own, items), items, labels)
        if own is not None:
            gap = ((own[items] - table[items]) ** 2).mean()
            whole = whole - self.difference * gap + self.sparsity * table[items].abs().mean()
        if self.by_sum:
            whole = whole * len(items)
        whole.backward()
        self.table = (table - item_lr * table.grad).detach()
        if own is not None:
            self.own = (own - item_lr * self.own_rate * own.grad).detach()
        return entropy.item()
