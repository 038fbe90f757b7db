"""How nodes answer is asked once, and what they send is checked before it is used."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.errors import SnowdropError
from common.messages import QUERY_SYNTHETIC, SyntheticAnswer, SyntheticRequest
from common.settings import RunSettings
from server_app.crowd import Crowd
from server_app.nodes import Nodes
from server_app.silos import Silos, check_synthetic

WARM = 6
NAME, OTHER = "ab" * 8, "cd" * 8
SETTINGS = RunSettings.parse({"method": "ridge", "max_node_users": 3})


def lists(
    offsets: Any = (0, 2, 3), items: Any = (1, 4, 0), dtype: Any = np.int64
) -> dict[str, Any]:
    return {"offsets": np.array(offsets, np.int64), "items": np.array(items, dtype)}


def test_a_good_answer_is_taken_as_it_is() -> None:
    made = check_synthetic(
        SyntheticAnswer("both", NAME, 1.5, lists((0, 2, 3), (1, 4, 0))), [], WARM, SETTINGS
    )
    assert made is not None
    assert (made.name, made.epsilon, made.users) == (NAME, 1.5, 2)
    assert [made.histories.of(user).tolist() for user in (0, 1)] == [[1, 4], [0]]
    everything = lists((0, 6, 7), (*range(6), 0))
    assert check_synthetic(SyntheticAnswer("synthetic", NAME, None, everything), [], WARM, SETTINGS)


@pytest.mark.parametrize(
    ("answer", "known"),
    [(SyntheticAnswer("updates"), []), (SyntheticAnswer("synthetic", NAME, 3.0), [OTHER, NAME])],
)
def test_an_answer_without_users_brings_none(answer: SyntheticAnswer, known: list[str]) -> None:
    assert check_synthetic(answer, known, WARM, SETTINGS) is None


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (SyntheticAnswer("perhaps"), "none of updates, synthetic, both"),
        (SyntheticAnswer("updates", NAME), "answers with updates, and sends"),
        (SyntheticAnswer("updates", "", 1.0), "answers with updates, and sends"),
        (SyntheticAnswer("updates", "", None, lists()), "answers with updates, and sends"),
        (SyntheticAnswer("both", "", None, lists()), "have no name"),
        (SyntheticAnswer("both", "../../etc/passwd", None, lists()), "have no name"),
        (SyntheticAnswer("both", NAME, -1.0, lists()), "no number above 0"),
        (SyntheticAnswer("both", NAME, float("nan"), lists()), "no number above 0"),
        (SyntheticAnswer("both", NAME, float("inf"), lists()), "no number above 0"),
        (SyntheticAnswer("synthetic", NAME), "are not offsets and items"),
        (SyntheticAnswer("both", NAME, None, {**lists(), "names": lists()["items"]}),
         "are not offsets and items"),
        (SyntheticAnswer("both", NAME, None, lists(dtype=np.int32)), "items .* no int64"),
        (SyntheticAnswer("both", NAME, None, lists(items=[[1, 4, 0]])), "items .* no int64"),
        (SyntheticAnswer("both", NAME, None, lists([0], [])), "offsets .* do not fit"),
        (SyntheticAnswer("both", NAME, None, lists([], [])), "offsets .* do not fit"),
        (SyntheticAnswer("both", NAME, None, lists([1, 3])), "offsets .* do not fit"),
        (SyntheticAnswer("both", NAME, None, lists([0, 2])), "offsets .* do not fit"),
        (SyntheticAnswer("both", NAME, None, lists([0, 2, 2, 3])), "has no item"),
        (SyntheticAnswer("both", NAME, None, lists([0, 3, 2, 3])), "has no item"),
        (SyntheticAnswer("both", NAME, None, lists([0, 1, 2, 3, 4], [1, 2, 3, 4])),
         "claims 4 users, above max_node_users = 3"),
        (SyntheticAnswer("both", NAME, None, lists(items=[1, WARM, 0])), "none of the 6 warm"),
        (SyntheticAnswer("both", NAME, None, lists(items=[-1, 4, 0])), "none of the 6 warm"),
        (SyntheticAnswer("both", NAME, None, lists(items=[4, 1, 0])), "do not ascend"),
        (SyntheticAnswer("both", NAME, None, lists(items=[4, 4, 0])), "do not ascend"),
    ],
)  # fmt: skip
def test_a_crafted_answer_is_refused_in_a_sentence(answer: SyntheticAnswer, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        check_synthetic(answer, [], WARM, SETTINGS)


class Asked:
    """Nodes that answer what they are told to, and remember what they were asked."""

    def __init__(self, answers: dict[int, SyntheticAnswer | RecordDict]) -> None:
        self.answers = answers
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
        self.crowd = Crowd(0)
        self.asked: list[tuple[int, list[str]]] = []
        nodes = Nodes(self, None, 5.0)  # type: ignore[arg-type]
        self.nodes = nodes
        self.silos = Silos(SETTINGS, self.crowd, nodes, "v", WARM)
        self._replies: dict[str, Message] = {}

    def get_nodes(self) -> list[Any]:
        return [type("Info", (), {"node_id": n, "last_activated_at": ""}) for n in self.answers]

    def push_messages(self, messages: list[Message]) -> list[str]:
        names = []
        for message in messages:
            assert message.metadata.message_type == QUERY_SYNTHETIC
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = name = f"m{node}"
            known = SyntheticRequest.from_record(message.content).known
            self.asked.append((node, known))
            answer = self.answers[node]
            content = answer if isinstance(answer, RecordDict) else answer.to_record()
            self._replies[name] = Message(content, reply_to=message)
            names.append(name)
        return names

    def pull_messages(self, names: list[str]) -> list[Message]:
        return [self._replies.pop(name) for name in names if name in self._replies]


SOME = SyntheticAnswer("synthetic", NAME, 1.0, lists())


def test_each_node_is_asked_once_and_told_what_is_known() -> None:
    there = Asked({2: SOME, 3: SyntheticAnswer("updates")})
    there.silos.ask(takes_synthetic=True)
    there.silos.ask(takes_synthetic=True)
    assert there.asked == [(2, []), (3, [])]
    there.answers[7] = SyntheticAnswer("both", NAME)  # comes later, with a set that is here
    there.silos.ask(takes_synthetic=True)
    assert there.asked[2:] == [(7, [NAME])]
    assert there.crowd.users == 2
    assert there.silos.without_updates == [2]
    assert there.silos.with_heads_to_fit == [2]
    del there.answers[2]
    assert there.silos.with_heads_to_fit == []


@pytest.mark.parametrize(
    ("others", "alone"),
    [
        ([], True), (["synthetic"], True), (["updates"], False), (["both"], False),
        (["synthetic", "both"], False),
    ],
)  # fmt: skip
def test_rounds_are_the_servers_alone_where_nobody_trains(others: list[str], alone: bool) -> None:
    answers: dict[int, Any] = {2: SOME}
    for number, word in enumerate(others):
        own = "" if word == "updates" else OTHER
        answers[3 + number] = SyntheticAnswer(word, own, None, lists() if own else {})
    there = Asked(answers)
    assert not there.silos.on_the_server_alone
    there.silos.ask(takes_synthetic=True)
    assert there.silos.on_the_server_alone == alone


def test_a_node_that_is_refused_takes_no_part(caplog: pytest.LogCaptureFixture) -> None:
    bad = SyntheticAnswer("synthetic", OTHER, None, lists(items=[1, 400, 0]))
    there = Asked({2: SOME, 3: bad, 4: RecordDict(), 5: SyntheticAnswer("updates")})
    with caplog.at_level("WARNING", "snowdrop"):
        there.silos.ask(takes_synthetic=True)
    assert "node 3 is left out of this query.synthetic: an item of its synth" in caplog.text
    assert "node 4 is left out of this query.synthetic: malformed SyntheticAnswer" in caplog.text
    assert there.nodes.failed == 2
    assert there.crowd.names == [NAME]
    assert there.silos.without_updates == [2, 3]
    assert there.silos.with_heads_to_fit == [2]
    there.silos.ask(takes_synthetic=True)
    assert [node for node, _ in there.asked[4:]] == [4]  # which has not answered yet


def test_a_method_that_cannot_take_them_refuses_them(caplog: pytest.LogCaptureFixture) -> None:
    there = Asked({2: SOME, 3: SyntheticAnswer("updates")})
    with caplog.at_level("WARNING", "snowdrop"):
        there.silos.ask(takes_synthetic=False)
    assert "has a training of its own and cannot be trained on synthetic users" in caplog.text
    assert there.crowd.users == 0
    assert there.silos.without_updates == [2]


def test_what_came_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    there = Asked({2: SOME, 3: SyntheticAnswer("updates"), 4: SyntheticAnswer("both", NAME)})
    with caplog.at_level("INFO", "snowdrop"):
        there.silos.ask(takes_synthetic=True)
        there.silos.ask(takes_synthetic=True)
    (line,) = [r.getMessage() for r in caplog.records if "synthetic users have come" in r.message]
    assert line.startswith("2 synthetic users have come from 1 nodes, 0.00 MB in all")
    assert line.endswith("ε at most 1. 2 nodes train in rounds, 1 do not")
