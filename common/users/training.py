"""One round of local training, every user of the node at once, each as if alone.

Algorithm 1, line 18 of MDiffFR (the local training of PFedRec): a user holds E with its own copy
of the rows that it touches. For each batch: a forward pass and an SGD step on the head, a fresh
forward pass and an SGD step on the touched rows, with the binary cross-entropy of equation 1 as
the mean over the batch. Interactions and negatives are distinct, so a sample is a row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from common.settings import TrainingSettings
from common.users.heads import HEADS, Head, State
from common.users.mechanism import Mechanism, mechanism_of, powers
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
    """Sums over the users that trained; where these are in groups, each sum has a row a group."""

    change: Tensor
    """(warm, d): Σ_u (E_u − E), noise included; float32, or with Gaussian noise int64, in whole
    steps of 2⁻³⁰, as all that carries noise."""
    touches: Tensor  # int64 (warm,)
    loss_sum: float
    users: int
    scorer: State = field(default_factory=dict)
    """Σ_u (θ_u − θ) of each part of the shared scorer, or Σ_u θ_u of a private part that is told,
    noise included."""
    members: Tensor | None = None
    """Users of each group, int64 (groups,); or `Beside.membership` times as many, with noise."""


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

    def elsewhere(self, samples: Samples, batches: Tensor, order: int = 1) -> Tensor:
        """Σ |x|^order of each user's change on rows that it does not touch, float (users,)."""
        ...

    def note(self, samples: Samples, batches: Tensor, kept: Tensor, mechanism: Mechanism) -> None:
        """Add users to `change`, of whose change the share ``kept`` is kept, float (users,)."""
        ...

    def change(self) -> Tensor:
        """Sum over the noted users of the change on rows that each does not touch, (warm, d).

        Of the mechanism's dtype.
        """
        ...


