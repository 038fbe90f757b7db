"""Talking to the nodes: who is there, asking all of them, and keeping those that answered well."""

import logging
import time
from collections.abc import Sequence
from typing import TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import messages
from common.catalogue import ItemIndex
from common.errors import SnowdropError

log = logging.getLogger("snowdrop")

Answer = TypeVar("Answer", bound=messages.Body)


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
        self.failed = 0

    def wait(self, count: int, seconds: float) -> None:
        """Wait until ``count`` nodes are there.

        Raises
        ------
        SnowdropError
            If fewer have come after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        shown = -1
        while (there := len(list(self._grid.get_node_ids()))) < count:
            if there != shown:
                log.info("waiting for nodes: %d of %d are there", there, count)
                shown = there
            if time.monotonic() > deadline:
                raise SnowdropError(
                    f"{there} of {count} nodes came within {seconds:g} s; start the others, or "
                    "set nodes to what there is"
                )
            time.sleep(0.2)

    def ask(
        self, kind: str, content: RecordDict, answer_type: type[Answer]
    ) -> list[tuple[int, Answer]]:
        """Send ``content`` to every node; the usable answers, by node id.

        A node that needs the catalogue is given it and asked again. Nodes that fail, answer late
        or send what cannot be read are left out, logged and counted in ``failed``.
        """
        unaware: list[int] = []
        replies = self._exchange(kind, content, sorted(self._grid.get_node_ids()))
        answers = self.parse(kind, replies, answer_type, unaware)
        if unaware:
            notice = messages.CatalogueNotice.of(self._index).to_record()
            self._exchange(messages.QUERY_CATALOGUE, notice, unaware)
            answers += self.parse(kind, self._exchange(kind, content, unaware), answer_type)
        return answers

    def parse(
        self,
        kind: str,
        replies: Sequence[Message],
        answer_type: type[Answer],
        unaware: list[int] | None = None,
    ) -> list[tuple[int, Answer]]:
        """The readable answers by node id; nodes that need the catalogue go into ``unaware``."""
        answers = []
        for reply in replies:
            node = reply.metadata.src_node_id
            if reply.has_error():
                self.refuse(node, kind, reply.error.reason)
            elif (
                unaware is not None
                and messages.status_of(reply.content) == messages.NEEDS_CATALOGUE
            ):
                unaware.append(node)
            else:
                try:
                    answers.append((node, answer_type.from_record(reply.content)))
                except SnowdropError as error:
                    self.refuse(node, kind, error)
        return answers

    def refuse(self, node: int, kind: str, why: object) -> None:
        """Count and log an answer that is not used."""
        self.failed += 1
        log.warning("node %d is left out of this %s: %s", node, kind, why)

    def messages_to(self, kind: str, content: RecordDict, ids: Sequence[int]) -> list[Message]:
        """One message to each node, with the round's timeout as time to live."""
        return [Message(content, node, kind, ttl=self._timeout) for node in ids]

    def _exchange(self, kind: str, content: RecordDict, ids: Sequence[int]) -> list[Message]:
        if not ids:
            return []
        sent = self.messages_to(kind, content, ids)
        replies = list(self._grid.send_and_receive(sent, timeout=self._timeout))
        came = {reply.metadata.src_node_id for reply in replies}
        for node in ids:
            if node not in came:
                self.refuse(node, kind, f"no answer within {self._timeout:g} s")
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)
