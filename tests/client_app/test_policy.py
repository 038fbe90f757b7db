"""A node that can say no: what its policy refuses, and what the server is told."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from client_app import app as app_module
from client_app import interactions as interactions_module
from client_app import node as node_module
from client_app.ledger import Ledger
from client_app.policy import KINDS, PARTNERS, REFUSALS, Policy, Sums, template
from common import messages
from common.errors import PolicyError, SnowdropError
from common.metrics import metric_names
from common.privacy import Cost, gaussian_epsilon
from common.settings import KS, NodeSettings, RunSettings
from common.toml import toml_lines
from tests.client_app.test_app import ASK, KIND, USER_IDS, Federation, everything_in

NOISE = {"average": "users", "clip_norm": 1.0, "laplace_scale": 4.0}  # ε = 0.5 in a round


def agreeing(folder: Path, policy: dict[str, Any], **settings: Any) -> Federation:
    """A federation whose nodes have a policy, and know the catalogue."""
    folder.mkdir(exist_ok=True)
    path = folder / "policy.toml"
    path.write_text(toml_lines(policy))
    return Federation(folder, policy=str(path), **settings).announce()


def assert_refused(reply: Message, kind: str, entry: str) -> None:
    assert reply.has_error()
    assert reply.error.code == messages.OUTSIDE_POLICY
    assert reply.error.reason == (
        f"its owner has not agreed to this {kind}: {entry}: {REFUSALS[entry]}"
    )


@pytest.mark.parametrize(
    ("nodes", "strict"),
    [
        (1, {}),
        (2, {}),
        (3, {"secure_sums": True, "fewest_participants": 3}),
        (40, {"secure_sums": True, "fewest_participants": 3}),
    ],
)
def test_the_template_is_the_defaults_but_for_counts_and_secure_sums(
    tmp_path: Path, nodes: int, strict: dict[str, Any]
) -> None:
    (tmp_path / "policy.toml").write_text(template(nodes))
    written = Policy.read(tmp_path / "policy.toml")
    assert set(KINDS) - set(written.answers) == {messages.QUERY_COUNT}
    assert written.partners == PARTNERS
    changed = {"answers": written.answers, "partners": PARTNERS}
    assert written == Policy(**changed, **strict)
    assert Policy() == Policy.read(None)
    told = [line for line in template(nodes).splitlines() if line.startswith("#")]
    assert len(told) >= len(Policy.model_fields)
    assert all(len(line) <= 100 for line in told)
    assert ("runs with secure_sums = false are refused" in " ".join(told)) is bool(strict)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [({}, True), ({"secure_sums": True}, False), ({"fewest_participants": 2}, False)],
)
def test_plain_sums_are_allowed_where_they_are_answered(
    policy: dict[str, Any], allowed: bool
) -> None:
    agreed = Policy(**policy)
    assert agreed.allows_plain_sums is allowed
    with nullcontext() if allowed else pytest.raises(PolicyError):
        agreed.check(messages.TRAIN, Sums())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("answers = ['train', 'gossip']", "answers.1"),
        ("largest_dim = 0", "setting 'largest_dim' is 0"),
        ("epsilon_total = nan", "setting 'epsilon_total'"),
        ("epsilon_total = -1", "setting 'epsilon_total' is -1"),
        ("delta = 1.0", "setting 'delta' is 1.0"),
        ("fewest_user = 3", "unknown setting 'fewest_user'"),
        ("format = 2", "has format 2, this release reads up to 1"),
        ("fewest_users", "is no TOML"),
    ],
)
def test_a_policy_that_is_none_is_refused_in_a_sentence(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(SnowdropError, match=r"the policy .*policy\.toml") as error:
        Policy.read(path)
    assert told in str(error.value)
    assert "snowdrop settings" not in str(error.value)


@pytest.mark.parametrize("name", ASK)
def test_a_node_whose_policy_is_lost_answers_nothing(tmp_path: Path, name: str) -> None:
    federation = agreeing(tmp_path, {})
    (tmp_path / "policy.toml").unlink()
    reply = ASK[name](federation)
    assert reply.error.reason == f"{KIND[name]} ended in a refusal; the node's log says why"


@pytest.mark.parametrize("name", ASK)
def test_messages_that_are_not_answered(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("interactions were read")

    others = [kind for kind in KINDS if kind != KIND[name]]
    federation = agreeing(tmp_path, {"answers": others})
    with monkeypatch.context() as patched:
        patched.setattr(node_module, "load_interactions", read)
        patched.setattr(interactions_module, "load_interactions", read)
        reply = ASK[name](federation)
    assert_refused(reply, KIND[name], "answers")
    assert not any(user.encode() in everything_in(reply) for user in USER_IDS)
    for other, ask in ASK.items():
        assert ask(federation).has_error() == (KIND[other] == KIND[name])


def test_methods_and_sizes(tmp_path: Path) -> None:
    federation = agreeing(tmp_path, {"methods": ["mixture"]})
    assert_refused(federation.train(1), messages.TRAIN, "methods")
    own = agreeing(tmp_path / "own", {"methods": ["ridge", "mixture"]})
    assert not own.train(1).has_error()
    small = agreeing(tmp_path / "small", {"largest_dim": 3})
    assert_refused(small.train(1), messages.TRAIN, "largest_dim")
    assert_refused(small.recommend(), messages.QUERY_RECOMMEND, "largest_dim")
    assert not small.describe().has_error()
    assert not agreeing(tmp_path / "fits", {"largest_dim": 4}).train(1).has_error()


def test_an_answer_about_too_few_users_stays(tmp_path: Path) -> None:
    federation = agreeing(tmp_path, {})
    users = messages.DescribeAnswer.from_record(federation.describe().content).users
    federation = agreeing(tmp_path, {"fewest_users": users + 1})
    for name in ("describe", "count", "train", "random"):
        assert_refused(ASK[name](federation), KIND[name], "fewest_users")
    assert not (federation.state_dir() / "trainings").exists()
    federation = agreeing(tmp_path, {"fewest_users": users})
    for name in ("describe", "count", "train"):
        assert not ASK[name](federation).has_error()
    assert not federation.recommend().has_error()


def test_a_ranking_for_too_few_users_is_answered_as_one_of_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = metric_names(KS)
    counts = iter([2, 6, 0])
    found = dict.fromkeys(names, 0.5)
    monkeypatch.setattr(app_module, "evaluate_forms", lambda *_: (next(counts), [found]))
    federation = agreeing(tmp_path, {"fewest_users": 3})
    header = {**federation.header(1), "task": "cold-items"}
    rankings = [messages.Ranked("test", "random", "ridge")] * 3
    reply = federation.send(messages.EVALUATE, messages.EvaluateRequest.of(header, rankings))
    told = messages.EvaluateAnswer.from_record(reply.content)
    assert told.users == [0, 6, 0]
    assert told.sums == [0.0] * len(names) + [0.5] * 2 * len(names)


def test_a_policy_that_wants_secure_sums_stops_plain_ones(tmp_path: Path) -> None:
    for policy, entry in (
        ({"secure_sums": True}, "secure_sums"),
        ({"fewest_participants": 2}, "fewest_participants"),
    ):
        federation = agreeing(tmp_path, policy)
        for name in ("describe", "count", "train", "random"):
            assert_refused(ASK[name](federation), KIND[name], entry)
        assert not federation.recommend().has_error()
    strict = Policy(secure_sums=True, fewest_participants=3)
    strict.check(messages.TRAIN, Sums(secure=True, participants=3))
    with pytest.raises(PolicyError, match="fewest_participants"):
        strict.check(messages.TRAIN, Sums(secure=True, participants=2))


def test_epsilon_of_a_round(tmp_path: Path) -> None:
    federation = agreeing(tmp_path, {"epsilon_round": 0.49}, **NOISE)
    assert_refused(federation.train(1), messages.TRAIN, "epsilon_round")
    assert Ledger(federation.state_dir()).read().rounds == 0
    federation = agreeing(tmp_path, {"epsilon_round": 0.5}, **NOISE)
    assert not federation.train(1).has_error()


def test_a_node_stops_when_epsilon_is_spent_whatever_the_training(tmp_path: Path) -> None:
    federation = agreeing(tmp_path, {"epsilon_total": 1.2}, **NOISE)
    assert not federation.train(1).has_error()
    assert not federation.train(1).has_error()  # a round that is repeated costs again
    ledger = Ledger(federation.state_dir())
    assert (ledger.read().epsilon(1e-6), ledger.read().rounds) == (1.0, 2)
    reply = federation.train(2)
    assert_refused(reply, messages.TRAIN, "epsilon_total")
    other = messages.TrainRequest(
        **{**federation.header(1), "training": "cd" * 8},
        best_round=0,
        arrays={"table": federation.table("warm")},
    )
    assert_refused(federation.send(messages.TRAIN, other), messages.TRAIN, "epsilon_total")
    again = agreeing(tmp_path, {"epsilon_total": 1.2}, **NOISE)  # the same node, started anew
    assert_refused(again.train(2), messages.TRAIN, "epsilon_total")
    assert ledger.read().rounds == 2
    assert not again.train(1, node=1).has_error()  # another node's users have spent nothing


def test_a_node_that_needs_the_catalogue_spends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("epsilon_total = 1.0")
    federation = Federation(tmp_path, policy=str(path), **NOISE)
    assert messages.status_of(federation.train(1).content) == messages.NEEDS_CATALOGUE
    assert Ledger(federation.state_dir()).read().rounds == 0


def test_a_damaged_ledger_stops_the_node(tmp_path: Path) -> None:
    federation = agreeing(tmp_path, {"epsilon_total": 9.0}, **NOISE)
    federation.train(1)
    path = Ledger(federation.state_dir()).path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    reply = federation.train(2)
    assert reply.error.reason == "train ended in a refusal; the node's log says why"


def test_what_carries_no_noise_is_refused_where_epsilon_is_limited(tmp_path: Path) -> None:
    plain = agreeing(tmp_path, {"epsilon_total": 100.0})
    for name in ("train", "count", "random"):
        assert_refused(ASK[name](plain), KIND[name], "without_noise")
    told = messages.DescribeAnswer.from_record(plain.describe().content)
    assert (told.warm, told.unknown, told.peak_rss_mb) == (None, None, None)
    assert told.users > 0
    allowed = {"epsilon_total": 100.0, "without_noise": ["evaluate", "query.describe"]}
    some = agreeing(tmp_path, allowed)
    assert not some.evaluate("random").has_error()
    assert messages.DescribeAnswer.from_record(some.describe().content).warm is not None
    assert_refused(some.train(1), messages.TRAIN, "without_noise")


def test_a_half_without_noise_cannot_claim_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = node_module.half_of("ridge")

    class Own(type(half)):  # type: ignore[misc]
        def train(self, *_: object) -> None:
            raise AssertionError("it has trained")

    assert not Own.noised
    assert half.noised
    federation = agreeing(tmp_path, {}, **NOISE)
    monkeypatch.setattr(node_module, "half_of", lambda name: Own(name))
    reply = federation.train(1)
    assert reply.error.reason == "train ended in a refusal; the node's log says why"


def test_no_limit_is_infinite() -> None:
    assert math.isinf(Policy().epsilon_total)
    assert not Policy().limits_epsilon
    assert Policy(epsilon_round=3).limits_epsilon


GAUSSIAN = {"average": "users", "clip_norm": 1.0, "gaussian_scale": 4.0}  # μ = 0.5 in a round


@pytest.mark.parametrize("noise", [NOISE, GAUSSIAN])
def test_with_noise_losses_and_metrics_stay(tmp_path: Path, noise: dict[str, Any]) -> None:
    federation = agreeing(tmp_path, {}, **noise)
    answer = messages.TrainAnswer.from_record(federation.train(1).content)
    assert answer.loss_sum is None
    assert set(answer.sums) == {"change"}
    reply = federation.evaluate("random")
    assert reply.error.reason == "evaluate ended in a refusal; the node's log says why"
    told = agreeing(tmp_path, {}, **noise, release_metrics=True)
    assert not told.evaluate("random").has_error()
    few = messages.DescribeRequest(federation.index.version, counts=False)
    counts = messages.DescribeAnswer.from_record(
        federation.send(messages.QUERY_DESCRIBE, few).content
    )
    assert counts.users > 0
    assert counts.warm is counts.peak_rss_mb is None


def test_gaussian_rounds_add_up_in_the_ledger_exactly(tmp_path: Path) -> None:
    limit = gaussian_epsilon(math.sqrt(3) / 2, 1e-6)
    federation = agreeing(tmp_path, {"epsilon_total": limit}, **GAUSSIAN)
    for number in (1, 2, 3):
        assert not federation.train(number).has_error()
    assert Ledger(federation.state_dir()).read().epsilon(1e-6) == limit
    assert_refused(federation.train(4), messages.TRAIN, "epsilon_total")


@pytest.mark.parametrize(
    "changed", [{"gaussian_scale": 2.0**-13}, {"gaussian_scale": 2.0**21}, {"clip_norm": 2.0**21}]
)
def test_noise_whose_steps_are_too_coarse_or_overflow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, float]
) -> None:
    """Whatever the server's own settings let it send."""
    federation = agreeing(tmp_path, {"epsilon_total": math.inf}, **GAUSSIAN)
    read = messages.OfTraining.training_settings
    monkeypatch.setattr(
        messages.OfTraining,
        "training_settings",
        lambda self: read(self).model_copy(update=changed),
    )
    assert federation.train(1).error.reason.startswith("train ended in a refusal")
    assert Ledger(federation.state_dir()).read().rounds == 0


