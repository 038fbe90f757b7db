"""Scoring heads: what turns a user's private state and an item embedding into a score.

A head's state is a dictionary of tensors whose first dimension is the users; all users are scored
at once. Adding a head is one class and one line in `HEADS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.settings import TrainingSettings
from common.users.randomness import stream, uniform

State = dict[str, Tensor]


class Head(ABC):
    """One form of scoring function f(e_u, e_i) of equation 2, for many users at once."""

    @abstractmethod
    def shapes(self, dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """Shape of each tensor of one user's state, and the bound of its uniform random start."""

    @abstractmethod
    def logits(self, state: State, rows: Tensor) -> Tensor:
        """Scores before the sigmoid.

        Parameters
        ----------
        state : State
            Tensors float32 (users, …).
        rows : Tensor, float32 (users, items, d)
            Item embeddings, each user's own.

        Returns
        -------
        Tensor, float32 (users, items)
        """

    def fresh(self, keys: np.ndarray, settings: TrainingSettings) -> State:
        """The state of users that never trained.

        Parameters
        ----------
        keys : ndarray, uint64 (users,)
            Users' keys: a random start depends on them alone.
        """
        shapes = self.shapes(settings.dim)
        sizes = [int(np.prod(shape)) for shape, _ in shapes.values()]
        if self.starts_at_zero(settings):
            numbers = torch.zeros(len(keys), sum(sizes))
        else:
            starts = stream(keys, "head")
            numbers = torch.from_numpy(uniform(starts, sum(sizes)).astype(np.float32) * 2 - 1)
        return {
            name: part.reshape(-1, *shape) * bound
            for (name, (shape, bound)), part in zip(
                shapes.items(), numbers.split(sizes, dim=1), strict=True
            )
        }

    def starts_at_zero(self, settings: TrainingSettings) -> bool:
        """Whether users start from zeros rather than at random."""
        return False

    def scores(self, state: State, items: Tensor) -> Tensor:
        """Scores of the same items for all users, float32 (users, items).

        Parameters
        ----------
        state : State
            Tensors float32 (users, …).
        items : Tensor, float32 (items, d)
        """
        users = len(next(iter(state.values())))
        return self.logits(state, items.expand(users, -1, -1))

    def flat(self, parts: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
        """Some parts of heads as one vector each, float32 (…, numbers).

        Parameters
        ----------
        parts : Mapping[str, Tensor]
            Tensors float32 (…, shape of the part).
        names : Sequence[str]
            The parts, in the order in which they stand in the vector; one at least.
        """
        shapes = {name: parts[name].dim() - len(self.shapes(1)[name][0]) for name in names}
        return torch.cat([parts[name].flatten(shapes[name]) for name in names], dim=-1)

    def parts(self, vector: Tensor, names: Sequence[str], dim: int) -> State:
        """What `flat` made one vector of, tensors float32 (…, shape of the part).

        Parameters
        ----------
        vector : Tensor, float32 (…, numbers)
        names : Sequence[str]
        dim : int
            Dimensions d of an item embedding.
        """
        shapes = {name: self.shapes(dim)[name][0] for name in names}
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        pieces = vector.split(sizes, dim=-1)
        return {
            name: piece.reshape(*vector.shape[:-1], *shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }

    def size(self, names: Sequence[str], dim: int) -> int:
        """Numbers in some parts of one head."""
        return sum(int(np.prod(self.shapes(dim)[name][0])) for name in names)

    def state_size(self, dim: int) -> int:
        """Numbers in one user's state."""
        return self.size(list(self.shapes(dim)), dim)


class LinearHead(Head):
    """w_u · e_i + b_u (PFedRec; the head of IPFedRec and MDiffFR)."""

    def shapes(self, dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        return {"weight": ((dim,), dim**-0.5), "bias": ((1,), dim**-0.5)}

    def starts_at_zero(self, settings: TrainingSettings) -> bool:
        return settings.head_start == "zero"

    def scores(self, state: State, items: Tensor) -> Tensor:
        return torch.addmm(state["bias"], state["weight"], items.T)

    def logits(self, state: State, rows: Tensor) -> Tensor:
        return torch.baddbmm(state["bias"].unsqueeze(2), rows, state["weight"].unsqueeze(2))[
            :, :, 0
        ]


class DotHead(Head):
    """e_u · e_i, a user embedding times an item embedding (FCF)."""

    def shapes(self, dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        return {"user": ((dim,), dim**-0.5)}

    def scores(self, state: State, items: Tensor) -> Tensor:
        return state["user"] @ items.T

    def logits(self, state: State, rows: Tensor) -> Tensor:
        return torch.bmm(rows, state["user"].unsqueeze(2))[:, :, 0]


class MlpHead(Head):
    """A network 2d → d → 1 with ReLU on (e_u ⊕ e_i), all of it the user's own (IFedNCF)."""

    def shapes(self, dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        inner, outer = (2 * dim) ** -0.5, dim**-0.5
        return {
            "user": ((dim,), 1.0),
            "user_weight": ((dim, dim), inner),
            "item_weight": ((dim, dim), inner),
            "hidden_bias": ((dim,), inner),
            "weight": ((dim,), outer),
            "bias": ((1,), outer),
        }

    def logits(self, state: State, rows: Tensor) -> Tensor:
        # W (e_u ⊕ e_i) = W_u e_u + W_i e_i: the first part is the same for all items of a user.
        user = torch.bmm(state["user"].unsqueeze(1), state["user_weight"])
        hidden = torch.baddbmm(user, rows, state["item_weight"]) + state["hidden_bias"].unsqueeze(1)
        return torch.baddbmm(
            state["bias"].unsqueeze(2), hidden.relu(), state["weight"].unsqueeze(2)
        )[:, :, 0]


HEADS: dict[str, Head] = {"linear": LinearHead(), "dot": DotHead(), "mlp": MlpHead()}
