import torch

from common.settings import RunSettings
from server_app.generators.mapping import MappingGenerator

SETTINGS = RunSettings(
    dim=4, generator="mapping", generator_steps=300, generator_lr=0.01, condition_noise=0.0
)
CPU = torch.device("cpu")


def make_items() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    conditions = torch.randn(50, 6, generator=draw)
    return torch.tanh(conditions @ torch.randn(6, 4, generator=draw)), conditions


def test_it_learns_the_map() -> None:
    target, conditions = make_items()
    generator = MappingGenerator(4, 6, SETTINGS, CPU)
    before = (generator.generate(conditions, 0) - target).square().mean()
    loss = generator.fit(target, conditions, seed=1)
    after = (generator.generate(conditions, 0) - target).square().mean()
    assert after < 0.05 * before
    assert loss < 0.1 * before


def test_going_on_from_a_checkpoint_changes_nothing() -> None:
    target, conditions = make_items()
    settings = SETTINGS.model_copy(update={"generator_refit": False, "generator_steps": 5})
    whole, first, second = (MappingGenerator(4, 6, settings, CPU) for _ in range(3))
    for seed in (1, 2):
        whole.fit(target, conditions, seed)
    first.fit(target, conditions, 1)
    second.load_state_dict(first.state_dict())
    second.fit(target, conditions, 2)
    assert torch.equal(whole.generate(conditions, 0), second.generate(conditions, 0))
