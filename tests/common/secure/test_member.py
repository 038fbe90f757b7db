"""What a node checks at each stage of a masked sum, and what it tells."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from common.errors import SnowdropError
from common.secure import keys
from common.secure.fixed_point import Field, Layout
from common.secure.member import Hidden, Joined, Sharing, read, threshold, written
from tests.common.secure.sums import Sum

LAYOUT = Layout((Field("x", 40, exponent=16), Field("n", 40, bits=32)), participants=5)


def numbers(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full(40, value), "n": np.full(40, round(abs(value)))}


def shared(count: int = 5) -> Sum:
    one = Sum(LAYOUT, {place: numbers(place) for place in range(1, count + 1)})
    one.join()
    one.share()
    return one


def sharing_of(one: Sum, place: int) -> Sharing:
    stage = read(one.stages[place])
    assert isinstance(stage, Sharing)
    return stage


def hidden_of(one: Sum, place: int) -> Hidden:
    stage = read(one.stages[place])
    assert isinstance(stage, Hidden)
    return stage


@pytest.mark.parametrize(("members", "enough"), [(3, 3), (4, 3), (6, 5), (9, 7), (10, 7), (50, 34)])
def test_the_threshold_is_above_two_thirds(members: int, enough: int) -> None:
    assert threshold(members) == enough
    assert 3 * enough > 2 * members >= 3 * (enough - 1)


def test_stages_are_read_as_they_were_written() -> None:
    joined = Joined.anew("session")
    assert read(written(joined)) == joined
    one = shared()
    sharing = sharing_of(one, 2)
    assert read(written(sharing)) == sharing
    one.masked(2)
    assert set(hidden_of(one, 2).held) == {1, 2, 3, 4, 5}
    with pytest.raises(SnowdropError, match="damaged"):
        read(written(sharing)[:-5])


def test_a_node_that_has_shared_keeps_no_private_key_of_its_channel() -> None:
    group = {place: Joined.anew("session") for place in (1, 2, 3)}
    sharing, _ = group[1].share(1, {place: one.public() for place, one in group.items()})
    assert group[1].channel.hex().encode() not in written(sharing)


def test_a_node_that_has_hidden_its_numbers_keeps_no_key() -> None:
    one = shared()
    sharing = sharing_of(one, 3)
    one.masked(3)
    for secret in (sharing.others[2].channel, sharing.mask, sharing.seed):
        assert secret.hex().encode() not in one.stages[3]


def test_a_list_of_keys_that_was_changed_is_refused() -> None:
    joined = {place: Joined.anew("session") for place in range(1, 5)}
    group = {place: one.public() for place, one in joined.items()}
    joined[1].share(1, group)
    for wrong in (
        {place: public for place, public in group.items() if place != 1},
        {**group, 1: group[2]},
        {**group, 1: replace(group[1], mask=group[2].channel)},
    ):
        with pytest.raises(SnowdropError, match="does not hold this node's own"):
            joined[1].share(1, wrong)
    for twice in (
        {**group, 3: group[2]},
        {**group, 3: replace(group[3], mask=group[2].mask)},
        {**group, 3: replace(group[3], mask=group[3].channel)},
    ):
        with pytest.raises(SnowdropError, match="a key stands twice"):
            joined[1].share(1, twice)
    with pytest.raises(SnowdropError, match="needs 3 nodes"):
        joined[1].share(1, {1: group[1], 2: group[2]})


def test_shares_that_were_changed_or_are_for_others_are_refused() -> None:
    one = shared()
    sharing, sealed = sharing_of(one, 1), one.for_node(1)
    sharing.accept(sealed)
    flipped = bytearray(sealed[3])
    flipped[40] ^= 1
    for wrong, told in (
        ({**sealed, 3: bytes(flipped)}, "changed on their way"),
        ({**sealed, 3: sealed[4]}, "changed on their way"),
        ({**sealed, 3: one.for_node(2)[3]}, "changed on their way"),  # meant for another node
        ({**sealed, 1: sealed[3]}, "not in the list of keys"),
        ({**sealed, 9: sealed[3]}, "not in the list of keys"),
        ({2: sealed[2], 3: sealed[3]}, "too few nodes have shared"),
    ):
        with pytest.raises(SnowdropError, match=told):
            sharing.accept(wrong)


def test_shares_of_another_session_or_said_to_be_anothers_are_refused() -> None:
    one, other = shared(), shared()
    with pytest.raises(SnowdropError, match="changed on their way"):
        sharing_of(one, 1).accept({**one.for_node(1), 3: other.for_node(1)[3]})
    sharing = sharing_of(one, 1)
    key = sharing.others[3].channel
    content = keys.opened(key, one.for_node(1)[3])
    lied = keys.sealed(key, content[:8] + bytes([2]) + content[9:])  # a target of its own choice
    with pytest.raises(SnowdropError, match="not for this node"):
        sharing.accept({**one.for_node(1), 3: lied})


def test_one_secret_of_each_node_is_told_and_never_both() -> None:
    one = shared()
    for place in (1, 2, 3, 4):
        one.masked(place)
    hidden = hidden_of(one, 1)
    told = hidden.reveal([1, 2, 3, 4])
    assert told == {
        place: hidden.held[place].mask if place == 5 else hidden.held[place].seed
        for place in range(1, 6)
    }
    assert len({share.seed for share in hidden.held.values()}) == 5


@pytest.mark.parametrize(
    ("there", "fewest", "told"),
    [
        ([1, 2, 3], 3, "over too few nodes"),
        ([2, 3, 4, 5], 3, "without this node"),
        ([1, 2, 3, 9], 3, "never shared"),
        ([1, 2, 3, 3], 3, "never shared"),
        ([1, 2, 3, 4], 5, "over too few nodes"),
    ],
)
def test_sums_over_too_few_or_unknown_nodes_are_refused(
    there: list[int], fewest: int, told: str
) -> None:
    one = shared()
    one.masked(1)
    with pytest.raises(SnowdropError, match=told):
        hidden_of(one, 1).reveal(there, fewest)


def words_of(value: float, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Masked words of node 1, whose numbers are all one value, over some sessions."""
    long, short = [], []
    for _ in range(times):
        one = Sum(LAYOUT, {place: numbers(value if place == 1 else 0) for place in (1, 2, 3)})
        one.join()
        one.share()
        vector = one.masked(1)
        long.append(vector.long[1:])
        short.append(vector.short)
    return np.concatenate(long) / 2.0**64, np.concatenate(short) / 2.0**32


def test_a_masked_vector_says_nothing_of_the_numbers() -> None:
    """Uniform over all words, whatever the numbers are, and bits that are even."""
    zeros, large = words_of(0.0, 25), words_of(7.0, 25)
    for few, many in zip(zeros, large, strict=True):
        assert len(few) == 1000
        for words in (few, many):
            assert stats.kstest(words, "uniform").pvalue > 1e-4
        assert stats.ks_2samp(few, many).pvalue > 1e-4
        assert len(set(few) & set(many)) == 0
