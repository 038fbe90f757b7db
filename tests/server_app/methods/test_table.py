"""The item table: how it starts, steps and grows, and what generators make of cold items."""

import numpy as np
import pytest
import torch

from common.catalogue import Catalogue
from common.errors import OverflowedError, SnowdropError
from server_app.aggregation import Summed
from server_app.methods import ItemTable, World
from server_app.methods.mixture import Mixture
from tests.server_app.test_training import table_of, training_of


def test_it_starts_from_unit_rows_of_features() -> None:
    table = table_of(training_of())
    assert table.table.shape == (36, 6)
    torch.testing.assert_close(table.table.norm(dim=1), torch.ones(36))


def test_a_random_start_depends_on_the_seed_alone() -> None:
    first, same = (table_of(training_of(table_start="random", dim=32)).table for _ in range(2))
    other = table_of(training_of(table_start="random", dim=32, seed=1)).table
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("average", ["users", "touches"])
def test_a_step_is_the_mean_over_users_or_over_those_that_touched_a_row(average: str) -> None:
    table = table_of(training_of("ridge", average=average, server_lr=0.5))
    before = table.table.clone()
    rng = np.random.default_rng(0)
    sums = {"change": rng.normal(size=(36, 6)), "touches": rng.integers(0, 4, 36)}
    table.step(Summed(5, 1.0, sums))
    for row in range(36):
        divisor = 5 if average == "users" else max(1, sums["touches"][row])
        expected = before[row].numpy() + 0.5 * sums["change"][row] / divisor
        np.testing.assert_allclose(table.table[row].numpy(), expected, atol=1e-6)
    assert table.round == 1
    assert set(table.expected()) == ({"change"} if average == "users" else {"change", "touches"})


def test_a_round_of_nobody_leaves_it() -> None:
    table = table_of(training_of("ridge"))
    before = table.table.clone()
    table.step(Summed(0, 0.0, {"change": np.ones((36, 6)), "touches": np.zeros(36, np.int64)}))
    assert torch.equal(table.table, before)
    assert table.round == 1


def test_an_overflow_is_one_sentence() -> None:
    table = table_of(training_of("ridge"))
    sums = {"change": np.full((36, 6), 3e38), "touches": np.ones(36, np.int64)}
    table.step(Summed(1, 0.0, sums))
    with pytest.raises(OverflowedError, match="overflowed in round 2; lower item_lr or head_lr"):
        table.step(Summed(1, 0.0, sums))


def test_own_features_give_cold_items_their_own_features() -> None:
    table = table_of(training_of("own-features"))
    table.table = table.table + 1
    table.fit(table.generator)
    assert torch.equal(table.cold_table("test"), table.own_embeddings("test"))


def test_a_learnt_change_is_added_to_an_items_own_features() -> None:
    table = table_of(training_of("ridge", ridge__target="change"))
    shift = torch.linspace(-1, 1, 6)
    table.table = table.table + shift
    loss, _ = table.fit(table.generator)
    assert loss < 1e-6
    expected = table.own_embeddings("test") + shift
    torch.testing.assert_close(table.cold_table("test"), expected, atol=1e-4, rtol=0)


def test_cold_tables_have_a_row_for_each_cold_item() -> None:
    table = table_of(training_of())
    table.fit(table.generator)
    validation, test = table.cold_table("validation"), table.cold_table("test")
    assert (validation.shape, test.shape) == ((6, 6), (18, 6))
    both = torch.cat([validation, test])
    assert torch.equal(table.cold_table(["validation", "test"]), both)


def test_warm_items_are_scored_by_their_rows_and_cold_ones_by_what_is_generated() -> None:
    table = table_of(training_of("ridge"))
    table.fit(table.generator)
    np.testing.assert_array_equal(table.scoring(["warm"]).arrays["items"], table.table.numpy())
    made = table.scoring(["test"])
    np.testing.assert_array_equal(made.arrays["items"], table.cold_table("test").numpy())
    assert (made.scorer, made.method) == ("head", "ridge")


