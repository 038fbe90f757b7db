"""A node's stages of a masked sum: in order, once each, and nothing left on its disk."""

import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from client_app import app
from client_app.masked import FOLDER, MaskedSums
from client_app.partners import Partners
from client_app.policy import Policy
from client_app.withdrawal import withdraw_all
from common import messages
from common.errors import PolicyError, SnowdropError
from common.secure import keys
from common.secure.fixed_point import Field, Layout
from common.secure.member import Joined, PublicKeys, Told
from tests.client_app.test_app import Federation
from tests.client_app.test_policy import agreeing, assert_refused

SESSION = "s" * 16
OUT_OF_TURN = "out of turn, or a second time"
EVERYONE = [1, 2, 3]
CONFIRM = messages.ConfirmRequest(SESSION, EVERYONE)
UNMASK = messages.UnmaskRequest(SESSION, EVERYONE)
LAYOUT = Layout((Field("users", 10, bits=32),), 3)


def sums(folder: Path, run_id: int = 1, **policy: Any) -> MaskedSums:
    agreed = Policy(**policy)
    return MaskedSums(folder, run_id, agreed, Partners(folder / "policy.toml", agreed, signs=True))


class Group:
    """One node under test at place 1, and two others that follow the protocol."""

    request: RecordDict
    """What the node was asked last."""
    heard: messages.ConfirmAnswer

    def __init__(self, folder: Path, run_id: int = 1, **policy: Any) -> None:
        self.sums = sums(folder, run_id, **policy)
        self.folder, self.run_id = folder / FOLDER, run_id
        self.others = {place: Joined.anew(SESSION) for place in (2, 3)}

    @property
    def path(self) -> Path:
        """The one file of the node's sums of this run."""
        (path,) = self.paths()
        return path

    def paths(self) -> list[Path]:
        return list(self.folder.glob(f"{self.run_id}-*.json"))

    def keys(self, session: str = SESSION) -> messages.KeysAnswer:
        self.answer = self.sums.join(messages.KeysRequest(session, messages.TRAIN))
        return self.answer

    def list_of_keys(self, session: str = SESSION) -> messages.SharesRequest:
        public = [self.answer, *(one.public() for one in self.others.values())]
        channels, masks = [one.channel for one in public], [one.mask for one in public]
        return messages.SharesRequest(session, 1, [1, 2, 3], channels, masks, ["-"] * 3, [b"-"] * 3)

    def share(self, session: str = SESSION) -> messages.SharesAnswer:
        self.shared = self.sums.share(self.list_of_keys(session))
        return self.shared

    def masking(
        self, session: str = SESSION, layout: Layout = LAYOUT, following: str = ""
    ) -> messages.Masking:
        told = self.list_of_keys()
        group = {
            place: PublicKeys(*pair)
            for place, pair in enumerate(zip(told.channels, told.masks, strict=True), 1)
        }
        self.sharing = {place: one.share(place, group) for place, one in self.others.items()}
        shares = {place: sealed.shares[1] for place, (_, sealed) in self.sharing.items()}
        return messages.Masking.of(session, layout, shares, following)

    def confirmed_by_others(self) -> messages.ConfirmAnswer:
        """What the others say to the node of the list of everyone."""
        to_others = dict(zip(self.shared.places, self.shared.shares, strict=True))
        said: dict[int, bytes] = {}
        for place, (sharing, _) in self.sharing.items():
            other = 5 - place
            received = {1: to_others[place], other: self.sharing[other][1].shares[place]}
            hidden, _ = sharing.accept(received)
            said[place] = hidden.confirm(EVERYONE)[1][1]
        return messages.ConfirmAnswer(list(said), list(said.values()))


def test_stages_are_kept_for_this_account_alone_and_deleted_at_the_end(tmp_path: Path) -> None:
    group = Group(tmp_path)
    for stage in (group.keys, group.share, lambda: group.sums.accept(group.masking())):
        stage()
        assert stat.S_IMODE(group.path.stat().st_mode) == 0o600
    told = group.sums.reveal(UNMASK)
    assert sorted(told.places) == [1, 2, 3]
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["lock"]


