"""Item embeddings for groups of users, fused from the group and an item's modalities.

Zhang, Zhang, Long, Xue, Xia and Yang, "Multimodal-enhanced Federated Recommendation: A Group-wise
Fusion Approach", WWW 2026 (arXiv 2509.19955). A group and each modality of an item give a token of
d numbers; a fusion module makes one embedding of them, which is trained towards the group's mean
item embedding with the mean squared error. In the published code gates multiply nothing, items of a
batch attend to each other, and a batch shares one routing; here gates multiply their tokens, and
attention and routing are each item's own.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.device import one_thread
from server_app.methods.network import OPTIMIZERS

ITEMS_AT_ONCE = 4096
"""Items whose embeddings are made at once, for all groups."""

DROPPED = 0.5
"""Share of the router's hidden numbers that are dropped while it trains, as published."""


class Sum(nn.Module):
    """The sum of the tokens."""

    def __init__(self, tokens: int, dim: int, width: int) -> None:
        super().__init__()

    def forward(self, tokens: Tensor) -> Tensor:
        """float32 (…, tokens, d) → (…, d), as in all modules."""
        return tokens.sum(-2)


class Mlp(nn.Sequential):
    """One hidden layer of ``width`` on all tokens side by side."""

    def __init__(self, tokens: int, dim: int, width: int) -> None:
        super().__init__(
            nn.Flatten(-2), nn.Linear(tokens * dim, width), nn.ReLU(), nn.Linear(width, dim)
        )


class Gate(nn.Module):
    """W [σ(G_1 x_1 + c_1) ⊙ x_1, …] + b: each token is multiplied by a gate of its own."""

    def __init__(self, tokens: int, dim: int, width: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(tokens))
        self.out = nn.Linear(tokens * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        gated = [
            gate(token).sigmoid() * token
            for gate, token in zip(self.gates, tokens.unbind(-2), strict=True)
        ]
        return self.out(torch.cat(gated, -1))


class Attention(nn.Module):
    """Self-attention of one head among the tokens of an item, then W on all of them."""

    def __init__(self, tokens: int, dim: int, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, 1, batch_first=True)
        self.out = nn.Linear(tokens * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        flat = tokens.flatten(0, -3)
        mixed, _ = self.attention(flat, flat, flat, need_weights=False)
        return self.out(mixed.reshape(tokens.shape).flatten(-2))


class Mixture(nn.Module):
    """Sum, mlp and gate, weighted by a softmax that each item has of its own."""

    def __init__(self, tokens: int, dim: int, width: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(made(tokens, dim, width) for made in (Sum, Mlp, Gate))
        count = len(self.experts)
        self.router = nn.Sequential(
            nn.Linear(count * dim, dim), nn.ReLU(), nn.Dropout(DROPPED), nn.Linear(dim, count)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        made = torch.stack([expert(tokens) for expert in self.experts], -2)
        return (self.router(made.flatten(-2)).softmax(-1).unsqueeze(-1) * made).sum(-2)


FUSIONS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "sum": Sum, "mlp": Mlp, "gate": Gate, "attention": Attention, "mixture": Mixture
}  # fmt: skip


class Network(nn.Module):
    """Tokens of groups and modalities, and what fuses them.

    Parameters
    ----------
    fusion : str
        One of `FUSIONS`.
    groups : int
    sizes : Sequence[int]
        Numbers of an item in each modality.
    dim : int
        d of an item embedding, and of a token.
    width : int
    """

    def __init__(
        self, fusion: str, groups: int, sizes: Sequence[int], dim: int, width: int
    ) -> None:
        super().__init__()
        self.groups = nn.Parameter(torch.empty(groups, dim))
        self.inputs = nn.ModuleList(nn.Linear(size, dim) for size in sizes)
        self.fuse = FUSIONS[fusion](1 + len(sizes), dim, width)
        for part in self.parameters():
            nn.init.xavier_normal_(part) if part.dim() > 1 else nn.init.zeros_(part)

    def forward(self, groups: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Embeddings of items for groups, float32 (groups, items, d).

        Parameters
        ----------
        groups : Tensor, int64 (groups,)
        features : Sequence[Tensor]
            Of each modality, float32 (items, c).
        """
        shape = len(groups), len(features[0]), -1
        tokens = [self.groups[groups][:, None].expand(shape)]
        tokens += [
            made(rows).expand(shape) for made, rows in zip(self.inputs, features, strict=True)
        ]
        fused: Tensor = self.fuse(torch.stack(tokens, 2))
        return fused


class Fusion:
    """The network with its optimiser, which goes on from round to round.

    Parameters
    ----------
    network : Network
    optimizer : str
        One of `server_app.methods.network.OPTIMIZERS`.
    lr, weight_decay : float
    device : torch.device
        Where it is trained; tensors go in and come out on the CPU.
    """

    def __init__(
        self, network: Network, optimizer: str, lr: float, weight_decay: float, device: torch.device
    ) -> None:
        self._network, self._device = network.to(device).eval(), device
        self._optimizer: torch.optim.Optimizer = OPTIMIZERS[optimizer](
            network.parameters(), lr=lr, weight_decay=weight_decay
        )

    def fit(
        self,
        groups: Tensor,
        targets: Tensor,
        features: Sequence[Tensor],
        steps: int,
        batch: int,
        seed: int,
        noise: float = 0.0,
        weights: Tensor | None = None,
    ) -> float:
        """Train towards the groups' item embeddings; the mean loss of the steps.

        Parameters
        ----------
        groups : Tensor, int64 (groups,)
        targets : Tensor, float32 (groups, items, d)
        features : Sequence[Tensor]
            Of each modality, float32 (items, c).
        steps, batch : int
            Each step has ``batch`` items, for all of the groups.
        seed : int
            All randomness comes from it.
        noise : float
            Standard deviation of the noise on features.
        weights : Tensor, optional
            How much each item counts, float32 (groups, items), of mean 1; None: all alike.
        """
        if weights is None:
            weights = torch.ones(targets.shape[:2])
        groups, targets, weights, *parts = (
            one.to(self._device) for one in (groups, targets, weights, *features)
        )
        total = torch.zeros((), device=self._device)
        cuda = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.enable_grad(), one_thread():
            torch.manual_seed(seed)
            self._network.train()
            for at in _batches(targets.shape[1], steps, batch):
                rows = at.to(self._device)
                read = [part[rows] for part in parts]
                if noise:
                    read = [part + noise * torch.randn_like(part) for part in read]
                made = self._network(groups, read)
                loss = ((made - targets[:, rows]).square().mean(2) * weights[:, rows]).mean()
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self._optimizer.step()
                total += loss.detach()
            self._network.eval()
        return float(total) / steps

    @torch.no_grad()
    def make(self, groups: Tensor, features: Sequence[Tensor]) -> Iterator[Tensor]:
        """Embeddings of all items for groups, some items at a time, float32 (groups, part, d)."""
        with one_thread():
            for rows in torch.arange(len(features[0])).split(ITEMS_AT_ONCE):
                parts = [one[rows].to(self._device) for one in features]
                yield self._network(groups.to(self._device), parts).cpu()

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to go on."""
        return {"network": self._network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])


def _batches(items: int, steps: int, batch: int) -> Iterator[Tensor]:
    """Rows of each step, int64 (batch,): passes over all items in random order."""
    done = 0
    while done < steps:
        for at in torch.randperm(items).split(batch):
            if done == steps:
                return
            yield at
            done += 1
