"""Whom the server waits for: nodes that leave, come back, answer late, or cannot be reached."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from cli.in_process import InProcessGrid
from common import messages
from common.catalogue import ItemIndex
from common.errors import SnowdropError
from server_app import nodes as nodes_module
from server_app.nodes import Nodes

INDEX = ItemIndex(("a", "b"), ("warm", "test"))
QUESTION = messages.DescribeRequest(INDEX.version).to_record()
ANSWER = messages.RecommendAnswer(3).to_record()
KIND = messages.QUERY_DESCRIBE


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeGrid(InProcessGrid):
    """Nodes whose coming, going and answering each test decides.

    ``since`` gives the times at which nodes became active; ``answers`` what each answers, as a
    function of the seconds since it was asked, None as long as there is nothing.
    """

    def __init__(self, clock: Clock, *nodes: int) -> None:
        super().__init__(0, {})
        self.clock = clock
        self.since: dict[int, str] = dict.fromkeys(nodes, "08:00")
        self.happens: dict[float, Callable[[], None]] = {}
        self.answers: dict[int, Callable[[Message, float], Message | None]] = {}
        self.pushed: list[Message] = []
        self._asked: dict[str, tuple[Message, float]] = {}
        self._count = itertools.count()

    def get_nodes(self) -> Iterable[NodeInfo]:
        for moment in [m for m in self.happens if m <= self.clock.now]:
            self.happens.pop(moment)()
        return [NodeInfo(node_id=n, last_activated_at=s) for n, s in self.since.items()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names = []
        for message in messages:
            self.pushed.append(message)
            name = f"message-{next(self._count)}"
            message.metadata.__dict__["_message_id"] = name
            self._asked[name] = message, self.clock.now
            names.append(name)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = []
        for name in message_ids:
            message, begin = self._asked[name]
            answer = self.answers.get(message.metadata.dst_node_id, after(0))
            if (reply := answer(message, self.clock.now - begin)) is not None:
                replies.append(reply)
        return replies


def after(seconds: float, content: RecordDict = ANSWER) -> Callable[..., Message | None]:
    """A node that answers so long after it was asked."""
    return lambda message, age: Message(content, reply_to=message) if age >= seconds else None


def never(message: Message, age: float) -> None:
    return None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(nodes_module, "time", clock)
    yield clock


def ask(grid: FakeGrid, timeout: float = 600.0) -> tuple[Nodes, list[int]]:
    """The nodes whose answers were usable."""
    nodes = Nodes(grid, INDEX, timeout)
    answers = nodes.ask(KIND, QUESTION, messages.RecommendAnswer)
    return nodes, [node for node, _ in answers]


def test_all_answers_come_back_by_node(clock: Clock) -> None:
    grid = FakeGrid(clock, 7, 3, 5)
    grid.answers[3] = after(4.0)
    nodes, answered = ask(grid)
    assert answered == [3, 5, 7]
    assert nodes.failed == 0
    assert all(m.metadata.ttl == 600.0 for m in grid.pushed)
    assert clock.now - 1000 < 5


def test_a_node_that_left_is_not_waited_for(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = never
    grid.happens[1001.0] = lambda: grid.since.pop(3) and None
    with caplog.at_level(logging.WARNING, "snowdrop"):
        nodes, answered = ask(grid)
    assert answered == [5]
    assert nodes.failed == 1
    assert "it left before it answered" in caplog.text
    assert clock.now - 1000 < 10


def test_a_node_that_left_before_it_was_asked_is_not_waited_for(clock: Clock) -> None:
    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = never
    seen = iter([{3: "08:00", 5: "08:00"}])
    nodes = Nodes(grid, INDEX, 600.0)
    nodes._online = lambda: next(seen, {5: "08:00"})  # type: ignore[method-assign]
    assert [n for n, _ in nodes.ask(KIND, QUESTION, messages.RecommendAnswer)] == [5]
    assert clock.now - 1000 < 10


def test_a_node_that_was_restarted_is_not_waited_for(clock: Clock) -> None:
    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = never
    grid.happens[1001.0] = lambda: grid.since.update({3: "09:00"})
    nodes, answered = ask(grid)
    assert (answered, nodes.failed) == ([5], 1)
    assert clock.now - 1000 < 10
    grid.answers[3] = after(0)
    assert ask(grid)[1] == [3, 5]  # and it takes part in the next


def test_what_a_node_sent_before_it_left_is_used(clock: Clock) -> None:
    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = after(3.0)
    grid.happens[1001.0] = lambda: grid.since.pop(3) and None
    nodes, answered = ask(grid)
    assert (answered, nodes.failed) == ([3, 5], 0)


def test_a_late_answer_is_not_waited_for(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = after(31.0)
    with caplog.at_level(logging.WARNING, "snowdrop"):
        nodes, answered = ask(grid, timeout=30.0)
    assert (answered, nodes.failed) == ([5], 1)
    assert "no answer within 30 s" in caplog.text
    assert clock.now - 1000 == pytest.approx(30, abs=1)


def test_hundreds_of_late_nodes_are_told_in_a_few_lines(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    grid = FakeGrid(clock, *range(2, 302))
    for node in range(3, 302):
        grid.answers[node] = never
    with caplog.at_level(logging.WARNING, "snowdrop"):
        nodes, answered = ask(grid, timeout=30.0)
    assert (answered, nodes.failed) == ([2], 299)
    assert len(caplog.records) == 11
    assert caplog.messages[0].startswith("node 3 is left out")
    assert caplog.messages[10].startswith("289 more nodes are left out of this ")


def test_an_error_from_the_superlink_is_the_nodes_answer(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def unavailable(message: Message, age: float) -> Message:
        reply = Message(Error(code=3, reason="node unavailable"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1  # the SuperLink, not the node
        return reply

    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = unavailable
    with caplog.at_level(logging.WARNING, "snowdrop"):
        nodes, answered = ask(grid)
    assert (answered, nodes.failed) == ([5], 1)
    assert "node 3 is left out of this query.describe: node unavailable" in caplog.text
    assert clock.now == 1000.0


@pytest.mark.parametrize("taken", [["one", None], []])
def test_what_the_superlink_does_not_take_is_not_waited_for(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, taken: list[str | None]
) -> None:
    grid = FakeGrid(clock, 3, 5)
    monkeypatch.setattr(grid, "push_messages", lambda messages: list(messages) and taken)
    pulled: list[Any] = []
    monkeypatch.setattr(grid, "pull_messages", lambda names: pulled.extend(names) or [])
    nodes, answered = ask(grid, timeout=1.0)
    assert (answered, nodes.failed) == ([], 2)
    assert set(pulled) <= {"one"}


def test_a_node_that_needs_the_catalogue_is_told_and_asked_again(clock: Clock) -> None:
    told: list[int] = []

    def forgetful(message: Message, age: float) -> Message:
        if message.metadata.message_type == messages.QUERY_CATALOGUE:
            told.append(message.metadata.dst_node_id)
            return Message(messages.status_record("kept"), reply_to=message)
        status = messages.status_record(messages.NEEDS_CATALOGUE)
        return Message(ANSWER if told else status, reply_to=message)

    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = forgetful
    nodes, answered = ask(grid)
    assert (sorted(answered), nodes.failed, told) == ([3, 5], 0, [3])


def test_a_node_that_says_kept_for_ever_is_asked_no_more_than_twice(clock: Clock) -> None:
    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = after(0, messages.status_record(messages.KEPT))
    nodes, answered = ask(grid)
    assert (answered, nodes.failed) == ([5], 1)
    assert len([m for m in grid.pushed if m.metadata.dst_node_id == 3]) == 1
    asked = {messages.QUERY_CATALOGUE: messages.KEPT}

    def forgetful(message: Message, age: float) -> Message:
        status = asked.get(message.metadata.message_type, messages.NEEDS_CATALOGUE)
        asked[KIND] = messages.KEPT
        return Message(messages.status_record(status), reply_to=message)

    grid.pushed.clear()
    grid.answers[3] = forgetful
    nodes, answered = ask(grid)
    assert (answered, nodes.failed) == ([5], 1)
    assert len([m for m in grid.pushed if m.metadata.dst_node_id == 3]) == 3


def test_a_nodes_words_stay_on_one_line_of_the_log(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def shouts(message: Message, age: float) -> Message:
        reason = "\x1b[2Jgone\nround 1: all is well" + "!" * 10_000
        return Message(Error(code=3, reason=reason), reply_to=message)

    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = shouts
    with caplog.at_level(logging.WARNING, "snowdrop"):
        ask(grid)
    (told,) = [record.getMessage() for record in caplog.records]
    assert "gone round 1" in told
    assert told.isprintable()
    assert len(told) < 600


def test_bytes_are_counted_for_each_node(clock: Clock) -> None:
    def bytes_of(content: RecordDict) -> int:
        return sum(
            record.count_bytes()
            for part in (content.array_records, content.config_records)
            for record in part.values()
        )

    up = messages.CountAnswer(np.zeros(1000, np.int64)).to_record()
    assert bytes_of(up) > 8000
    grid = FakeGrid(clock, 3, 5, 7)
    grid.answers |= {3: after(0, up), 5: after(0, up), 7: never}
    nodes = Nodes(grid, INDEX, 1.0)
    for _ in range(2):
        nodes.ask(KIND, QUESTION, messages.CountAnswer)
    assert nodes.traffic.down == 6 * bytes_of(QUESTION)
    assert nodes.traffic.up == 4 * bytes_of(up)
    assert nodes.traffic.down_per_node == 2 * bytes_of(QUESTION)
    assert nodes.traffic.up_per_node == 2 * bytes_of(up)


def test_nobody_there_is_nobody_asked(clock: Clock) -> None:
    nodes, answered = ask(FakeGrid(clock))
    assert answered == []
    assert nodes.traffic.down_per_node == nodes.traffic.up_per_node == 0


def test_waiting_for_nodes_can_be_content_with_fewer(clock: Clock) -> None:
    grid = FakeGrid(clock, 3)
    nodes = Nodes(grid, INDEX, 1.0)
    nodes.wait(3, 20.0, at_least=1)
    assert clock.now - 1000 == pytest.approx(20, abs=0.5)
    with pytest.raises(SnowdropError, match="1 of 3 nodes came within 20 s"):
        nodes.wait(3, 20.0)
    grid.happens[clock.now + 2] = lambda: grid.since.update({4: "", 5: ""})
    begin = clock.now
    nodes.wait(3, 20.0)
    assert clock.now - begin < 3


def test_a_node_that_does_not_agree_is_counted_and_told_of(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server's log says of a policy is what the node said, and what to do."""
    said = "its owner has not agreed to this query.describe: answers: ask the owner"
    grid = FakeGrid(clock, 3, 5)
    grid.answers[3] = lambda message, age: Message(
        Error(code=messages.OUTSIDE_POLICY, reason=said), reply_to=message
    )
    with caplog.at_level(logging.WARNING, "snowdrop"):
        nodes, answered = ask(grid)
    assert answered == [5]
    assert (nodes.failed, nodes.unwilling, nodes.overflowed) == (1, 1, 0)
    assert f"node 3 is left out of this query.describe: {said}" in caplog.text
