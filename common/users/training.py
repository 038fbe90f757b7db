"""One round of local training, every user of the node at once, each as if alone.

Algorithm 1, line 18 of MDiffFR (the local training of PFedRec): a user holds E with its own copy
of the rows that it touches. For each batch: a forward pass and an SGD step on the head, a fresh
forward pass and an SGD step on the touched rows, with the binary cross-entropy of equation 1 as
the mean over the batch. Interactions and negatives are distinct, so a sample is a row.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from common.settings import TrainingSettings
from common.users.heads import HEADS, Head, State
from common.users.mechanism import mechanism_of
from common.users.negatives import draw_negatives
from common.users.ragged import Ragged
from common.users.randomness import mix, stream, uniform

CHUNK_NUMBERS = 2**21
"""Numbers of float32 that a chunk of users may take for its rows and its heads' states."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a chunk of users, padded to the longest: all (users, width)."""

    items: Tensor  # int64, rows of the item table; 0 where padded
    labels: Tensor  # float32, 1 for interactions
    real: Tensor  # float32, 0 where padded
    shuffle: np.ndarray  # uint64 (users,), streams that order the samples


@dataclass(frozen=True, eq=False)
class RoundResult:
    """Sums over the users that trained."""

    change: Tensor  # float32 (warm, d): Σ_u (E_u − E), noise included
    touches: Tensor  # int64 (warm,)
    loss_sum: float
    users: int


class Pull(Protocol):
    """A further gradient on item embeddings, which also moves rows that a user does not touch."""

    def step(self, rows: Tensor, samples: Samples, active: Tensor) -> Tensor:
        """What one batch adds to the rows of all users that have such a batch.

        Parameters
        ----------
        rows : Tensor, float32 (users, width, d)
        samples : Samples
        active : Tensor, float32 (users,)
            1 for users that have the batch.
        """
        ...

    def elsewhere(self, samples: Samples, batches: Tensor) -> Tensor:
        """L1 norm of each user's change on rows that it does not touch, float32 (users,)."""
        ...

    def note(self, samples: Samples, batches: Tensor, kept: Tensor) -> None:
        """Add users whose change is kept by the share ``kept``, float32 (users,), to `change`."""
        ...

    def change(self) -> Tensor:
        """Sum over the noted users of the change on rows that each does not touch, (warm, d)."""
        ...


def train_round(
    table: Tensor,
    state: State,
    interactions: Ragged,
    keys: np.ndarray,
    round_number: int,
    settings: TrainingSettings,
    pull: Pull | None = None,
) -> tuple[State, RoundResult]:
    """Train every user that takes part in this round.

    Parameters
    ----------
    table : Tensor, float32 (warm, d)
        The item table E.
    state : State
        Heads of all users, float32 (users, …); not changed.
    interactions : Ragged
        Warm interactions of all users.
    keys : ndarray, uint64 (users,)
    round_number : int
    settings : TrainingSettings
    pull : Pull, optional
        A further gradient on the item embeddings.

    Returns
    -------
    state : State
        Heads after the round.
    result : RoundResult
    """
    head = HEADS[settings.head]
    new_state = {name: tensor.clone() for name, tensor in state.items()}
    change = torch.zeros_like(table)
    touches = torch.zeros(len(table), dtype=torch.int64)
    loss_sum = 0.0
    mechanism = mechanism_of(settings)
    participants = _participants(keys, round_number, settings.fraction)
    for users in _chunks(interactions, participants, head, settings):
        samples = draw_samples(
            interactions.take(users), keys[users], round_number, settings.negatives, len(table)
        )
        chunk = {name: tensor[users] for name, tensor in new_state.items()}
        moved, losses, batches = _train_chunk(head, table, chunk, samples, settings, pull)
        elsewhere = torch.zeros(len(users)) if pull is None else pull.elsewhere(samples, batches)
        kept = mechanism.kept(moved, elsewhere)
        if mechanism.bounds:
            moved = moved * kept[:, None, None]
        if pull is not None:
            pull.note(samples, batches, kept)
        change.index_add_(0, samples.items.flatten(), moved.flatten(0, 1))
        touches.index_add_(0, samples.items.flatten(), samples.real.flatten().long())
        loss_sum += float(losses.double().sum())
        for name, tensor in chunk.items():
            new_state[name][users] = tensor
    if pull is not None:
        change += pull.change()
    change += mechanism.noise(len(participants), tuple(table.shape))
    return new_state, RoundResult(change, touches, loss_sum, len(participants))


def draw_samples(
    interactions: Ragged, keys: np.ndarray, round_number: int, negatives: int, item_count: int
) -> Samples:
    """Interactions and fresh negatives of each user, in a padded layout."""
    counts, drawn = draw_negatives(
        stream(keys, "negatives", round_number),
        interactions.offsets,
        interactions.items,
        negatives,
        item_count,
    )
    positives = interactions.counts
    width = int((positives + counts).max())
    items = np.zeros((len(keys), width), np.int64)
    place = np.arange(width)
    is_positive = place < positives[:, None]
    real = place < (positives + counts)[:, None]
    items[is_positive] = interactions.items
    items[real & ~is_positive] = drawn
    return Samples(
        items=torch.from_numpy(items),
        labels=torch.from_numpy(is_positive.astype(np.float32)),
        real=torch.from_numpy(real.astype(np.float32)),
        shuffle=stream(keys, "shuffle", round_number),
    )


