"""What the server of an attacked federation sees under masks, beside the plain sum."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from cli.attack.federation import ALL, Federation, name_of, users_of
from cli.attack.histories import Known, Reading, read
from cli.attack.options import GIVEN, world_for
from cli.attack.seen import Seen, added, seen_in
from cli.attack.verdict import judge
from common import messages
from common.secure.fixed_point import Layout, Vector
from server_app.masked import of_training
from tests.cli.attack.conftest import IN_ROUNDS
from tests.server_app.encoders import THEMES

ONE_SUM = {"method": "one-round", "encoder": THEMES, "server_device": "cpu"}
SUMS_OF_ROUNDS = IN_ROUNDS | {"table_start": "random", "dim": 32, "negatives": 1}


class Twice(Federation):
    """Asks nodes with the same users and secrets for the same without masks, and keeps it all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.masked: list[Seen] = []
        """What each node sends, read as if there were no masks."""
        self.plain: list[Seen] = []
        """What each node sends without masks."""
        self.steps: dict[int, Vector] = {}
        """The sum of that in each round, in the whole steps of masked vectors."""
        self.total: dict[int, Seen] = {}
        """What it shows."""
        self._with_masks = self.grid.deliver
        self._without_masks = self.without((), self.folder / "plain").grid.deliver
        self.grid.deliver = self._deliver  # type: ignore[method-assign]

    def _deliver(self, message: Message) -> Message | None:
        kind, node = message.metadata.message_type, message.metadata.dst_node_id
        records = {name: record for name, record in message.content.items()
                   if name != messages.Masking.RECORD}  # fmt: skip
        masking = messages.Masking.found_beside(message.content)
        reply = self._with_masks(message)
        if kind in {messages.QUERY_CATALOGUE, messages.TRAIN}:
            plain = self._without_masks(Message(RecordDict(records), node, kind))
            assert reply is not None and plain is not None
            if masking is not None and not messages.status_of(reply.content):
                request = messages.TrainRequest.from_record(message.content)
                answer = messages.TrainAnswer.from_record(plain.content)
                hidden = messages.MaskedAnswer.from_record(reply.content)
                self._keep(node, request, masking.layout(), answer, hidden.vector())
        return reply

    def _keep(
        self,
        node: int,
        request: messages.TrainRequest,
        layout: Layout,
        plain: messages.TrainAnswer,
        hidden: Vector,
    ) -> None:
        expected, number = self.training.method.expected(), request.round

        def seen(source: str, answer: messages.Body, users: int = 0) -> Seen:
            assert isinstance(answer, messages.TrainAnswer)
            answer = replace(answer, users=users or answer.users)
            return seen_in(source, number, request.scale, answer, expected, {})

        decoded = of_training(expected, self.settings).answer
        self.plain.append(seen(name_of(node), plain))
        # How many users a node has is known anyway.
        self.masked.append(seen(name_of(node), decoded(layout.decode(hidden)), plain.users))
        steps = self.steps.setdefault(number, Vector.zeros(*layout.sizes()))
        steps.add(layout.encode(plain.numbers()))
        self.total[number] = seen(ALL, decoded(layout.decode(steps)))


def trained(
    data: Path, folder: Path, given: dict[str, Any], users: int, size: int, rounds: int
) -> Twice:
    """A federation of nodes with ``size`` users each, after its rounds under secure sums."""
    values = {name: value for name, value in given.items() if name not in GIVEN}
    world, rounds = world_for(
        {**values, "secure_sums": True, "data": str(data)}, rounds, None, folder
    )
    frame, drawn = users_of(world.settings, world, users)
    made = Twice(world, frame, drawn, size, folder / "nodes")
    made.train(rounds)
    assert not made.refused
    return made


def claims(readings: Sequence[Reading]) -> dict[str, Any]:
    """What each attack claims, in no order."""
    return {
        one.attack: (
            sorted(tuple(claim.tolist()) for own in one.people.values() for claim in own),
            {source: items.tolist() for source, items in one.anybody.items()},
        )
        for one in readings
    }


@pytest.mark.parametrize(
    ("given", "rounds", "users", "size"),
    [(ONE_SUM, 1, 10, 1), (SUMS_OF_ROUNDS, 2, 10, 1), (SUMS_OF_ROUNDS, 2, 9, 3)],
    ids=["one sum, one-user nodes", "rounds, one-user nodes", "rounds, nodes of three users"],
)
def test_no_attack_on_masked_messages_beats_it_on_the_plain_sum(
    data_folder: Path, tmp_path: Path, given: dict[str, Any], rounds: int, users: int, size: int
) -> None:
    made = trained(data_folder, tmp_path, given, users, size, rounds)
    total = [made.total[number] for number in range(1, rounds + 1)]
    for one, same, plain in zip(made.seen, total, added(made.plain, ALL), strict=True):
        assert (one.source, one.round, one.users) == (ALL, plain.round, users)
        for name, numbers in one.sums.items():
            np.testing.assert_array_equal(numbers, same.sums[name])
            np.testing.assert_allclose(numbers, plain.sums[name], rtol=0, atol=1e-6)
    known = Known.of(made.settings, len(made.training.index.rows("warm")))
    of_sum = claims(read(total, known))
    assert any(people for people, _ in of_sum.values())  # the sum itself gives people away
    assert claims(read(made.seen, known)) == of_sum
    if size == 1:  # of a crowd an attack names pairs of items, which can be right by chance
        from_plain, from_masked = (
            [judge(reading, made.truth()) for reading in read(seen, known)]
            for seen in (made.plain, made.masked)
        )
        assert max(verdict.exact or 0 for verdict in from_plain) == users
        assert from_masked and not any(verdict.linked for verdict in from_masked)
