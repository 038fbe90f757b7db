"""Keys, masks and shares, against independent implementations."""

import numpy as np
import pytest
from Crypto.Cipher import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SnowdropError
from common.secure import keys
from common.secure.fixed_point import Vector
from common.secure.shares import split


def test_a_mask_is_the_chacha20_stream_of_the_whole_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_CHUNK", 64)
    key = bytes(range(32))
    vector = Vector(np.arange(21, dtype=np.uint64), np.arange(9, dtype=np.uint32))
    keys.add_mask(vector, key, 1)
    stream = ChaCha20.new(key=key, nonce=bytes(8)).encrypt(bytes(21 * 8 + 9 * 4))
    long, short = np.frombuffer(stream[:168], np.uint64), np.frombuffer(stream[168:], np.uint32)
    np.testing.assert_array_equal(vector.long, long + np.arange(21, dtype=np.uint64))
    np.testing.assert_array_equal(vector.short, short + np.arange(9, dtype=np.uint32))
    keys.add_mask(vector, key, -1)
    np.testing.assert_array_equal(vector.long, np.arange(21))
    np.testing.assert_array_equal(vector.short, np.arange(9))


@pytest.mark.parametrize("byte", range(32))
def test_every_byte_of_a_key_changes_the_mask(byte: int) -> None:
    """Flower's own generator folds keys to 32 bits, which can be searched."""
    masks = []
    for key in (bytes(32), bytes(32)[:byte] + b"\x01" + bytes(31 - byte)):
        vector = Vector.zeros(64, 0)
        keys.add_mask(vector, key, 1)
        masks.append(vector.long)
    assert (masks[0] != masks[1]).all()
    swapped = bytes(range(4, 8)) + bytes(range(4)) + bytes(range(8, 32))  # of one XOR of words
    vectors = [Vector.zeros(1, 0), Vector.zeros(1, 0)]
    keys.add_mask(vectors[0], bytes(range(32)), 1)
    keys.add_mask(vectors[1], swapped, 1)
    assert vectors[0].long != vectors[1].long


def test_both_of_a_pair_agree_on_a_key_and_nobody_else() -> None:
    first, second, third = (keys.new_private() for _ in range(3))
    key = keys.agreed(first, {2: keys.public_of(second), 3: keys.public_of(third)})[2]
    assert len(key) == keys.KEY_BYTES
    assert key == keys.agreed(second, {1: keys.public_of(first)})[1]
    assert key != keys.agreed(third, {1: keys.public_of(first)})[1]
    assert keys.belongs(keys.public_of(first), first)
    assert not keys.belongs(keys.public_of(second), first)
    assert not keys.belongs(keys.public_of(second), bytes(32))  # 0 is no private key
    with pytest.raises(SnowdropError, match="a public key of a masked sum is none"):
        keys.agreed(first, {2: b"\x02" + b"\xff" * 32})


def test_sealed_content_is_read_by_its_key_alone_and_not_changed_unnoticed() -> None:
    key, other = keys.new_seed(), keys.new_seed()
    content = keys.sealed(key, b"shares")
    assert keys.opened(key, content) == b"shares"
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for wrong_key, wrong in ((other, content), (key, bytes(flipped)), (key, b"")):
        with pytest.raises(SnowdropError, match="changed on their way"):
            keys.opened(wrong_key, wrong)


@settings(max_examples=25)
@given(
    st.binary(min_size=32, max_size=32) | st.sampled_from([bytes(32), b"\xff" * 32]),
    st.integers(3, 9),
    st.data(),
)
def test_any_threshold_shares_tell_the_whole_secret(
    secret: bytes, count: int, data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(2, count))
    shares = dict(enumerate(split(secret, threshold, count)))
    some = data.draw(st.permutations(range(count)))[:threshold]
    found, liars = keys.put_together(
        {k: shares[k] for k in some}, threshold, lambda it: it == secret
    )
    assert found == secret
    assert liars == set()
    with pytest.raises(SnowdropError, match="shares came"):
        keys.put_together({k: shares[k] for k in some[1:]}, threshold, lambda it: True)


def test_fewer_shares_than_the_threshold_put_together_something_else() -> None:
    secret = keys.new_seed()
    shares = dict(enumerate(split(secret, 3, 5)))
    with pytest.raises(SnowdropError, match="do not fit together"):
        keys.put_together({0: shares[0], 1: shares[1]}, 2, lambda it: it == secret)


def test_false_shares_are_found_and_worked_around() -> None:
    secret = keys.new_seed()
    shares = dict(enumerate(split(secret, 4, 7)))
    shares[1] = shares[1][:-1] + bytes([shares[1][-1] ^ 1])
    shares[5] = b"nonsense"
    found, liars = keys.put_together(shares, 4, lambda it: it == secret)
    assert found == secret
    assert liars == {1, 5}
    with pytest.raises(SnowdropError, match="do not fit together"):
        keys.put_together({k: shares[k] for k in (0, 1, 2, 5)}, 4, lambda it: it == secret)


def test_a_commitment_is_of_one_seed() -> None:
    first, second = keys.new_seed(), keys.new_seed()
    assert keys.is_committed(keys.commitment(first), first)
    assert not keys.is_committed(keys.commitment(first), second)
    assert first not in keys.commitment(first)


@pytest.mark.parametrize("liar", [0, 31])
def test_one_false_share_of_many_is_worked_around_wherever_it_stands(liar: int) -> None:
    secret = keys.new_seed()
    shares = dict(enumerate(split(secret, 22, 32)))
    shares[liar] = shares[liar][:-1] + bytes([shares[liar][-1] ^ 1])
    found, liars = keys.put_together(shares, 22, lambda it: it == secret)
    assert found == secret
    assert liars == ({0} if liar == 0 else set())  # the last one was not in the way
