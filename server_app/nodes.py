"""Talking to the nodes: who is there, asking all of them, and keeping those that answered well."""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import messages
from common.catalogue import ItemIndex
from common.errors import OverflowedError, PolicyError, SnowdropError

if TYPE_CHECKING:
    from server_app.masked import Shared

log = logging.getLogger("snowdrop")

Answer = TypeVar("Answer", bound=messages.Body)
Beside = TypeVar("Beside", bound=messages.Companion)

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_PAUSED = 0.1
"""Share of the time spent waiting so far that the next pause takes, between these two."""
_LOOK_SECONDS = 2.0
_LONGEST_REASON = 500
_MOST_NAMED = 10  # nodes that are named one by one where they are late together
_REFUSALS = {messages.OVERFLOWED: OverflowedError, messages.OUTSIDE_POLICY: PolicyError}
"""What an error reply says, by its code."""


ALL = 0
"""In place of a node's id, for what is of all nodes together; no node has it."""


@dataclass
class Traffic:
    """Bytes of messages and answers, as Flower's records count them."""

    down: int = 0
    up: int = 0
    asked: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)

    @property
    def down_per_node(self) -> int:
        """Bytes to a node, on average over those that were asked."""
        return self.down // max(len(self.asked), 1)

    @property
    def up_per_node(self) -> int:
        """Bytes from a node, on average over those that answered."""
        return self.up // max(len(self.answered), 1)


@dataclass
class Monitored:
    """What whoever watches a run may know of its messages, since it began."""

    answers: Counter[str] = field(default_factory=Counter)
    """Answers that could be read, by the kind of their messages."""
    failures: Counter[str] = field(default_factory=Counter)
    """Answers that were not used, or did not come, by the kind of their messages."""
    down: int = 0
    up: int = 0
    online: int = 0
    """Nodes that were there when that was last looked at."""
    answered: dict[int, str] = field(default_factory=dict)
    """When each node last answered, in ISO format, by its id."""