def test_the_network_is_fitted_in_its_rounds_and_before_items_are_scored() -> None:
    table = table_of(training_of(mdifffr__fit_every=3, rounds=10))
    fitted = []
    for number in range(1, 11):
        if table.prepare(number, validating=number in (2, 4)):
            fitted.append(number)
            assert table.fitted_round == number
    assert fitted == [2, 3, 6, 9, 10]


def test_what_is_instant_is_fitted_whenever_items_are_scored() -> None:
    table = table_of(training_of("ridge", rounds=10))
    assert [n for n in range(1, 11) if table.prepare(n, validating=n % 2 == 0)] == [2, 4, 6, 8, 10]


# Mixtures.


def plain_neighbours(table: ItemTable, target: torch.Tensor, count: int) -> torch.Tensor:
    """Mean of the nearest warm items' targets, in a plain loop."""
    warm, near = table.conditions("warm"), []
    for item in table.conditions("test"):
        similarity = torch.cosine_similarity(item[None], warm)
        near.append(target[similarity.argsort(descending=True)[:count]].mean(0))
    return torch.stack(near)


def mixture_of(share: float, first: str, second: str, **changed: object) -> ItemTable:
    choice = {"mixture__first": first, "mixture__second": second, "mixture__share": share}
    table = table_of(training_of("mixture", **choice, **changed))
    table.table = table.table + torch.linspace(-1, 1, 36)[:, None]
    table.prepare(1, validating=True)
    return table


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixture_is_the_weighted_mean_of_what_its_two_methods_make(share: float) -> None:
    neighbours = {"similar-items__neighbours": 3}
    table = mixture_of(share, "ridge", "similar-items", **neighbours)
    alone = table_of(training_of("ridge"))
    alone.table = table.table
    alone.fit(alone.generator)
    second = plain_neighbours(table, table.table, 3)
    expected = (1 - share) * alone.cold_table("test") + share * second
    torch.testing.assert_close(table.cold_table("test"), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("second_target", ["embedding", "change"])
def test_each_part_of_a_mixture_learns_what_it_would_learn_alone(second_target: str) -> None:
    """Of a part that learns changes, an item's own features are added to that part alone."""
    table = mixture_of(
        0.4, "ridge", "similar-items",
        **{"ridge__target": "change", "similar-items__target": second_target,
           "similar-items__neighbours": 2},
    )  # fmt: skip
    alone = table_of(training_of("ridge", ridge__target="change"))
    alone.table = table.table
    alone.fit(alone.generator)
    if second_target == "change":
        moved = table.table - table.own_embeddings("warm")
        second = plain_neighbours(table, moved, 2) + table.own_embeddings("test")
    else:
        second = plain_neighbours(table, table.table, 2)
    expected = 0.6 * alone.cold_table("test") + 0.4 * second
    torch.testing.assert_close(table.cold_table("test"), expected, atol=1e-5, rtol=1e-4)


def test_a_mixture_fits_a_network_when_the_network_asks_for_it() -> None:
    table = table_of(training_of("mixture", mdifffr__fit_every=3, rounds=10))
    assert isinstance(table.generator, Mixture)
    assert [n for n in range(1, 11) if table.prepare(n, validating=False)] == [3, 6, 9, 10]
    assert table.generator.state_dict().keys() == {"mdifffr"}


def test_a_mixture_goes_on_from_its_parts_states() -> None:
    choice = {"mixture__first": "mdifffr", "mixture__second": "similar-items"}
    table = table_of(training_of("mixture", mdifffr__fit_steps=3, **choice))
    table.prepare(1, validating=True)
    again = table_of(training_of("mixture", mdifffr__fit_steps=3, **choice))
    again.generator.load_state_dict(table.generator.state_dict())
    first, other = (each.generator.parts[0].generate(table.conditions("test"), seed=1)
                    for each in (table, again))  # fmt: skip
    torch.testing.assert_close(first, other)
    again.generator.load_state_dict({})  # a checkpoint from before the network was fitted


def test_a_mixture_itself_is_never_fitted_nor_asked() -> None:
    mixture, nothing = table_of(training_of("mixture")).generator, torch.zeros(1, 1)
    with pytest.raises(NotImplementedError, match=r"^its parts are fitted in its place$"):
        mixture.fit(nothing, nothing, seed=0)
    with pytest.raises(NotImplementedError, match=r"^its parts are asked in its place$"):
        mixture.generate(nothing, seed=0)


# Growth.


def grown(table: ItemTable, becoming: str, title: str = "") -> World:
    """The world in which a test item has become warm."""
    catalogue = table.world.catalogue
    splits = tuple(
        "warm" if item == becoming else split
        for item, split in zip(catalogue.ids, catalogue.splits, strict=True)
    )
    changed = Catalogue(catalogue.ids, splits, catalogue.texts)
    return World(table.settings, changed, table.world.features, table.world.device)


def first_test_item(table: ItemTable) -> str:
    return table.world.catalogue.ids_of("test")[0]


def row_of(table: ItemTable, item: str) -> torch.Tensor:
    return table.table[table.world.catalogue.ids_of("warm").index(item)]


@pytest.mark.parametrize("method", ["ridge", "mdifffr", "similar-items", "mixture"])
def test_an_item_that_becomes_warm_starts_as_it_was_generated(method: str) -> None:
    table = table_of(training_of(method))
    table.table = table.table + 1
    table.prepare(1, validating=True)
    item = first_test_item(table)
    made = table.cold_table("test")[0].clone()
    rows = dict(zip(table.world.catalogue.ids_of("warm"), table.table, strict=True))
    moved = table.moved_to(grown(table, item))
    assert len(moved.table) == 37
    torch.testing.assert_close(row_of(moved, item), made, atol=1e-5, rtol=1e-4)
    for former, row in rows.items():
        assert torch.equal(row_of(moved, former), row)


def test_an_item_that_becomes_warm_is_no_neighbour_of_its_own() -> None:
    """Its row is not known yet when its neighbours are sought."""
    table = table_of(training_of("similar-items", **{"similar-items__neighbours": 1}))
    table.table = table.table + 1  # no row is as the table would start
    table.prepare(1, validating=True)
    item = first_test_item(table)
    moved = table.moved_to(grown(table, item))
    assert (table.table == row_of(moved, item)).all(1).any()


def test_growth_before_anything_was_fitted_starts_rows_as_the_table_did() -> None:
    table = table_of(training_of())
    item = first_test_item(table)
    own = table.own_embeddings("test")[0]
    torch.testing.assert_close(row_of(table.moved_to(grown(table, item)), item), own)


def test_another_catalogue_is_refused() -> None:
    table = table_of(training_of())
    former = table.world.catalogue
    ids = tuple(f"other-{item}" for item in former.ids)
    other = Catalogue(ids, former.splits, former.texts)
    with pytest.raises(SnowdropError, match=r"of the 36 warm items .* has only 0 as warm"):
        table.moved_to(World(table.settings, other, table.world.features, table.world.device))


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("mdifffr", {"mdifffr.fit_every": 20}),
        ("mdifffr", {"mdifffr.fit_every": 3}),
        ("mdifffr", {"server_lr": 0.0}),
        ("ridge", {}),
    ],
)
def test_it_foresees_the_rounds_that_fit_a_generator(
    method: str, changed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(training_of(method, rounds=10, **changed))
    monkeypatch.setattr(table, "fit", lambda _: (0.0, 0.0))
    rounds = [(number, number % 4 == 0 or number == 10) for number in range(1, 11)]
    foreseen = [table.fits_in(rounds)]
    fitted = []
    for number, validating in rounds:
        fitted.append("generator_seconds" in table.prepare(number, validating))
        foreseen.append(table.fits_in(rounds[number:]))
    assert sum(fitted) > 0
    assert foreseen == [sum(fitted[number:]) for number in range(11)]
