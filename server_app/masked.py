"""Masked sums over the nodes: the stages as messages, and what comes of them as one answer."""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict

from common import messages
from common.discrete import EXPONENT, STEP
from common.errors import SnowdropError
from common.secure.fixed_point import CLIPPED, Field, Layout, Vector
from common.secure.member import PublicKeys, threshold
from common.secure.total import Total, neighbourhoods
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
    if (sums := total_of(nodes, asked, summed.fields, summed.noise)) is None:
        return []
    return [nodes.as_reply(asked[0], summed.answer(sums).to_record())]


def total_of(
    nodes: Nodes, asked: Sequence[Message], fields: tuple[Field, ...], noise: float = 0.0
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

    Returns
    -------
    dict or None
        None where too few nodes were there to the end; the log says so.
    """
    if not asked:
        return None
    kind = asked[0].metadata.message_type
    try:
        return _Protocol(nodes, asked, fields, noise).run()
    except SnowdropError as error:
        log.warning("the secure sum of this %s came to nothing: %s", kind, error)
        return None


class _Protocol:
    """One masked sum, stage by stage (`common.secure`)."""

    def __init__(
        self, nodes: Nodes, asked: Sequence[Message], fields: tuple[Field, ...], noise: float
    ) -> None:
        self._nodes, self._fields, self._noise = nodes, fields, noise
        self._asked = {message.metadata.dst_node_id: message for message in asked}
        self._kind = asked[0].metadata.message_type
        self._session = secrets.token_hex(16)
        self._node: dict[int, int] = {}  # id of each place
        self._told: dict[int, messages.KeysAnswer] = {}

    def run(self) -> dict[str, np.ndarray]:
        """The sums by field.

        Raises
        ------
        SnowdropError
            If too few nodes are there at some stage.
        """
        public = self._keys()
        self._layout = Layout(self._fields, len(public))
        rng = np.random.default_rng(secrets.randbits(128))
        groups = neighbourhoods(sorted(public), rng)
        self._total = Total(public, groups, Vector.zeros(*self._layout.sizes()))
        sealed = self._shares()
        self._enough(set(sealed), "have shared their secrets")
        self._masked(sealed)
        self._enough(self._total.there, "have sent their part")
        liars = self._total.unmask(self._unmasking())
        for place in liars:
            self._nodes.refuse(self._node[place], messages.QUERY_UNMASK, "its shares are false")
        if self._noise:
            parts = sum(1 / threshold(len(self._total.groups[k])) for k in self._total.there)
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

    def _enough(self, there: set[int], did: str) -> None:
        if len(there) < LEAST or not self._total.enough(there):
            raise SnowdropError(
                f"{len(there)} of {len(self._node)} nodes {did}, and more than two thirds of a "
                f"node's group must, at least {LEAST}"
            )

    def _keys(self) -> dict[int, PublicKeys]:
        kind = messages.QUERY_KEYS
        record = messages.KeysRequest(self._session, self._kind).to_record()
        replies = self._nodes.stage(kind, dict.fromkeys(self._asked, record))
        answers = self._nodes.usable(kind, replies, messages.KeysAnswer)
        if len(answers) < LEAST:
            raise SnowdropError(f"{len(answers)} nodes take part, and {LEAST} must")
        self._node = {place: node for place, (node, _) in enumerate(answers, 1)}
        self._told = {place: answer for place, (_, answer) in enumerate(answers, 1)}
        return {
            place: PublicKeys(answer.channel, answer.mask) for place, answer in self._told.items()
        }

    def _shares(self) -> dict[int, dict[int, bytes]]:
        """What each node has sent for the others, by its place and theirs."""
        kind = messages.QUERY_SHARES
        contents: dict[int, RecordDict] = {}
        for place, node in self._node.items():
            group = list(self._total.groups[place])
            told = [self._told[other] for other in group]
            contents[node] = messages.SharesRequest(
                session=self._session,
                own=place,
                places=group,
                channels=[one.channel for one in told],
                masks=[one.mask for one in told],
                signers=[one.signer for one in told],
                signatures=[one.signature for one in told],
            ).to_record()
        answers = self._nodes.usable(kind, self._nodes.stage(kind, contents), messages.SharesAnswer)
        places = {node: place for place, node in self._node.items()}
        sealed: dict[int, dict[int, bytes]] = {}
        for node, answer in answers:
            own = dict(zip(answer.places, answer.shares, strict=False))
            if own.keys() | {places[node]} != set(self._total.groups[places[node]]):
                self._nodes.refuse(node, kind, "its shares are not for its group")
                continue
            sealed[places[node]] = own
            self._total.commitments[places[node]] = answer.commitment
        return sealed

    def _masked(self, sealed: Mapping[int, Mapping[int, bytes]]) -> None:
        """Add up the masked vectors of the nodes that answer."""
        asked = []
        for place in sealed:
            message = self._asked[self._node[place]]
            of_others = {other: own[place] for other, own in sealed.items() if place in own}
            masking = messages.Masking.of(self._session, self._layout, of_others)
            node, ttl = message.metadata.dst_node_id, message.metadata.ttl
            asked.append(Message(masking.beside(message.content), node, self._kind, ttl=ttl))
        answers = self._nodes.usable(self._kind, self._nodes.exchange(asked), messages.MaskedAnswer)
        places = {node: place for place, node in self._node.items()}
        for node, answer in answers:
            try:
                self._total.add(places[node], answer.vector())
            except SnowdropError as error:
                self._nodes.refuse(node, self._kind, error)

    def _unmasking(self) -> dict[int, dict[int, bytes]]:
        """Shares of each node's one secret or other, by the node that told them."""
        kind, there = messages.QUERY_UNMASK, self._total.there
        contents = {
            self._node[place]: messages.UnmaskRequest(
                self._session, sorted(there.intersection(self._total.groups[place]))
            ).to_record()
            for place in there
        }
        answers = self._nodes.usable(kind, self._nodes.stage(kind, contents), messages.UnmaskAnswer)
        places = {node: place for place, node in self._node.items()}
        return {
            places[node]: dict(zip(answer.places, answer.shares, strict=False))
            for node, answer in answers
        }
