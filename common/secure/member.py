"""A node's side of a masked sum: four stages, each of which takes what the one before left.

A stage is what a node keeps on its disk until the next message. Each is used once: the node writes
the next one before it answers, so that no message can be replayed, and masks serve one vector.
"""

from collections.abc import Mapping
from typing import Literal, Self

from flwr.common.secure_aggregation.secaggplus_utils import (
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from common.errors import SnowdropError
from common.secure import keys
from common.secure.fixed_point import Vector
from common.secure.shares import split
from common.settings import LEAST

_STORED = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex", extra="forbid")


def threshold(members: int) -> int:
    """Members of a group who must be there to the end: above two thirds.

    Each member gives a share of one secret of each other member, or of the other one, never of
    both. A server that tells them different things would need shares from twice the threshold, more
    than there are while fewer than a third of them conspire with it.
    """
    return 2 * members // 3 + 1


@dataclass(frozen=True, config=_STORED)
class PublicKeys:
    """What a node tells the others: whom to encrypt for, and whom to share a mask with."""

    channel: bytes
    mask: bytes


@dataclass(frozen=True, config=_STORED)
class Shares:
    """Shares of another member's two secrets; only one of them is ever told."""

    seed: bytes
    mask: bytes


@dataclass(frozen=True, config=_STORED)
class Member:
    """Another member of the group: the key that its shares are sealed with, and its public one."""

    channel: bytes
    mask: bytes


@dataclass(frozen=True)
class Sealed:
    """Shares for each other member, encrypted, and what the seed is known by."""

    commitment: bytes
    shares: dict[int, bytes]


@dataclass(frozen=True)
class Masks:
    """The masks of one vector; they are held by a process, and never written down."""

    seed: bytes
    pairs: dict[int, bytes]
    own: int
    fewest: int
    """Members of the group without whom the sum is never unmasked, this one among them."""

    def hide(self, vector: Vector) -> None:
        """Lay all masks over a vector, in place."""
        keys.add_mask(vector, self.seed, 1)
        for other, key in self.pairs.items():
            keys.add_mask(vector, key, sign_of(self.own, other))


def sign_of(own: int, other: int) -> int:
    """Of the two members of a pair, one adds their mask and the other takes it away."""
    return 1 if own < other else -1


@dataclass(frozen=True, config=_STORED)
class Joined:
    """A node that has told its public keys."""

    session: str
    channel: bytes
    mask: bytes
    stage: Literal["joined"] = "joined"

    @classmethod
    def anew(cls, session: str) -> Self:
        """With new keys."""
        return cls(session, keys.new_private(), keys.new_private())

    def public(self) -> PublicKeys:
        """What it tells the others."""
        return PublicKeys(keys.public_of(self.channel), keys.public_of(self.mask))

    def share(self, own: int, group: Mapping[int, PublicKeys]) -> tuple["Sharing", Sealed]:
        """Split both secrets among the group.

        Parameters
        ----------
        own : int
            This node's place in the group.
        group : Mapping[int, PublicKeys]
            Of all members by place, this node among them.

        Raises
        ------
        SnowdropError
            If its own keys are not in the list as it told them, a key stands there twice, or there
            are too few members.
        """
        if group.get(own) != self.public():
            raise SnowdropError("the list of keys does not hold this node's own")
        every = [key for member in group.values() for key in (member.channel, member.mask)]
        if len(set(every)) != len(every):
            raise SnowdropError("a key stands twice in the list of keys")
        if len(group) < LEAST:
            raise SnowdropError(f"a masked sum needs {LEAST} nodes, the list of keys has fewer")
        places, enough, seed = sorted(group), threshold(len(group)), keys.new_seed()
        of_seed = dict(zip(places, split(seed, enough, len(places)), strict=True))
        of_mask = dict(zip(places, split(self.mask, enough, len(places)), strict=True))
        channels = keys.agreed(
            self.channel, {other: group[other].channel for other in places if other != own}
        )
        sealed = {
            other: keys.sealed(
                key, share_keys_plaintext_concat(own, other, of_seed[other], of_mask[other])
            )
            for other, key in channels.items()
        }
        kept = Shares(of_seed[own], of_mask[own])
        members = {other: Member(key, group[other].mask) for other, key in channels.items()}
        sharing = Sharing(self.session, self.mask, seed, own, members, kept)
        return sharing, Sealed(keys.commitment(seed), sealed)


@dataclass(frozen=True, config=_STORED)
class Sharing:
    """A node whose shares are on their way to the others."""

    session: str
    mask: bytes
    seed: bytes
    own: int
    others: dict[int, Member]
    kept: Shares
    stage: Literal["sharing"] = "sharing"

    def accept(self, sealed: Mapping[int, bytes]) -> tuple["Hidden", Masks]:
        """Take the others' shares, and make the masks.

        Parameters
        ----------
        sealed : Mapping[int, bytes]
            From each other member that has shared, by its place.

        Raises
        ------
        SnowdropError
            If shares were changed or are not for this node, or too few members have shared.
        """
        members = len(self.others) + 1
        if not sealed.keys() <= self.others.keys():
            raise SnowdropError("shares came from nodes that are not in the list of keys")
        if len(sealed) + 1 < threshold(members):
            raise SnowdropError("too few nodes have shared their secrets")
        held = {self.own: self.kept}
        for other, content in sealed.items():
            source, target, of_seed, of_mask = share_keys_plaintext_separate(
                keys.opened(self.others[other].channel, content)
            )
            if (source, target) != (other, self.own):
                raise SnowdropError("shares came that are not for this node")
            held[other] = Shares(of_seed, of_mask)
        pairs = keys.agreed(self.mask, {other: self.others[other].mask for other in sealed})
        return Hidden(self.session, self.own, held, members), Masks(
            self.seed, pairs, self.own, threshold(members)
        )


@dataclass(frozen=True, config=_STORED)
class Hidden:
    """A node that has made its masked vector, and holds shares of the others' secrets."""

    session: str
    own: int
    held: dict[int, Shares]
    members: int
    stage: Literal["hidden"] = "hidden"

    def reveal(self, there: list[int], fewest: int = LEAST) -> dict[int, bytes]:
        """Shares of the seeds of members that are in the sum, and of the masks of the others.

        Parameters
        ----------
        there : list[int]
            Places of the members whose masked vectors have come.
        fewest : int
            Fewest of them that this node's owner agrees to.

        Returns
        -------
        dict[int, bytes]
            One share of each member, by place; never of both of its secrets.

        Raises
        ------
        SnowdropError
            If they are too few, this node is not among them, or they never shared.
        """
        if len(set(there)) != len(there) or not set(there) <= self.held.keys():
            raise SnowdropError("the sum is said to hold nodes that never shared their secrets")
        if self.own not in there:
            raise SnowdropError("the sum is said to be without this node")
        if len(there) < max(threshold(self.members), fewest, LEAST):
            raise SnowdropError("the sum would be over too few nodes")
        return {
            other: shares.seed if other in there else shares.mask
            for other, shares in self.held.items()
        }


Stage = Joined | Sharing | Hidden

_ANY: TypeAdapter[Stage] = TypeAdapter(Stage)


def written(stage: Stage) -> bytes:
    """A stage as JSON."""
    return _ANY.dump_json(stage)


def read(content: bytes) -> Stage:
    """What `written` made.

    Raises
    ------
    SnowdropError
        If it is damaged.
    """
    try:
        return _ANY.validate_json(content)
    except ValidationError as error:
        raise SnowdropError("what this node kept of a masked sum is damaged") from error
