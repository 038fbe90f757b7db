"""Masked sums over the nodes: the stages as messages, and what comes of them as one answer."""

import logging
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flwr.app import Message, RecordDict

from common import messages
from common.discrete import EXPONENT, STEP
from common.errors import SnowdropError
from common.secure.fixed_point import CLIPPED, Field, Layout, Vector
from common.secure.groups import certain, neighbourhoods
from common.secure.member import PublicKeys
from common.secure.total import Total
from common.settings import LEAST, RunSettings
from server_app.aggregation import Expected
from server_app.nodes import Nodes

log = logging.getLogger("snowdrop")


@dataclass(frozen=True)
class Summed:
    """What is asked of the nodes' answers together.

    Parameters
    ----------
    fields : tuple[Field, ...]
    answer : Callable
        What sums by field mean, as the answer of one node that had all users.
    """

    fields: tuple[Field, ...]
    answer: Callable[[Mapping[str, np.ndarray]], messages.Body]
    noise: float = 0.0
    """Least standard deviation of the noise that nodes add under the masks together."""


def of_training(expected: Mapping[str, Expected], settings: RunSettings) -> Summed:
    """The sums of a round of training."""
    fields = [Field("users", 1)]
    if not settings.hides_losses:
        fields.append(Field("loss_sum", 1, EXPONENT))
    for name, one in expected.items():
        size = int(np.prod(one.shape))
        counts = bool(one.counts)
        fields.append(Field(f"sums.{name}", size, 0 if counts else EXPONENT, 32 if counts else 64))

    def answer(found: Mapping[str, np.ndarray]) -> messages.TrainAnswer:
        sums = {
            name: _as_sent(found[f"sums.{name}"].reshape(one.shape), one, settings)
            for name, one in expected.items()
        }
        loss = None if settings.hides_losses else float(found["loss_sum"][0])
        return messages.TrainAnswer(int(found["users"][0]), loss, sums)

    noise = settings.gaussian_scale if settings.noise_by == "sum" else 0.0
    return Summed(tuple(fields), answer, noise)


def _as_sent(numbers: np.ndarray, one: Expected, settings: RunSettings) -> np.ndarray:
    """A sum in the dtype in which a node would send it."""
    if one.whole:
        return np.rint(numbers / STEP).astype(np.int64)
    return numbers.astype(np.int64 if one.counts else settings.wire_dtype)


def of_metrics(forms: Sequence[int], names: Sequence[str]) -> Summed:
    """The sums of some rankings' metrics."""
    fields = messages.EvaluateAnswer.fields(forms, names)
    return Summed(fields, lambda found: messages.EvaluateAnswer.of_sums(found, names))


def of_counts(rows: int) -> Summed:
    """The number of users of each cold item."""
    return Summed(
        (Field("users", rows, bits=32),),
        lambda found: messages.CountAnswer(found["users"].astype(np.int64)),
    )


def replies(
    nodes: Nodes, asked: Sequence[Message], summed: Summed, settings: RunSettings
) -> list[Message]:
    """The nodes' replies, or with ``secure_sums`` one reply of all of them together."""
    if not settings.secure_sums:
        return nodes.exchange(asked)
    every = not settings.nodes_per_round
    if (sums := total_of(nodes, asked, summed.fields, summed.noise, prepares=every)) is None:
        return []
    return [nodes.as_reply(asked[0], summed.answer(sums).to_record())]


def total_of(
    nodes: Nodes,
    asked: Sequence[Message],
    fields: tuple[Field, ...],
    noise: float = 0.0,
    prepares: bool = False,
) -> dict[str, np.ndarray] | None:
    """Sums over the nodes' answers to some messages, by field.

    Parameters
    ----------
    nodes : Nodes
    asked : Sequence[Message]
        One to a node.
    fields : tuple[Field, ...]
    noise : float
        Least standard deviation of the noise that nodes add under the masks together.
    prepares : bool
        Whether another sum over the same nodes is likely to follow. Its keys and shares then travel
        with this one's messages.

    Returns
    -------
    dict or None
        None where too few nodes were there to the end; the log says so.
    """
    if not asked:
        return None
    kind = asked[0].metadata.message_type
    try:
        return _Protocol(nodes, asked, fields, noise).run(prepares)
    except SnowdropError as error:
        log.warning("the secure sum of this %s came to nothing: %s", kind, error)
        return None


