"""What every recommender of the evaluation can do."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from cli.bench_synthetic.protocol import Material
from client_app.synthesis.base import Watch, unwatched

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Recommender(ABC):
    """Learns from users, and scores all items for the reported ones.

    Parameters
    ----------
    published : bool
        Whether it has the slips of the published code.
    device : torch.device
        Where it is trained.
    """

    title: ClassVar[str]
    """As tables show it."""
    effort: ClassVar[float] = 1.0
    """About how long it takes in comparison to others, for the time left."""

    def __init__(self, published: bool, device: "torch.device") -> None:
        self.published, self.device = published, device

    def counts(self) -> Literal["rated", "likes"]:
        """Which items of the reported users are folded in and held out."""
        return "rated" if self.published else "likes"

    @property
    def whole_ideal(self) -> bool:
        """Whether the ideal list of NDCG is full of hits, however few items are held out."""
        return False

    @property
    def drops_unknown(self) -> bool:
        """Whether a held-out item that cannot be recommended is not counted as missed."""
        return False

    @abstractmethod
    def fit(self, material: Material, seed: int, watch: Watch = unwatched) -> None:
        """Learn from users.

        Raises
        ------
        SnowdropError
            If there is too little to learn from, or numbers overflow.
        """

    @abstractmethod
    def scores(self, rows: slice) -> "Tensor":
        """Scores of all items for some of the reported users, float32 (users, items).

        −∞ where an item cannot be recommended; items that were folded in are left to the caller.
        """
