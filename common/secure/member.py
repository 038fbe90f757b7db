"""A node's side of a masked sum: four stages, each of which takes what the one before left.

A stage is what a node keeps on its disk until the next message. Each is used once: the node writes
the next one before it answers, so that no message can be replayed, and masks serve one vector.

The server tells each node who is in the sum, and a node cannot see what the others are told. Where
somebody is missing, the members of a group therefore confirm the list to each other before they
reveal anything (Bonawitz et al., CCS 2017, round 3), by a word that only the two of them can make.
A member confirms one list of each sum, and each needs the words of more than two thirds of its
group, all of whom have the same list of keys. So no two lists are used while fewer than a third of
the group conspire with the server. Where all members are there, nothing needs to be confirmed: to
take a member out of the sum later takes more than two thirds of its group who have confirmed
another list, and those are all in the sum. With groups of their own nodes cannot have the same list
of keys, and less is certain (`common.secure.groups.certain`).
"""

import hashlib
from collections.abc import Mapping, Sequence
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
from common.secure.groups import SMALLEST_RING, certain, threshold
from common.secure.shares import split
from common.settings import LEAST

_STORED = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex", extra="forbid")


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


@dataclass(frozen=True, config=_STORED)
class Told:
    """What a member tells each other one with its shares, so that all of them know the same."""

    group: bytes
    """Digest of the list of keys that it was given."""
    members: int
    """How many are in that list."""
    fewest: int
    """Fewest nodes in a sum that its owner agrees to."""

    _DIGEST = hashlib.sha256().digest_size
    _NUMBER = 4

    @classmethod
    def of(cls, group: Mapping[int, PublicKeys], fewest: int) -> Self:
        """What a member with this list of keys tells."""
        every = [(place, one.channel, one.mask) for place, one in sorted(group.items())]
        digest = hashlib.sha256(repr(every).encode()).digest()
        return cls(digest, len(group), min(fewest, 2 ** (8 * cls._NUMBER) - 1))

    def before(self, shares: bytes) -> bytes:
        """Shares with this before them."""
        numbers = (self.members, self.fewest)
        return self.group + b"".join(one.to_bytes(self._NUMBER) for one in numbers) + shares

    @classmethod
    def read(cls, content: bytes) -> tuple[Self, bytes]:
        """What `before` was made of.

        Raises
        ------
        SnowdropError
            If it cannot be.
        """
        begin, middle = cls._DIGEST, cls._DIGEST + cls._NUMBER
        end = middle + cls._NUMBER
        if len(content) <= end:
            raise SnowdropError("shares of a masked sum are malformed")
        numbers = content[begin:middle], content[middle:end]
        members, fewest = (int.from_bytes(number) for number in numbers)
        return cls(content[:begin], members, fewest), content[end:]


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
    certain: int
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

    def share(
        self, own: int, group: Mapping[int, PublicKeys], fewest: int = LEAST
    ) -> tuple["Sharing", Sealed]:
        """Split both secrets among the group.

        Parameters
        ----------
        own : int
            This node's place in the group.
        group : Mapping[int, PublicKeys]
            Of all members by place, this node among them.
        fewest : int
            Fewest nodes in a sum that this node's owner agrees to. No member reveals anything of a
            sum over fewer.

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
        told = Told.of(group, fewest)
        sealed = {
            other: keys.sealed(
                key,
                told.before(
                    share_keys_plaintext_concat(own, other, of_seed[other], of_mask[other])
                ),
            )
            for other, key in channels.items()
        }
        kept = Shares(of_seed[own], of_mask[own])
        members = {other: Member(key, group[other].mask) for other, key in channels.items()}
        sharing = Sharing(self.session, self.mask, seed, own, members, kept, told)
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
    told: Told
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
            If shares were changed or are not for this node, too few members have shared, or what
            they were told of the group does not fit what this node was told.
        """
        members, enough = self.told.members, threshold(self.told.members)
        if not sealed.keys() <= self.others.keys():
            raise SnowdropError("shares came from nodes that are not in the list of keys")
        if len(sealed) + 1 < enough:
            raise SnowdropError("too few nodes have shared their secrets")
        held, heard = {self.own: self.kept}, [self.told]
        for other, content in sealed.items():
            told, shares = Told.read(keys.opened(self.others[other].channel, content))
            source, target, of_seed, of_mask = share_keys_plaintext_separate(shares)
            if (source, target) != (other, self.own):
                raise SnowdropError("shares came that are not for this node")
            held[other] = Shares(of_seed, of_mask)
            heard.append(told)
        if any(told.members != members for told in heard):
            raise SnowdropError("nodes of one group were told different sizes of it")
        alike = all(told.group == self.told.group for told in heard)
        if not alike and members < SMALLEST_RING:
            raise SnowdropError("nodes of one group were given different lists of keys")
        pairs = keys.agreed(self.mask, {other: self.others[other].mask for other in sealed})
        words = {other: keys.for_words(self.others[other].channel) for other in sealed}
        group = sorted([self.own, *self.others])
        fewest = max(told.fewest for told in heard)
        hidden = Hidden(self.session, self.own, group, held, words, alike, fewest)
        return hidden, Masks(self.seed, pairs, self.own, certain(members))