class Personal(Protocol):
    """Rows of an item table of each user's own, which are added to those of the shared table."""

    rate: float
    """Their learning rate, as a multiple of that of the shared rows."""

    def rows(self, users: np.ndarray, samples: Samples) -> Tensor:
        """Each user's own rows as the round finds them, float32 (users, width, d)."""
        ...

    def gradients(self, own: Tensor, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of a further loss on a user's own rows and on its copy of the shared ones.

        Parameters
        ----------
        own, rows : Tensor, float32 (users, batch, d)
        weights : Tensor, float32 (users, batch)
            Of each sample in the mean over a user's batch.
        """
        ...

    def keep(self, users: np.ndarray, samples: Samples, own: Tensor) -> None:
        """Take over users' own rows as the round leaves them, float32 (users, width, d)."""
        ...


class LogitLoss(Protocol):
    """A further loss on users' scores of their samples, such as a distance to a teacher's."""

    def losses(
        self, users: np.ndarray, samples: Samples, batch: Tensor | None, logits: Tensor
    ) -> Tensor:
        """The loss of each user on one batch, float32 (users,); it has a gradient.

        Parameters
        ----------
        users : ndarray, int64 (users,)
            Numbers of the users.
        samples : Samples
        batch : Tensor, int64 (users, batch), optional
            Columns of the samples that are in the batch; None for all of them.
        logits : Tensor, float32 (users, batch)
            Scores before the sigmoid; padding, where ``samples.real`` is 0, does not count.
        """
        ...


class Groups(Protocol):
    """Groups of users, by which sums are kept apart."""

    count: int

    def of(self, users: np.ndarray, state: State) -> Tensor:
        """The group of each user, int64 (users,), which a user can tell from its own state.

        Parameters
        ----------
        users : ndarray, int64 (users,)
            Numbers of the users.
        state : State
            Their heads, and their own copies of the shared scorer, at the end of the round.
        """
        ...


@dataclass(frozen=True, eq=False)
class Beside:
    """What a method trains, or adds to the loss, beside heads and the item table."""

    scorer: Mapping[str, Tensor] = field(default_factory=dict)
    """Parts of the head that all users share: each trains a copy, and what leaves is its change."""
    scorer_lr: float = 0.0
    rows_by_sum: bool = False
    """Whether rows step down the sum of a batch's losses, and not their mean."""
    personal: Personal | None = None
    loss: LogitLoss | None = None
    groups: Groups | None = None
    told: tuple[str, ...] = ()
    """Private parts of the heads whose sums over users leave the node beside those of `scorer`."""
    membership: float = 0.0
    """What a user adds to the size of its group, which then carries noise; 0: users are counted."""
    forgiving: bool = False
    """Whether users whose numbers overflow stay as before; so it is with noise, too."""


def train_round(
    table: Tensor,
    state: State,
    interactions: Ragged,
    keys: np.ndarray,
    round_number: int,
    settings: TrainingSettings,
    pull: Pull | None = None,
    beside: Beside | None = None,
) -> tuple[State, RoundResult]:
    """Train every user that takes part in this round.

    What a user gives to the sums of all groups together is one vector: in the block of its group
    its change, that of the shared scorer, the private parts that are told and its membership, and
    zeros in all other blocks. The mechanism bounds the norm of all of it by C, and adds noise to
    every entry of every block. Two values of a user, in one group or in two, differ by at most
    2 C, since each has a norm of at most C; a user that is not there gives zeros, which differ by
    at most C. Which group it is follows from the user's own parameters and what the server has
    told, so no other user's part depends on it.

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
        A further gradient on the item embeddings; it knows no groups.
    beside : Beside, optional

    Returns
    -------
    state : State
        Heads after the round.
    result : RoundResult
    """
    beside = beside or Beside()
    if pull is not None and beside.groups is not None:
        raise ValueError("a pull knows no groups of users")
    mechanism = mechanism_of(settings, beside.membership)
    asked = participants(keys, round_number, settings.fraction)
    new_state = {name: tensor.clone() for name, tensor in state.items()}
    told = {name: torch.zeros(state[name].shape[1:]) for name in beside.told}
    sums = _Sums(table, {**beside.scorer, **told}, beside.groups, mechanism)
    for trained in train_users(
        asked, table, state, interactions, keys, round_number, settings, pull, beside
    ):
        if settings.hides_losses or beside.forgiving:
            trained = without_overflow(trained, state, beside)
        users, samples = trained.users, trained.samples
        elsewhere = sums.scorer_powers(trained)
        if pull is not None:
            elsewhere = elsewhere + pull.elsewhere(samples, trained.batches, mechanism.order)
        kept = mechanism.kept(trained.moved, elsewhere)
        if pull is not None:
            pull.note(samples, trained.batches, kept, mechanism)
        sums.add(trained, kept)
        for name in state:
            new_state[name][users] = trained.state[name]
        if beside.personal is not None and trained.own is not None:
            beside.personal.keep(users, samples, trained.own)
    if pull is not None:
        sums.change += pull.change()
    return new_state, sums.result(beside.membership)


@dataclass(frozen=True, eq=False)
class Trained:
    """A chunk of users at the end of a round."""

    users: np.ndarray  # int64 (users,)
    samples: Samples
    state: State
    """Heads, and each user's own copy of the shared scorer, float32 (users, …)."""
    moved: Tensor  # float32 (users, width, d): E_u − E on each user's rows
    own: Tensor | None  # float32 (users, width, d): the rows of its own item table
    losses: Tensor  # float32 (users,): mean over its batches, each before the step on the head
    batches: Tensor  # float32 (users,): batches that each user had


def train_users(
    users: np.ndarray,
    table: Tensor,
    state: State,
    interactions: Ragged,
    keys: np.ndarray,
    round_number: int,
    settings: TrainingSettings,
    pull: Pull | None = None,
    beside: Beside | None = None,
) -> Iterator[Trained]:
    """Train some users for one round, chunk by chunk; nothing that is given is changed.

    Parameters
    ----------
    users : ndarray, int64 (users,)
        Numbers of the users that train; all else is as for `train_round`.
    """
    beside = beside or Beside()
    head = HEADS[settings.head]
    for chunk in _chunks(interactions, users, head, settings, beside):
        samples = draw_samples(
            interactions.take(chunk), keys[chunk], round_number, settings.negatives, len(table)
        )
        own = {name: tensor[chunk] for name, tensor in state.items()}
        copies = {
            name: shared.expand(len(chunk), *shared.shape) for name, shared in beside.scorer.items()
        }
        yield _train_chunk(chunk, head, table, own | copies, samples, settings, pull, beside)


def without_overflow(trained: Trained, before: State, beside: Beside) -> Trained:
    """The same users, of whom those whose numbers overflowed are as before and gave nothing.

    An error for them would tell, without noise, who has interacted with an item of which the server
    sent a row that is too large.

    Parameters
    ----------
    trained : Trained
    before : State
        Heads of all users at the begin of the round.
    beside : Beside
    """
    former = {name: tensor[trained.users] for name, tensor in before.items()}
    former |= {name: one.expand_as(trained.state[name]) for name, one in beside.scorer.items()}
    changes = [trained.moved, *(trained.state[name] - former[name] for name in former)]
    own = trained.own
    if own is not None:
        changes.append(own)
    whole = torch.isfinite(trained.losses)
    for change in changes:
        whole &= torch.isfinite(change).flatten(1).all(1)
    if whole.all():
        return trained
    if own is not None and beside.personal is not None:
        own = _where(whole, own, beside.personal.rows(trained.users, trained.samples))
    return replace(
        trained,
        state={name: _where(whole, trained.state[name], one) for name, one in former.items()},
        moved=_where(whole, trained.moved, torch.zeros_like(trained.moved)),
        own=own,
        losses=_where(whole, trained.losses, torch.zeros_like(trained.losses)),
    )


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Rows of ``one`` where ``chosen``, bool (rows,), else those of ``other``."""
    return torch.where(chosen.reshape(-1, *[1] * (one.dim() - 1)), one, other)


class _Sums:
    """Sums over users, with a row for each group.

    Parameters
    ----------
    table : Tensor, float32 (warm, d)
    scorer : Mapping[str, Tensor]
        Of each part of users' heads that leaves the node, what it is the difference to.
    by : Groups, optional
    mechanism : Mechanism
    """

    def __init__(
        self,
        table: Tensor,
        scorer: Mapping[str, Tensor],
        by: Groups | None,
        mechanism: Mechanism,
    ) -> None:
        self._scorer, self._groups, self._mechanism = scorer, by, mechanism
        dtype = mechanism.dtype
        self._rows = len(table)
        groups = 1 if by is None else by.count
        self.change = torch.zeros(groups, *table.shape, dtype=dtype)
        self._touches = torch.zeros(groups, len(table), dtype=torch.int64)
        self._moved = {
            name: torch.zeros(groups, *shared.shape, dtype=dtype)
            for name, shared in self._scorer.items()
        }
        self._members = torch.zeros(groups, dtype=torch.int64)
        self._loss = 0.0

    def scorer_powers(self, trained: Trained) -> Tensor:
        """Σ |x|^p of what leaves of each user's head, p that of the mechanism, float (users,)."""
        total = torch.zeros(len(trained.users))
        for name, shared in self._scorer.items():
            moved = powers(trained.state[name] - shared, self._mechanism.order)
            total = total + moved.flatten(1).sum(1)
        return total

    def add(self, trained: Trained, kept: Tensor) -> None:
        """Add a chunk of users, the share ``kept`` of each one's change, float (users,)."""
        samples, state = trained.samples, trained.state
        if self._groups is None:
            group = torch.zeros(len(trained.users), dtype=torch.int64)
        else:
            group = self._groups.of(trained.users, state)
        moved = self._mechanism.parts(trained.moved, kept)
        rows = (group[:, None] * self._rows + samples.items).flatten()
        self.change.flatten(0, 1).index_add_(0, rows, moved.flatten(0, 1))
        self._touches.flatten().index_add_(0, rows, samples.real.flatten().long())
        self._members += torch.bincount(group, minlength=len(self._members))
        for name, shared in self._scorer.items():
            change = self._mechanism.parts(state[name] - shared, kept)
            self._moved[name].index_add_(0, group, change)
        self._loss += float(trained.losses.double().sum())

    def result(self, membership: float) -> RoundResult:
        """The sums with the mechanism's noise; without groups, not divided by any."""
        users, mechanism = int(self._members.sum()), self._mechanism
        change = self.change + mechanism.noise(users, tuple(self.change.shape))
        scorer = {
            name: moved + mechanism.noise(users, tuple(moved.shape))
            for name, moved in self._moved.items()
        }
        if self._groups is None:
            scorer = {name: moved[0] for name, moved in scorer.items()}
            return RoundResult(change[0], self._touches[0], self._loss, users, scorer)
        members = self._members
        if membership:
            one = mechanism.parts(torch.tensor([membership], dtype=torch.float64), torch.ones(1))
            sizes = (one * members).to(mechanism.dtype)
            members = sizes + mechanism.noise(users, tuple(members.shape))
        return RoundResult(change, self._touches, self._loss, users, scorer, members)


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


def participants(keys: np.ndarray, round_number: int, fraction: float) -> np.ndarray:
    """Numbers of the users that take part in a round, each with the same chance, int64."""
    if fraction == 1:
        return np.arange(len(keys))
    chance = uniform(stream(keys, "participation", round_number), 1)[:, 0]
    return np.flatnonzero(chance < fraction)


def members(keys: np.ndarray, share: float) -> np.ndarray:
    """Which users are in the federation, each with the same chance, bool (users,).

    A user who is in a share is in every larger one.
    """
    if share == 1:
        return np.ones(len(keys), dtype=bool)
    member: np.ndarray = uniform(stream(keys, "member"), 1)[:, 0] < share
    return member


def _chunks(
    interactions: Ragged,
    users: np.ndarray,
    head: Head,
    settings: TrainingSettings,
    beside: Beside,
) -> list[np.ndarray]:
    """Users of similar sample counts together, each chunk within `CHUNK_NUMBERS`."""
    counts = interactions.counts[users] * (1 + settings.negatives)
    order = users[np.argsort(-counts, kind="stable")]
    widths = np.sort(counts)[::-1]
    row = settings.dim * (1 if beside.personal is None else 2)
    chunks, begin = [], 0
    while begin < len(order):
        each = int(widths[begin]) * row + head.state_size(settings.dim)
        end = begin + max(1, CHUNK_NUMBERS // each)
        chunks.append(order[begin:end])
        begin = end
    return chunks


def item_rate(settings: TrainingSettings, warm: int) -> float:
    """Learning rate of the item embeddings where there are ``warm`` warm items."""
    return settings.item_lr * (warm if settings.item_lr_per_item else 1)


def _train_chunk(
    users: np.ndarray,
    head: Head,
    table: Tensor,
    state: State,
    samples: Samples,
    settings: TrainingSettings,
    pull: Pull | None,
    beside: Beside,
) -> Trained:
    """Train a chunk of users; ``state`` is replaced in place."""
    rates = dict.fromkeys(state, settings.head_lr)
    rates |= dict.fromkeys(beside.scorer, beside.scorer_lr)
    item_lr = item_rate(settings, len(table))
    width = samples.items.shape[1]
    rows = table[samples.items]
    moved = torch.zeros_like(rows)
    own = None if beside.personal is None else beside.personal.rows(users, samples)
    loss_total = torch.zeros(len(rows))
    batches = torch.zeros(len(rows))
    for epoch in range(settings.local_epochs):
        whole = not settings.batch_size or settings.batch_size >= width
        order = None if whole else batch_order(samples, epoch)
        for begin in range(0, width, width if whole else settings.batch_size):
            batch = None if order is None else order[:, begin : begin + settings.batch_size]
            part = _Batch(users, samples, batch, beside.loss)
            scored = rows if own is None else rows + own
            loss, gradient = part.step(head, state, scored, rates)
            loss_total += loss
            if beside.rows_by_sum:
                gradient *= part.samples
            active = _pick(samples.real, batch).amax(1)
            batches += active
            pulled = None if pull is None else pull.step(rows, samples, active)
            if beside.personal is not None and own is not None:
                pair = _pick(own, batch), _pick(rows, batch)
                weights = (
                    part.weights * part.samples[:, :, 0] if beside.rows_by_sum else part.weights
                )
                to_own, to_shared = beside.personal.gradients(*pair, weights)
                own_lr = item_lr * beside.personal.rate
                _step(own, (gradient + to_own).mul_(-own_lr), batch)
                gradient = gradient + to_shared
            step = gradient.mul_(-item_lr)
            _step(moved, step, batch)
            _step(rows, step, batch)
            if pulled is not None:
                moved += pulled
                rows = rows + pulled
    return Trained(users, samples, state, moved, own, loss_total / batches, batches)


def _step(values: Tensor, step: Tensor, batch: Tensor | None) -> None:
    """Add a step to the columns of a batch of values, (users, width, d), in place."""
    if batch is None:
        values.add_(step)
    else:
        values.scatter_add_(1, batch[:, :, None].expand(-1, -1, values.shape[2]), step)


def _pick(values: Tensor, batch: Tensor | None) -> Tensor:
    """Columns of a batch: all of them, or (users, batch) places of each user's own."""
    if batch is None:
        return values
    if values.dim() == 2:
        return values.gather(1, batch)
    return values.gather(1, batch[:, :, None].expand(-1, -1, values.shape[2]))


class _Batch:
    """A batch of some users.

    Parameters
    ----------
    users : ndarray, int64 (users,)
    samples : Samples
    batch : Tensor, int64 (users, batch), optional
        Columns of the samples; None for all of them.
    loss : LogitLoss, optional
    """

    def __init__(
        self, users: np.ndarray, samples: Samples, batch: Tensor | None, loss: LogitLoss | None
    ) -> None:
        self._users, self._samples, self._batch, self._loss = users, samples, batch, loss
        self._labels = _pick(samples.labels, batch)
        real = _pick(samples.real, batch)
        counts = real.sum(1, keepdim=True).clamp(min=1)
        self.weights = real / counts
        self.samples = counts[:, :, None]  # float32 (users, 1, 1)

    def step(
        self, head: Head, state: State, rows: Tensor, rates: Mapping[str, float]
    ) -> tuple[Tensor, Tensor]:
        """SGD on the heads; then losses before it, and the rows' gradient by a fresh forward pass.

        Returns
        -------
        losses : Tensor, float32 (users,)
            Of equation 1 alone.
        gradient : Tensor, float32 (users, batch, d)
        """
        picked = _pick(rows, self._batch)
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in state.items()}
        losses, whole = self._losses(head.logits(leaves, picked))
        gradients = torch.autograd.grad(whole.sum(), list(leaves.values()))
        for (name, tensor), gradient in zip(leaves.items(), gradients, strict=True):
            state[name] = tensor.detach() - rates[name] * gradient
        leaf = picked.detach().requires_grad_()
        _, whole = self._losses(head.logits(state, leaf))
        (gradient,) = torch.autograd.grad(whole.sum(), leaf)
        return losses.detach(), gradient

    def _losses(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Equation 1 as a mean over each user's batch, and what is minimised; float32 (users,)."""
        entropy = binary_cross_entropy_with_logits(logits, self._labels, reduction="none")
        losses = (entropy * self.weights).sum(1)
        if self._loss is None:
            return losses, losses
        further = self._loss.losses(self._users, self._samples, self._batch, logits)
        return losses, losses + further