def batch_order(samples: Samples, epoch: int) -> Tensor:
    """A random order of each user's samples, padding last, int64 (users, width)."""
    noise = uniform(mix(samples.shuffle + np.uint64(epoch)), samples.items.shape[1])
    noise[samples.real.numpy() == 0] = 2.0
    return torch.from_numpy(np.argsort(noise, axis=1, kind="stable"))


def _participants(keys: np.ndarray, round_number: int, fraction: float) -> np.ndarray:
    if fraction == 1:
        return np.arange(len(keys))
    chance = uniform(stream(keys, "participation", round_number), 1)[:, 0]
    return np.flatnonzero(chance < fraction)


def _chunks(
    interactions: Ragged, users: np.ndarray, head: Head, settings: TrainingSettings
) -> list[np.ndarray]:
    """Users of similar sample counts together, each chunk within `CHUNK_NUMBERS`."""
    counts = interactions.counts[users] * (1 + settings.negatives)
    order = users[np.argsort(-counts, kind="stable")]
    widths = np.sort(counts)[::-1]
    chunks, begin = [], 0
    while begin < len(order):
        each = int(widths[begin]) * settings.dim + head.state_size(settings.dim)
        end = begin + max(1, CHUNK_NUMBERS // each)
        chunks.append(order[begin:end])
        begin = end
    return chunks


def item_rate(settings: TrainingSettings, warm: int) -> float:
    """Learning rate of the item embeddings where there are ``warm`` warm items."""
    return settings.item_lr * (warm if settings.item_lr_per_item else 1)


def _train_chunk(
    head: Head,
    table: Tensor,
    state: State,
    samples: Samples,
    settings: TrainingSettings,
    pull: Pull | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Train a chunk of users; ``state`` is replaced in place.

    Returns
    -------
    moved : Tensor, float32 (users, width, d)
        E_u − E on each user's rows.
    losses : Tensor, float32 (users,)
        Mean loss of each user over its batches, each before the step on the head.
    batches : Tensor, float32 (users,)
        Batches that each user had.
    """
    item_lr = item_rate(settings, len(table))
    width = samples.items.shape[1]
    rows = table[samples.items]
    moved = torch.zeros_like(rows)
    loss_total = torch.zeros(len(rows))
    batches = torch.zeros(len(rows))
    for epoch in range(settings.local_epochs):
        whole = not settings.batch_size or settings.batch_size >= width
        order = None if whole else batch_order(samples, epoch)
        for begin in range(0, width, width if whole else settings.batch_size):
            batch = None if order is None else order[:, begin : begin + settings.batch_size]
            loss, step = _batch_step(head, state, rows, samples, batch, settings.head_lr, item_lr)
            loss_total += loss
            active = _pick(samples.real, batch).amax(1)
            batches += active
            pulled = None if pull is None else pull.step(rows, samples, active)
            if batch is None:
                moved += step
                rows = rows + step if epoch + 1 < settings.local_epochs else rows
            else:
                where = batch[:, :, None].expand(-1, -1, rows.shape[2])
                moved.scatter_add_(1, where, step)
                rows.scatter_add_(1, where, step)
            if pulled is not None:
                moved += pulled
                rows += pulled
    return moved, loss_total / batches, batches


def _pick(values: Tensor, batch: Tensor | None) -> Tensor:
    """Columns of a batch: all of them, or (users, batch) places of each user's own."""
    if batch is None:
        return values
    if values.dim() == 2:
        return values.gather(1, batch)
    return values.gather(1, batch[:, :, None].expand(-1, -1, values.shape[2]))


def _batch_step(
    head: Head,
    state: State,
    rows: Tensor,
    samples: Samples,
    batch: Tensor | None,
    head_lr: float,
    item_lr: float,
) -> tuple[Tensor, Tensor]:
    """SGD on the heads, then on the rows with a fresh forward pass; losses and the rows' step."""
    labels, real = _pick(samples.labels, batch), _pick(samples.real, batch)
    picked = _pick(rows, batch)
    weights = real / real.sum(1, keepdim=True).clamp(min=1)

    leaves = {name: tensor.detach().requires_grad_() for name, tensor in state.items()}
    losses = _losses(head, leaves, picked, labels, weights)
    gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
    for (name, tensor), gradient in zip(leaves.items(), gradients, strict=True):
        state[name] = tensor.detach() - head_lr * gradient

    leaf = picked.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(_losses(head, state, leaf, labels, weights).sum(), leaf)
    return losses.detach(), gradient.mul_(-item_lr)


def _losses(head: Head, state: State, rows: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Equation 1 as a mean over each user's batch, float32 (users,)."""
    logits = head.logits(state, rows)
    return (binary_cross_entropy_with_logits(logits, labels, reduction="none") * weights).sum(1)