@pytest.mark.parametrize("confirming", [False, True])
def test_no_stage_is_answered_twice_or_out_of_turn(tmp_path: Path, confirming: bool) -> None:
    group = Group(tmp_path)
    group.answer = Group(tmp_path / "other").keys()
    steps: dict[str, Callable[[], Any]] = {
        "share": group.share,
        "accept": lambda: group.sums.accept(group.masking()),
    }
    if confirming:
        steps["confirm"] = lambda: group.sums.confirm(CONFIRM)
        steps["reveal"] = lambda: group.sums.reveal(UNMASK, group.heard)
    else:
        steps["reveal"] = lambda: group.sums.reveal(UNMASK)
    group.heard = messages.ConfirmAnswer([2], [b"none"])
    for name in steps:  # nothing was joined
        with pytest.raises(SnowdropError, match=OUT_OF_TURN):
            steps[name]()
    group.keys()
    for due in steps:
        for name in steps.keys() - {due}:
            with pytest.raises(SnowdropError, match=OUT_OF_TURN):
                steps[name]()
        if due == "confirm":
            group.heard = group.confirmed_by_others()
        steps[due]()
        with pytest.raises(SnowdropError, match=OUT_OF_TURN):
            steps[due]()


def test_messages_of_another_session_are_refused(tmp_path: Path) -> None:
    group = Group(tmp_path)
    group.keys()
    with pytest.raises(SnowdropError, match=OUT_OF_TURN):
        group.share("another")
    group.share()
    with pytest.raises(SnowdropError, match=OUT_OF_TURN):
        group.sums.accept(group.masking("another"))
    group.sums.accept(group.masking())
    with pytest.raises(SnowdropError, match=OUT_OF_TURN):
        group.sums.reveal(messages.UnmaskRequest("another", [1, 2, 3]))


def test_a_new_sum_has_new_keys_and_forgets_the_last_one_of_its_run(tmp_path: Path) -> None:
    group, other = Group(tmp_path), Group(tmp_path, run_id=2)
    first = group.keys()
    group.share()
    other.keys()
    second = group.keys("another")
    assert first != second
    with pytest.raises(SnowdropError, match=OUT_OF_TURN):
        group.sums.accept(group.masking())
    other.share()  # another run's sum is not disturbed
    long_ago = time.time() - 100_000
    os.utime(other.path, (long_ago, long_ago))
    group.keys()
    assert not other.paths()


def test_the_next_sum_is_prepared_with_secrets_of_its_own_while_one_is_under_way(
    tmp_path: Path,
) -> None:
    group, other = Group(tmp_path), Group(tmp_path, run_id=11)
    other.keys()
    first = group.keys()
    group.share()
    masking = group.masking(following="next")
    group.sums.accept(masking)
    group.answer = group.sums.join_next(masking)
    assert len({first.channel, first.mask, group.answer.channel, group.answer.mask}) == 4
    assert len(group.paths()) == 2
    group.sums.reveal(UNMASK)
    assert len(group.paths()) == 1
    with pytest.raises(SnowdropError, match=OUT_OF_TURN):
        group.share()
    group.share("next")
    with pytest.raises(SnowdropError, match=OUT_OF_TURN):
        group.share("next")
    assert group.sums.accept(group.masking("next")).certain == 3
    group.keys("another")
    assert len(group.paths()) == len(other.paths()) == 1


@pytest.mark.parametrize("session", [SESSION, "../" * 9 + "tmp/evil"])
def test_a_word_for_a_sum_that_is_no_file_name_or_used_before_does_no_harm(
    tmp_path: Path, session: str
) -> None:
    group = Group(tmp_path)
    group.keys()
    group.share()
    group.sums.accept(masking := group.masking(following=session))
    group.answer = group.sums.join_next(masking)
    assert group.path.parent == tmp_path / FOLDER if session == SESSION else len(group.paths()) == 2
    with pytest.raises(SnowdropError, match=OUT_OF_TURN):
        group.sums.accept(group.masking())