@dataclass(frozen=True, eq=False)
class Joined:
    """Nodes that have told their keys for a sum."""

    session: str
    nodes: dict[int, int]
    """Id of each place."""
    told: dict[int, messages.KeysAnswer]
    groups: dict[int, tuple[int, ...]]
    """As `common.secure.groups.neighbourhoods` has them."""

    @cached_property
    def places(self) -> dict[int, int]:
        """Place of each node, by its id."""
        return {node: place for place, node in self.nodes.items()}

    @classmethod
    def of(cls, session: str, answers: Sequence[tuple[int, messages.KeysAnswer]]) -> "Joined":
        """Nodes by their ids, in groups that are drawn now."""
        rng = np.random.default_rng(secrets.randbits(128))
        places = range(1, len(answers) + 1)
        return cls(
            session,
            {place: node for place, (node, _) in zip(places, answers, strict=True)},
            {place: answer for place, (_, answer) in zip(places, answers, strict=True)},
            neighbourhoods(places, rng),
        )

    def requests(self) -> dict[int, messages.SharesRequest]:
        """What each node, by its id, is asked for next."""
        requests: dict[int, messages.SharesRequest] = {}
        for place, node in self.nodes.items():
            told = [self.told[other] for other in self.groups[place]]
            requests[node] = messages.SharesRequest(
                session=self.session,
                own=place,
                places=list(self.groups[place]),
                channels=[one.channel for one in told],
                masks=[one.mask for one in told],
                signers=[one.signer for one in told],
                signatures=[one.signature for one in told],
            )
        return requests

    def shared(
        self, nodes: Nodes, kind: str, answers: Sequence[tuple[int, messages.SharesAnswer]]
    ) -> "Shared":
        """Those whose answers, by node id, are right; the others are left out of this ``kind``."""
        right: dict[int, messages.SharesAnswer] = {}
        for node, answer in answers:
            place = self.places[node]
            group, told = list(self.groups[place]), sorted((place, *answer.places))
            if told == group and len(answer.shares) == len(answer.places):
                right[place] = answer
            else:
                nodes.refuse(node, kind, "its shares are not for its group")
        return Shared(self, right)


@dataclass(frozen=True, eq=False)
class Shared:
    """Nodes that have shared their secrets for a sum, each of them with its group."""

    joined: Joined
    answers: dict[int, messages.SharesAnswer]
    """Of each place."""

    def among(self, asked: Collection[int]) -> "Shared":
        """Those with these ids; the others are as if they had not shared."""
        nodes = self.joined.nodes
        answers = {place: own for place, own in self.answers.items() if nodes[place] in asked}
        return Shared(self.joined, answers)

    def answer(self, kind: str) -> bool:
        """Whether all of them answer that kind of message in a sum."""
        return all(kind in self.joined.told[place].kinds for place in self.answers)

    def sent_to(self, place: int) -> dict[int, bytes]:
        """What the others have sent to a node, by their places."""
        sent: dict[int, bytes] = {}
        for other, own in self.answers.items():
            if other != place and place in self.joined.groups[other]:
                sent[other] = own.shares[own.places.index(place)]
        return sent

    def total(self, layout: Layout) -> Total:
        """Their sum, to which nobody has added yet."""
        told = self.joined.told.items()
        public = {place: PublicKeys(answer.channel, answer.mask) for place, answer in told}
        commitments = {place: answer.commitment for place, answer in self.answers.items()}
        return Total(public, self.joined.groups, Vector.zeros(*layout.sizes()), commitments)


