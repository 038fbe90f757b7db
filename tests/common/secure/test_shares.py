"""Shares of secrets, against PyCryptodome, which knows only 16 bytes at a time."""

import pytest
from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secure.shares import combined, split

SECRETS = st.binary(min_size=16, max_size=16) | st.sampled_from([bytes(16), b"\xff" * 16])


@settings(max_examples=30)
@given(SECRETS, st.integers(2, 40), st.data())
def test_any_shares_are_put_together_as_the_library_does(
    secret: bytes, count: int, data: st.DataObject
) -> None:
    needed = data.draw(st.integers(2, count))
    shares = data.draw(st.permutations(Shamir.split(needed, count, secret)))[:needed]
    assert combined([place.to_bytes(4) + share for place, share in shares]) == secret
    false = [(place, data.draw(SECRETS)) for place, _ in shares]  # of another secret
    told = combined([place.to_bytes(4) + share for place, share in false])
    assert told == Shamir.combine(false)


def test_a_longer_secret_is_split_block_by_block() -> None:
    secret = bytes(range(48))
    shares = split(secret, 3, 5)
    assert [share[:4] for share in shares] == [place.to_bytes(4) for place in range(1, 6)]
    some = [shares[k] for k in (4, 0, 2)]
    assert combined(some) == secret
    for block in range(3):
        part = slice(4 + 16 * block, 20 + 16 * block)
        own = [(int.from_bytes(share[:4]), share[part]) for share in some]
        assert Shamir.combine(own) == secret[16 * block : 16 * block + 16]


@pytest.mark.parametrize("place", [0, 2])
def test_a_place_that_cannot_be_gives_no_secret(place: int) -> None:
    first, second, third = split(bytes(16), 3, 3)
    assert combined([place.to_bytes(4) + first[4:], second, third]) is None


@pytest.mark.parametrize("wrong", [b"", b"1234", bytes(19), bytes(21)])
def test_a_share_of_another_length_gives_no_secret(wrong: bytes) -> None:
    first, second, _ = split(bytes(16), 3, 3)
    assert combined([first, second, wrong]) is None
    assert combined([wrong, first, second]) is None