def test_a_node_says_which_messages_it_answers_in_a_sum(tmp_path: Path) -> None:
    assert set(Group(tmp_path).keys().kinds) == {
        messages.TRAIN, messages.EVALUATE, messages.QUERY_COUNT, messages.QUERY_DESCRIBE,
    }  # fmt: skip
    limited = Group(tmp_path, answers=("train", "query.describe", "query.recommend"))
    assert limited.keys().kinds == [messages.TRAIN, messages.QUERY_DESCRIBE]


def test_the_owners_policy_is_asked_at_each_stage(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="answers"):
        Group(tmp_path, answers=("evaluate",)).keys()
    group = Group(tmp_path, fewest_participants=4)
    group.keys()
    with pytest.raises(PolicyError, match="fewest_participants"):
        group.share()
    group.sums = sums(tmp_path)
    group.share()
    group.sums.accept(group.masking())
    group.sums = sums(tmp_path, fewest_participants=4)
    for step in (lambda: group.sums.reveal(UNMASK), lambda: group.sums.confirm(CONFIRM)):
        with pytest.raises(SnowdropError, match="too few nodes"):
            step()
    assert group.paths()
    heard = group.confirmed_by_others()
    sums(tmp_path).confirm(CONFIRM)
    with pytest.raises(SnowdropError, match="too few nodes"):
        group.sums.reveal(UNMASK, heard)
    assert group.paths()


def test_a_node_on_a_ring_counts_those_alone_that_are_certain_to_be_in_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_app.masked.SMALLEST_RING", 3)
    monkeypatch.setattr("client_app.masked.certain", lambda members: members - 1)
    group = Group(tmp_path, fewest_participants=3)
    group.keys()
    with pytest.raises(PolicyError, match="fewest_participants"):
        group.share()
    group.sums = sums(tmp_path, fewest_participants=2)
    group.share()


@pytest.mark.parametrize("fewest", [1, 3])
def test_the_others_are_told_the_fewest_participants(tmp_path: Path, fewest: int) -> None:
    group = Group(tmp_path, fewest_participants=fewest)
    group.keys()
    group.share()
    group.masking()
    sealed = dict(zip(group.shared.places, group.shared.shares, strict=True))[2]
    told, _ = Told.read(keys.opened(group.sharing[2][0].others[1].channel, sealed))
    assert told.fewest == fewest


@pytest.mark.parametrize("change", [{"places": [1, 2]}, {"places": [1, 2, 2]}, {"masks": []}])
def test_malformed_lists_of_keys_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    group = Group(tmp_path)
    group.keys()
    with pytest.raises(SnowdropError, match=r"malformed|stands twice"):
        group.sums.share(replace(group.list_of_keys(), **change))


def test_withdrawing_deletes_what_is_kept_of_sums(tmp_path: Path) -> None:
    group = Group(tmp_path)
    group.keys()
    withdraw_all(tmp_path)
    assert not group.paths()


def counts_of(federation: Federation, layout: Layout, following: str = "") -> tuple[Group, Message]:
    """A node asked for counts of cold items, masked."""
    group = Group(federation.state_dir())
    for kind, body in (
        (messages.QUERY_KEYS, messages.KeysRequest(SESSION, messages.QUERY_COUNT)),
        (messages.QUERY_SHARES, None),
    ):
        reply = federation.send(kind, body or group.list_of_keys())
        if body:
            group.answer = messages.KeysAnswer.from_record(reply.content)
    request = messages.CountRequest(federation.index.version).to_record()
    group.request = group.masking(layout=layout, following=following).beside(request)
    return group, federation.send(messages.QUERY_COUNT, group.request)


def test_nobody_counts_twice_among_those_who_have_shared(tmp_path: Path) -> None:
    group = Group(tmp_path)
    group.keys()
    group.share()
    masking = group.masking()
    twice = replace(masking, sources=[2, 3, 3], shares=[*masking.shares, masking.shares[-1]])
    with pytest.raises(SnowdropError, match="a place stands twice among those who have shared"):
        group.sums.accept(twice)
    group.sums.accept(masking)


