"""What a node checks at each stage of a masked sum, and what it tells."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from common.errors import SnowdropError
from common.secure import keys, member
from common.secure.fixed_point import Field, Layout
from common.secure.groups import threshold
from common.secure.member import Confirmed, Hidden, Joined, Sharing, Told, read, written
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


def test_stages_are_read_as_they_were_written() -> None:
    joined = Joined.anew("session")
    assert read(written(joined)) == joined
    one = shared()
    sharing = sharing_of(one, 2)
    assert read(written(sharing)) == sharing
    one.masked(2)
    assert set(one.hidden(2).held) == {1, 2, 3, 4, 5}
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
    assert one.hidden(3).words[2].hex().encode() in one.stages[3]
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
    shares = content.index((1).to_bytes(4), 40)  # the target, after what is told of the group
    lied = keys.sealed(key, content[:shares] + (2).to_bytes(4) + content[shares + 4 :])
    with pytest.raises(SnowdropError, match="not for this node"):
        sharing.accept({**one.for_node(1), 3: lied})


def hidden(count: int = 5, without: int = 0) -> Sum:
    """A sum in which all nodes but one have sent their vectors."""
    one = shared(count)
    one.mask(without={without})
    return one


def test_one_secret_of_each_node_is_told_and_never_both() -> None:
    one = hidden(without=5)
    there = [1, 2, 3, 4]
    said = {place: one.confirm(place, there) for place in there}
    held = hidden_of_confirmed(one, 1).held
    assert one.reveal(1, there, said) == {
        place: held[place].mask if place == 5 else held[place].seed for place in range(1, 6)
    }
    assert len({share.seed for share in held.values()}) == 5


def hidden_of_confirmed(one: Sum, place: int) -> Hidden:
    stage = read(one.stages[place])
    assert isinstance(stage, Confirmed)
    assert stage.session == "session"
    return stage.hidden


def test_seeds_alone_are_told_where_everyone_is_there() -> None:
    one = hidden()
    held = one.hidden(1).held
    seeds = {place: held[place].seed for place in range(1, 6)}
    assert one.hidden(1).reveal([1, 2, 3, 4, 5]) == seeds


@pytest.mark.parametrize(
    ("there", "fewest", "told"),
    [
        ([1, 2, 3], 3, "over too few nodes"),
        ([1, 2, 3, 9], 3, "over too few nodes"),
        ([2, 3, 4, 5], 3, "without this node"),
        ([1, 2, 3, 3], 3, "malformed list"),
        ([2, 1, 3, 4], 3, "malformed list"),
        ([1, 2, 3, 4], 5, "over too few nodes"),
        ([1, 2, 3, 4, 6], 3, "never shared"),
    ],
)
def test_sums_over_too_few_or_unknown_nodes_are_refused(
    there: list[int], fewest: int, told: str
) -> None:
    one = Sum(LAYOUT, {place: numbers(place) for place in range(1, 7)})
    one.join()
    one.share(without={6})
    one.masked(1)
    one.hidden(1).confirm([1, 2, 3, 4, 5])
    # Of six nodes five are needed: what is too few for a group of five is so here, too.
    with pytest.raises(SnowdropError, match=told):
        one.hidden(1).confirm(there, fewest)
    with pytest.raises(SnowdropError, match=told):
        one.hidden(1).reveal(there, fewest)
    confirmed, _ = one.hidden(1).confirm([1, 2, 3, 4, 5])
    with pytest.raises(SnowdropError, match=told):
        confirmed.reveal(there, {}, fewest)


def test_nothing_is_revealed_unconfirmed_where_a_node_is_missing() -> None:
    one = hidden(without=5)
    with pytest.raises(SnowdropError, match="must confirm to each other first"):
        one.hidden(1).reveal([1, 2, 3, 4])


def test_a_node_reveals_what_more_than_two_thirds_have_confirmed_and_nothing_else() -> None:
    there = [1, 2, 3, 4, 5, 6]
    one = hidden(7, without=7)
    said = {place: one.confirm(place, there) for place in there}
    of_others = {place: own for place, own in said.items() if place != 1}
    one.reveal(1, there, {place: of_others[place] for place in (2, 3, 4, 5)})
    with pytest.raises(SnowdropError, match="has confirmed another list"):
        one.reveal(1, [1, 2, 3, 4, 5], of_others)
    with pytest.raises(SnowdropError, match="too few nodes have confirmed"):
        one.reveal(1, there, {place: of_others[place] for place in (2, 3, 4)})
    other = hidden(7, without=7)
    for useless in (
        {5: {1: said[5][2]}},  # said to another node
        {5: {1: said[4][1]}},  # said by another node
        {5: {1: said[1][5]}},  # said by this node itself
        {5: {1: other.confirm(5, there)[1]}},  # said of another sum
        {7: {1: said[5][1]}},
        {9: {1: said[5][1]}},
    ):
        with pytest.raises(SnowdropError, match="too few nodes have confirmed"):
            one.reveal(1, there, {2: said[2], 3: said[3], 4: said[4], **useless})


def with_lists(lists: dict[int, list[int]], fewest: dict[int, int] | None = None) -> Sum:
    """A sum whose nodes were given lists of keys of some members each; they have shared."""
    one = Sum(LAYOUT, {place: numbers(place) for place in lists})
    one.join()
    one.total.groups = {place: tuple(group) for place, group in lists.items()}
    one.share(fewest=fewest or {})
    return one


def test_lists_are_alike_where_places_and_keys_are_the_same() -> None:
    group = {place: Joined.anew("session").public() for place in (1, 2, 3)}
    told = Told.of(group, 3)
    assert told == Told.of(dict(reversed(group.items())), 3)
    for other in (
        {**group, 3: replace(group[3], mask=group[2].mask)},
        {**group, 3: replace(group[3], channel=group[2].channel)},
        {1: group[1], 2: group[2], 4: group[3]},
        {1: group[1], 2: group[2]},
    ):
        assert Told.of(other, 3).group != told.group


def test_a_node_may_ask_for_more_nodes_than_there_are() -> None:
    group = {place: Joined.anew("session").public() for place in (1, 2, 3)}
    told = Told.of(group, 2**40)
    assert Told.read(told.before(b"shares")) == (told, b"shares")
    assert told.fewest == 2**32 - 1


def test_nodes_that_were_told_different_sizes_of_their_group_are_refused() -> None:
    """Else a node that believes in a larger group would add less noise than the others need."""
    every = list(range(1, 7))
    one = with_lists({place: every[:5] if place == 2 else every for place in every})
    with pytest.raises(SnowdropError, match="different sizes"):
        one.masked(1)


AROUND = {k: sorted((k + step - 1) % 9 + 1 for step in range(-2, 3)) for k in range(1, 10)}
"""Lists of keys of nine nodes on a ring, five each."""


def test_members_of_a_small_group_have_the_same_list_of_keys() -> None:
    """Else a server could have guards vouch for a list of which a node knows nothing."""
    one = with_lists(AROUND)
    with pytest.raises(SnowdropError, match="different lists of keys"):
        one.masked(1)


def test_nodes_on_a_ring_always_confirm_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "SMALLEST_RING", 5)
    one = with_lists(AROUND)
    one.masked(1)
    with pytest.raises(SnowdropError, match="must confirm to each other first"):
        one.hidden(1).reveal(list(range(1, 10)))


def test_shares_that_are_too_short_are_refused() -> None:
    one = shared()
    sharing, sealed = sharing_of(one, 1), one.for_node(1)
    short = keys.sealed(sharing.others[3].channel, b"short")
    with pytest.raises(SnowdropError, match="malformed"):
        sharing.accept({**sealed, 3: short})


def test_no_node_of_a_group_reveals_a_sum_that_is_too_small_for_another() -> None:
    one = Sum(LAYOUT, {place: numbers(place) for place in range(1, 6)})
    one.join()
    one.share(fewest={2: 5})
    one.mask(without={5})
    with pytest.raises(SnowdropError, match="over too few nodes"):
        one.hidden(1).confirm([1, 2, 3, 4])


@pytest.mark.parametrize(("count", "read_without_words"), [(10, 6), (13, 8), (20, 12), (32, 18)])
def test_a_server_that_tells_nodes_different_lists_gets_nothing(
    count: int, read_without_words: int
) -> None:
    """What would unmask the sum of fewer nodes than must be there, if nodes did not confirm it."""
    enough, every = threshold(count), range(1, count + 1)
    kept, lost = every[:read_without_words], every[read_without_words:]
    lists = lists_for(count, kept, lost)
    one = hidden(count)
    for left in lost:  # so many would tell a share of the secret that takes its pairs off
        assert sum(left not in there for there in lists.values()) >= enough
    for place in kept:
        assert sum(place in there for there in lists.values()) >= enough
    assert len(kept) < enough
    said = {place: one.confirm(place, there) for place, there in lists.items()}
    for place, there in lists.items():
        with pytest.raises(SnowdropError, match="too few nodes have confirmed"):
            one.reveal(place, there, said)


def lists_for(count: int, kept: Sequence[int], lost: Sequence[int]) -> dict[int, list[int]]:
    """A list for each node, each as long as it must be and with the node itself in it."""
    spare = count - threshold(count)
    lists, next_lost = {}, 0
    for place in range(1, count + 1):
        without: set[int] = set()
        candidates = [one for one in lost if one != place]
        while len(without) < min(spare, len(candidates)):
            if (one := lost[next_lost % len(lost)]) != place:
                without.add(one)
            next_lost += 1
        lists[place] = [one for one in range(1, count + 1) if one not in without]
    return lists


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