@dataclass(frozen=True, config=_STORED)
class Hidden:
    """A node that has made its masked vector, and holds shares of the others' secrets."""

    session: str
    own: int
    group: list[int]
    """Places of all members, this node among them."""
    held: dict[int, Shares]
    words: dict[int, bytes]
    """The key of the words that this node and another one say to each other."""
    alike: bool
    """Whether the others have the same list of keys."""
    fewest: int
    """Fewest nodes in the sum that the owner of any of them agrees to."""
    stage: Literal["hidden"] = "hidden"

    def confirm(
        self, there: list[int], fewest: int = LEAST
    ) -> tuple["Confirmed", dict[int, bytes]]:
        """Say to the others which list of nodes this node was told.

        Parameters
        ----------
        there : list[int]
            Places of all nodes whose masked vectors have come, in ascending order.
        fewest : int
            Fewest of them that this node's owner agrees to now.

        Returns
        -------
        Confirmed
        dict[int, bytes]
            The word for each other member that is there, by its place.

        Raises
        ------
        SnowdropError
            If they are too few, this node is not among them, or they never shared.
        """
        members = self.members(there, fewest)
        said = {other: self._word(self.own, other, there) for other in members - {self.own}}
        return Confirmed(self, there), said

    def reveal(self, there: list[int], fewest: int = LEAST) -> dict[int, bytes]:
        """Shares of the seeds of all members, where all of them are in the sum.

        Parameters
        ----------
        there : list[int]
        fewest : int
            As in `confirm`.

        Returns
        -------
        dict[int, bytes]
            One share of each member, by place; never of both of its secrets.

        Raises
        ------
        SnowdropError
            As `confirm`, and if a member is missing or has another list of keys.
        """
        if self.members(there, fewest) != set(self.group) or not self.alike:
            raise SnowdropError("the nodes must confirm to each other first who is in the sum")
        return self.shares(there)

    def members(self, there: list[int], fewest: int) -> set[int]:
        """Those of the group that are there; the errors of `confirm`."""
        if there != sorted(set(there)):
            raise SnowdropError("malformed list of the nodes in the sum")
        members = set(there).intersection(self.group)
        if not members <= self.held.keys():
            raise SnowdropError("the sum is said to hold nodes that never shared their secrets")
        if self.own not in members:
            raise SnowdropError("the sum is said to be without this node")
        if len(members) < max(threshold(len(self.group)), self.fewest, fewest, LEAST):
            raise SnowdropError("the sum would be over too few nodes")
        return members

    def _word(self, speaker: int, other: int, there: Sequence[int]) -> bytes:
        """What one of a pair, this node or the other one, says of a list."""
        return keys.word(self.words[other], repr((speaker, list(there))).encode())

    def shares(self, there: list[int]) -> dict[int, bytes]:
        """One share of each member, of its seed where it is there, else of its mask."""
        return {
            other: shares.seed if other in there else shares.mask
            for other, shares in self.held.items()
        }

    def heard(self, there: list[int], said: Mapping[int, bytes]) -> int:
        """Members that have the same list of nodes, this one among them."""
        return 1 + sum(
            keys.is_word(said[other], self._word(other, other, there))
            for other in self.words.keys() & said.keys()
        )


@dataclass(frozen=True, config=_STORED)
class Confirmed:
    """A node that has said to the others which nodes are in the sum."""

    hidden: Hidden
    there: list[int]
    stage: Literal["confirmed"] = "confirmed"

    @property
    def session(self) -> str:
        return self.hidden.session

    def reveal(
        self, there: list[int], said: Mapping[int, bytes], fewest: int = LEAST
    ) -> dict[int, bytes]:
        """Shares of the seeds of members that are in the sum, and of the masks of the others.

        Parameters
        ----------
        there : list[int]
            As in `Hidden.confirm`.
        said : Mapping[int, bytes]
            What the others have said to this node, by place.
        fewest : int
            As in `Hidden.confirm`.

        Returns
        -------
        dict[int, bytes]
            As from `Hidden.reveal`.

        Raises
        ------
        SnowdropError
            As `Hidden.confirm`, and if this node has confirmed another list, or too few members
            have confirmed this one.
        """
        self.hidden.members(there, fewest)
        if there != self.there:
            raise SnowdropError("this node has confirmed another list of the nodes in the sum")
        if self.hidden.heard(there, said) < threshold(len(self.hidden.group)):
            raise SnowdropError("too few nodes have confirmed who is in the sum")
        return self.hidden.shares(there)


Stage = Joined | Sharing | Hidden | Confirmed

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