def test_withdrawing_while_an_answer_is_made_keeps_it_and_the_next_sum_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(tmp_path).announce()
    count = app._users_of_items

    def withdraw_meanwhile(node: Any, request: Any) -> Any:
        answer = count(node, request)
        withdraw_all(federation.state_dir())
        return answer

    monkeypatch.setattr(app, "_users_of_items", withdraw_meanwhile)
    _, reply = counts_of(federation, LAYOUT, following="next")
    assert_refused(reply, messages.QUERY_COUNT, "withdrawn")
    assert not list(federation.state_dir().glob(f"{FOLDER}/*.json*"))


def test_what_a_killed_process_was_writing_is_deleted_with_its_sum(tmp_path: Path) -> None:
    group = Group(tmp_path)
    group.keys()
    half = group.path.with_name(f".{group.path.name}.half")
    half.write_bytes(b"a secret")
    group.keys("another")
    assert not half.exists()


def test_a_node_that_takes_no_part_in_the_next_sum_still_answers_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = agreeing(tmp_path, {"fewest_participants": 3})
    group, reply = counts_of(federation, LAYOUT, following="next")
    group.answer = messages.KeysAnswer.found_beside(reply.content)
    following = replace(group.list_of_keys("next"), places=[1, 2])
    reply = federation.send(messages.QUERY_UNMASK, following.beside(UNMASK.to_record()))
    assert sorted(messages.UnmaskAnswer.from_record(reply.content).places) == [1, 2, 3]
    assert messages.SharesAnswer.found_beside(reply.content) is None
    assert "takes no part in the next sum: fewest_participants" in capsys.readouterr().err


def test_a_message_that_is_replayed_is_not_answered_again(tmp_path: Path) -> None:
    federation = Federation(tmp_path).announce()
    plain = messages.CountAnswer.from_record(federation.count().content)
    group, reply = counts_of(federation, LAYOUT)
    first = messages.MaskedAnswer.from_record(reply.content)
    assert (first.long.shape, first.short.shape) == ((1,), (10,))
    assert not np.isin(plain.users, first.short).any()
    again = federation.send(messages.QUERY_COUNT, group.request)
    assert again.error.code == messages.REFUSED


def test_a_node_without_the_catalogue_asks_for_it_and_can_still_answer(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    group, reply = counts_of(federation, LAYOUT)
    assert messages.status_of(reply.content) == messages.NEEDS_CATALOGUE
    federation.announce()
    reply = federation.send(messages.QUERY_COUNT, group.request)
    assert messages.MaskedAnswer.from_record(reply.content).short.shape == (10,)


def test_a_node_answers_masked_what_its_policy_refuses_to_answer_plainly(tmp_path: Path) -> None:
    federation = agreeing(tmp_path, {"secure_sums": True, "fewest_participants": 3})
    assert_refused(federation.count(), messages.QUERY_COUNT, "secure_sums")
    assert not counts_of(federation, LAYOUT)[1].has_error()
    federation = agreeing(tmp_path, {"fewest_participants": 4})
    assert_refused(counts_of(federation, LAYOUT)[1], messages.QUERY_COUNT, "fewest_participants")


def test_a_layout_that_is_not_of_the_answer_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path).announce()
    for fields in ((Field("users", 9, bits=32),), (Field("sums", 10, bits=32),)):
        assert counts_of(federation, Layout(fields, 3))[1].error.code == messages.REFUSED


def test_a_deployed_node_alone_waits_until_the_disk_has_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("common.durable.os.fsync", synced.append)
    group = Group(tmp_path / "deployed")
    for stage in (group.keys, group.share, lambda: group.sums.accept(group.masking())):
        synced.clear()
        stage()
        assert len(synced) == 2  # the file and its folder
    synced.clear()
    group.sums.reveal(UNMASK)
    assert len(synced) == 1  # the folder, from which the file is gone
    simulated = Federation(tmp_path / "simulated")
    synced.clear()
    request = messages.KeysRequest(SESSION, messages.TRAIN)
    assert simulated.send(messages.QUERY_KEYS, request).has_content()
    assert not synced