class _Protocol:
    """One masked sum, stage by stage (`common.secure`)."""

    def __init__(
        self, nodes: Nodes, asked: Sequence[Message], fields: tuple[Field, ...], noise: float
    ) -> None:
        self._nodes, self._fields, self._noise = nodes, fields, noise
        self._asked = {message.metadata.dst_node_id: message for message in asked}
        self._kind = asked[0].metadata.message_type

    def run(self, prepares: bool) -> dict[str, np.ndarray]:
        """The sums by field.

        Parameters
        ----------
        prepares : bool
            Whether the nodes shall share their secrets for the next sum, too.

        Raises
        ------
        SnowdropError
            If too few nodes are there at some stage.
        """
        prepared = self._is_prepared()
        if not prepared:
            self._use(self._shares(self._keys()))
        self._enough(set(self._shared.answers), "have shared their secrets")
        following = self._masked(secrets.token_hex(16) if prepares else "")
        if prepared and self._all_replied and not self._is_enough(self._total.there):
            log.warning(
                "too few nodes could use what they had prepared for this %s: its sum begins anew",
                self._kind,
            )
            return self.run(prepares)  # nothing is prepared any more
        self._enough(self._total.there, "have sent their part")
        said = {} if self._everyone_is_there() else self._confirmed()
        liars = self._total.unmask(self._unmasking(following, said))
        for place in liars:
            self._nodes.refuse(self._node[place], messages.QUERY_UNMASK, "its shares are false")
        if self._noise:
            parts = sum(1 / certain(len(self._total.groups[k])) for k in self._total.there)
            log.info(
                "the sum of %d nodes carries noise of standard deviation %.4g",
                len(self._total.there), self._noise * parts**0.5,
            )  # fmt: skip
        found = self._layout.decode(self._total.vector)
        if clipped := int(found[CLIPPED][0]):
            log.warning(
                "%d numbers of this %s were too large for a masked sum and were clipped",
                clipped, self._kind,
            )  # fmt: skip
        return found

    def _is_prepared(self) -> bool:
        """Begin with what the last sum has prepared, if all nodes that are asked are in it."""
        prepared, self._nodes.shared = self._nodes.shared, None
        if prepared is None:
            return False
        shared = prepared.among(self._asked)
        if len(shared.answers) < len(self._asked) or not shared.answer(self._kind):
            return False
        self._use(shared)
        return self._is_enough(set(shared.answers))

    def _use(self, shared: Shared) -> None:
        self._shared, self._node, self._place = shared, shared.joined.nodes, shared.joined.places
        self._layout = Layout(self._fields, len(self._node))
        self._total = shared.total(self._layout)

    def _is_enough(self, there: set[int]) -> bool:
        return len(there) >= LEAST and self._total.enough(there)

    def _enough(self, there: set[int], did: str) -> None:
        if not self._is_enough(there):
            raise SnowdropError(
                f"{len(there)} of {len(self._node)} nodes {did}, and more than two thirds of a "
                f"node's group must, at least {LEAST}"
            )

    def _keys(self) -> Joined:
        kind, session = messages.QUERY_KEYS, secrets.token_hex(16)
        record = messages.KeysRequest(session, self._kind).to_record()
        replies = self._nodes.stage(kind, dict.fromkeys(self._asked, record))
        answers = self._nodes.usable(kind, replies, messages.KeysAnswer)
        if len(answers) < LEAST:
            raise SnowdropError(f"{len(answers)} nodes take part, and {LEAST} must")
        return Joined.of(session, answers)

    def _shares(self, joined: Joined) -> Shared:
        kind = messages.QUERY_SHARES
        contents = {node: request.to_record() for node, request in joined.requests().items()}
        answers = self._nodes.usable(kind, self._nodes.stage(kind, contents), messages.SharesAnswer)
        return joined.shared(self._nodes, kind, answers)

    def _masked(self, following: str) -> Joined | None:
        """Add up the masked vectors of the nodes that answer.

        Parameters
        ----------
        following : str
            Session of the next sum, or nothing.

        Returns
        -------
        Joined or None
            Those of them that have told their keys for the next sum.
        """
        asked = []
        for place in self._shared.answers:
            message, sent = self._asked[self._node[place]], self._shared.sent_to(place)
            masking = messages.Masking.of(
                self._shared.joined.session, self._layout, sent, following
            )
            node, ttl = message.metadata.dst_node_id, message.metadata.ttl
            asked.append(Message(masking.beside(message.content), node, self._kind, ttl=ttl))
        replies = self._nodes.exchange(asked)
        self._all_replied = len(replies) == len(asked)
        answers = self._nodes.usable(self._kind, replies, messages.MaskedAnswer)
        for node, answer in answers:
            try:
                self._total.add(self._place[node], answer.vector())
            except SnowdropError as error:
                self._nodes.refuse(node, self._kind, error)
        there = {self._node[place] for place in self._total.there}
        keys = self._nodes.beside(replies, messages.KeysAnswer, there)
        return Joined.of(following, keys) if len(keys) >= LEAST else None

    def _everyone_is_there(self) -> bool:
        """Whether no node is missing in any group, and all are in one."""
        every = set(self._node)
        return self._total.there == every == set(self._total.groups[min(every)])

    def _confirmed(self) -> dict[int, messages.ConfirmAnswer]:
        """What each node that is there is told by the others of its group, by its place."""
        kind, there = messages.QUERY_CONFIRM, sorted(self._total.there)
        request = messages.ConfirmRequest(self._shared.joined.session, there).to_record()
        contents = {self._node[place]: request for place in there}
        answers = self._nodes.usable(
            kind, self._nodes.stage(kind, contents), messages.ConfirmAnswer
        )
        heard: dict[int, dict[int, bytes]] = {self._place[node]: {} for node, _ in answers}
        for node, answer in answers:
            for listener, word in zip(answer.places, answer.words, strict=False):
                if listener in heard:
                    heard[listener][self._place[node]] = word
        self._enough(set(heard), "have confirmed who is in the sum")
        return {
            place: messages.ConfirmAnswer(list(said), list(said.values()))
            for place, said in heard.items()
        }

    def _unmasking(
        self, following: Joined | None, said: Mapping[int, messages.ConfirmAnswer]
    ) -> dict[int, dict[int, bytes]]:
        """Shares of each node's one secret or other, by the node that told them.

        Parameters
        ----------
        following : Joined or None
            Who is in the next sum; they share their secrets for it, too.
        said : Mapping[int, ConfirmAnswer]
            What each node is told by the others, by its place; nothing where all are there.
        """
        kind, there = messages.QUERY_UNMASK, sorted(self._total.there)
        next_requests = {} if following is None else following.requests()
        request = messages.UnmaskRequest(self._shared.joined.session, there).to_record()
        contents: dict[int, RecordDict] = {}
        for place in said or there:
            node, content = self._node[place], RecordDict(dict(request))
            if place in said:
                content = said[place].beside(content)
            if node in next_requests:
                content = next_requests[node].beside(content)
            contents[node] = content
        replies = self._nodes.stage(kind, contents)
        answers = self._nodes.usable(kind, replies, messages.UnmaskAnswer)
        if following is not None:
            told = self._nodes.beside(replies, messages.SharesAnswer, next_requests)
            self._nodes.shared = following.shared(self._nodes, kind, told)
        return {
            self._place[node]: dict(zip(answer.places, answer.shares, strict=False))
            for node, answer in answers
        }