class Nodes:
    """The nodes behind a Flower `Grid`.

    Parameters
    ----------
    grid : Grid
    index : ItemIndex
        The catalogue that nodes are told of, when one says that it needs it.
    timeout : float
        Seconds that nodes have for an answer; also the messages' time to live.
    """

    def __init__(self, grid: Grid, index: ItemIndex, timeout: float) -> None:
        self._grid, self._index, self._timeout = grid, index, timeout
        self.failed = self.overflowed = self.unwilling = 0
        self.traffic = Traffic()
        self.monitored = Monitored()
        self.shared: Shared | None = None
        """Nodes that have shared their secrets for the next masked sum."""
        self._asked: dict[str, int] = {}  # node of each reply, by the message that it answers

    def wait(self, count: int, seconds: float, at_least: int | None = None) -> None:
        """Wait until ``count`` nodes are there; after ``seconds`` be content with ``at_least``.

        Raises
        ------
        SnowdropError
            If fewer have come by then.
        """
        deadline = time.monotonic() + seconds
        shown = -1
        while (there := len(self._online())) < count:
            if there != shown:
                log.info("waiting for nodes: %d of %d are there", there, count)
                shown = there
            if time.monotonic() > deadline:
                if there >= (count if at_least is None else at_least):
                    log.warning("going on with %d of %d nodes", there, count)
                    return
                raise SnowdropError(
                    f"{there} of {count} nodes came within {seconds:g} s; start the others, or "
                    "set nodes to what there is"
                )
            time.sleep(0.2)

    def there(self) -> list[int]:
        """Ids of the nodes that are there, ascending."""
        return sorted(self._online())

    def draw(self, count: int, seed: tuple[int, ...], without: Collection[int] = ()) -> list[int]:
        """Some ``count`` of the nodes that are there, but ``without`` some; 0: all of them."""
        there = [node for node in self.there() if node not in without]
        if not 0 < count < len(there):
            return there
        return sorted(np.random.default_rng(seed).choice(there, count, replace=False).tolist())

    def to_all(
        self,
        kind: str,
        content: RecordDict,
        among: Sequence[int] | None = None,
        tasks: int = 1,
    ) -> list[Message]:
        """One message to every node that is there, or to those ``among``.

        Nodes have ``timeout`` for each of the ``tasks`` that it asks for.
        """
        ids = self.there() if among is None else among
        return [Message(content, node, kind, ttl=self._timeout * tasks) for node in ids]

    def count_anew(self) -> Traffic:
        """Begin to count bytes from 0; what counts them from now on."""
        self.traffic = Traffic()
        return self.traffic

    def ask(
        self,
        kind: str,
        content: RecordDict,
        answer_type: type[Answer],
        among: Sequence[int] | None = None,
    ) -> list[tuple[int, Answer]]:
        """Send ``content`` to every node, or those ``among``; the usable answers, by node id."""
        return self.usable(kind, self.exchange(self.to_all(kind, content, among)), answer_type)

    def usable(
        self, kind: str, replies: Iterable[Message], answer_type: type[Answer]
    ) -> list[tuple[int, Answer]]:
        """What replies say, by node id; those that are errors or cannot be read are left out."""
        answers = []
        for reply in replies:
            about = reply.metadata
            # The SuperLink itself answers for a node that it cannot reach.
            node = self._asked.get(about.reply_to_message_id, about.src_node_id)
            if reply.has_error():
                refusal = _REFUSALS.get(reply.error.code, SnowdropError)
                self.refuse(node, kind, refusal(reply.error.reason))
                continue
            try:
                answers.append((node, answer_type.from_record(reply.content)))
                self.monitored.answers[kind] += 1
            except SnowdropError as error:
                self.refuse(node, kind, error)
        return answers

    def beside(
        self, replies: Iterable[Message], kind: type[Beside], among: Collection[int]
    ) -> list[tuple[int, Beside]]:
        """What stands beside the replies of nodes ``among``, by node id, where it can be read."""
        found = []
        for reply in replies:
            node = self._asked[reply.metadata.reply_to_message_id]
            if node not in among or reply.has_error():
                continue
            try:
                one = kind.found_beside(reply.content)
            except SnowdropError as error:
                self.refuse(node, _kind(reply), error)
                continue
            if one is not None:
                found.append((node, one))
        return found

    def refuse(self, node: int, kind: str, why: object) -> None:
        """Count and log an answer that is not used; ``why`` may be the node's own words."""
        self._count_failed(kind)
        self.overflowed += isinstance(why, OverflowedError)
        self.unwilling += isinstance(why, PolicyError)
        told = "".join(c if c.isprintable() else " " for c in str(why)[:_LONGEST_REASON])
        who = "the sum over all nodes" if node == ALL else f"node {node}"
        log.warning("%s is left out of this %s: %s", who, kind, told)

    def _count_failed(self, kind: str) -> None:
        self.failed += 1
        self.monitored.failures[kind] += 1

    def _give_up_on(self, asked: Sequence[Message], seconds: float) -> None:
        """Count nodes that have not answered, and name the first of them alone."""
        for message in asked[:_MOST_NAMED]:
            why = f"no answer within {seconds:g} s"
            self.refuse(message.metadata.dst_node_id, _kind(message), why)
        more = asked[_MOST_NAMED:]
        for message in more:
            self._count_failed(_kind(message))
        if more:
            log.warning(
                "%d more nodes are left out of this %s: no answer within %g s; if they are only "
                "slow, raise round_timeout",
                len(more), _kind(more[0]), seconds,
            )  # fmt: skip

    def as_reply(self, asked: Message, content: RecordDict) -> Message:
        """What all nodes together answer, as the one reply to a message of `exchange`."""
        reply = Message(content, reply_to=asked)
        self._asked[reply.metadata.reply_to_message_id] = ALL
        return reply

    def stage(self, kind: str, contents: Mapping[int, RecordDict]) -> list[Message]:
        """The replies to one message to each node, which has a content of its own."""
        return self.exchange(
            [Message(content, node, kind, ttl=self._timeout) for node, content in contents.items()]
        )

    def exchange(self, asked: Sequence[Message]) -> list[Message]:
        """Send messages, one to a node; the replies, by node id.

        A node that needs the catalogue is given it and asked again. Nodes that answer late or
        leave are left out, logged and counted in ``failed``.

        Flower's own `send_and_receive` looks every three seconds and waits for nodes that are
        gone; this one looks more often, gives up on a node that left or was restarted since, and
        tells a node the catalogue within the same time.
        """
        allowed = max((message.metadata.ttl for message in asked), default=self._timeout)
        deadline = time.monotonic() + allowed
        since = self._online()
        first = {message.metadata.dst_node_id: message for message in asked}
        waiting = self._send(asked)
        told: set[int] = set()
        again: set[int] = set()
        self._asked.clear()
        replies: dict[int, Message] = {}
        began = looked = time.monotonic()
        missing = set[int]()
        while waiting and time.monotonic() < deadline:
            for reply in self._grid.pull_messages(list(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id)
                status = self._received(node, reply)
                seconds = max(deadline - time.monotonic(), 1.0)
                if status == messages.NEEDS_CATALOGUE and node not in told:
                    told.add(node)
                    notice = messages.CatalogueNotice.of(self._index).to_record()
                    kind = messages.QUERY_CATALOGUE
                    waiting |= self._send([Message(notice, node, kind, ttl=seconds)])
                elif status == messages.KEPT and node in told - again:
                    again.add(node)
                    kind, content = first[node].metadata.message_type, first[node].content
                    waiting |= self._send([Message(content, node, kind, ttl=seconds)])
                else:
                    replies[node] = reply
                    self._asked[reply.metadata.reply_to_message_id] = node
            if waiting and time.monotonic() > looked + _LOOK_SECONDS:
                looked, now = time.monotonic(), self._online()
                gone = {n for n in waiting.values() if now.get(n) != since.get(n, "")}
                for name in [m for m, n in waiting.items() if n in gone & missing]:
                    left = waiting.pop(name)
                    self.refuse(left, _kind(first[left]), "it left before it answered")
                missing = gone  # seen twice: what it sent before it left has been pulled by then
            if waiting:
                waited = time.monotonic() - began
                time.sleep(min(max(waited * _PAUSED, _SHORTEST_PAUSE), _LONGEST_PAUSE))
        self._give_up_on([first[node] for node in sorted(waiting.values())], allowed)
        return [replies[node] for node in sorted(replies)]

    def _send(self, asked: Sequence[Message]) -> dict[str, int]:
        """Node of each message that the SuperLink took; it takes none that is too large for it."""
        if not asked:
            return {}
        ids = [message.metadata.dst_node_id for message in asked]
        self.traffic.asked.update(ids)
        down = sum(_size(message.content) for message in asked)
        self.traffic.down += down
        self.monitored.down += down
        names: list[str | None] = list(self._grid.push_messages(asked))
        taken: dict[str, int] = {}
        for message, node, name in zip(asked, ids, names or [None] * len(ids), strict=True):
            if name:
                taken[name] = node
            else:
                self.refuse(node, _kind(message), "the SuperLink did not take the message")
        return taken

    def _received(self, node: int, reply: Message) -> str | None:
        """Count a reply; the status word where it is one alone."""
        if not reply.has_content():
            return None
        up = _size(reply.content)
        self.traffic.answered.add(node)
        self.traffic.up += up
        self.monitored.up += up
        self.monitored.answered[node] = datetime.now(UTC).isoformat(timespec="seconds")
        return messages.status_of(reply.content)

    def _online(self) -> dict[int, str]:
        """Nodes that are there, with the time since which they are."""
        there = {node.node_id: node.last_activated_at for node in self._grid.get_nodes()}
        self.monitored.online = len(there)
        return there


def _kind(message: Message) -> str:
    return message.metadata.message_type


def _size(content: RecordDict) -> int:
    arrays = sum(record.count_bytes() for record in content.array_records.values())
    return arrays + sum(record.count_bytes() for record in content.config_records.values())
