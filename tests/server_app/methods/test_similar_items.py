"""A cold item as the mean of the warm items most similar in text."""

import torch

from common.settings import RunSettings
from server_app.methods.similar_items import SimilarItems

CPU = torch.device("cpu")


def make(neighbours: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Targets, cold conditions, and what is generated for them."""
    draw = torch.Generator().manual_seed(1)
    target = torch.randn(12, 3, generator=draw)
    conditions = torch.randn(12, 5, generator=draw)
    cold = torch.randn(4, 5, generator=draw)
    settings = RunSettings.parse(
        {"dim": 3, "method": "similar-items", "similar-items.neighbours": neighbours}
    )
    generator = SimilarItems("similar-items", 3, 5, settings, CPU)
    assert not generator.generate(cold, 0).any()
    generator.fit(target, conditions, seed=0)
    made = generator.generate(cold, 0)
    again = SimilarItems("similar-items", 3, 5, settings, CPU)
    again.load_state_dict(generator.state_dict())
    assert torch.equal(again.generate(cold, 0), made)
    for row, one in zip(made, cold, strict=True):
        cosines = [float(c @ one / c.norm() / one.norm()) for c in conditions]
        nearest = sorted(range(12), key=lambda k: -cosines[k])[:neighbours]
        torch.testing.assert_close(row, sum(target[k] for k in nearest) / len(nearest))
    return target, cold, made


def test_a_cold_item_is_the_mean_of_its_nearest_warm_items() -> None:
    make(1)
    make(4)


def test_more_neighbours_than_warm_items_are_all_of_them() -> None:
    target, _, made = make(50)
    torch.testing.assert_close(made, target.mean(0).expand(4, -1))