def test_the_servers_noise_counts_where_its_owner_says_so(tmp_path: Path) -> None:
    server = {**GAUSSIAN, "noise_by": "server"}
    federation = agreeing(tmp_path, {"epsilon_total": 50.0}, **server)
    assert_refused(federation.train(1), messages.TRAIN, "without_noise")
    federation = agreeing(tmp_path, {"epsilon_total": 50.0, "server_noise": True}, **server)
    answer = messages.TrainAnswer.from_record(federation.train(1).content)
    assert answer.loss_sum is not None  # the server is trusted with it
    assert Ledger(federation.state_dir()).read().cost == Cost(gaussian=0.0625)


def test_synthetic_users_count_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    limited = Policy(epsilon_total=3.0)
    ledger.spend_set("a", 2.0, limited)
    ledger.spend_set("a", 2.0, limited)
    assert ledger.read().epsilon(1e-6) == 2.0
    with pytest.raises(PolicyError, match="epsilon_total"):
        ledger.spend_set("b", 2.0, limited)
    with pytest.raises(PolicyError, match="without_noise"):
        ledger.spend_set("c", None, limited)
    ledger.spend_set("c", None, Policy())
    ledger.spend(Cost(pure=1.0), limited)
    assert ledger.read().epsilon(1e-6) == 3.0


def test_a_server_cannot_give_a_deployed_node_another_policy() -> None:
    """Simulated nodes take the run's; a deployed one has what its own configuration names."""
    run = RunSettings.parse({"policy": "/server/policy.toml", "run_dir": "/run"})
    files = {"interactions": "/node/interactions.csv", "state-dir": "/node/state"}
    assert NodeSettings.parse(files, run).policy is None
    own = NodeSettings.parse({**files, "policy": "/node/policy.toml"}, run)
    assert own.policy == Path("/node/policy.toml")
    with pytest.raises(SnowdropError, match="policy must be absolute"):
        NodeSettings.parse({**files, "policy": "policy.toml"}, run)
    simulated = NodeSettings.parse({"partition-id": 0, "num-partitions": 2}, run)
    assert simulated.policy == Path("/server/policy.toml")
