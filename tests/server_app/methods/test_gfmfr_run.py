"""GFMFR through the whole engine, against one user after another and whole tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor

from cli.in_process import InProcessGrid
from common import messages
from common.discrete import STEP
from common.methods.gfmfr import HISTORY_WEIGHTS
from common.secure import fixed_point
from common.settings import RunSettings
from common.users import mechanism
from common.users.heads import HEADS
from server_app import aggregation
from server_app.checkpoint import Checkpoints
from server_app.items import load_catalogue, world_of
from server_app.methods import make
from server_app.methods.gfmfr import ALONE, GFMFR
from tests.common.users.alone import Alone, plain_scores
from tests.server_app.methods.test_backbone_run import (
    SHARED,
    SMALL,
    Plain,
    trained,
    values_of,
    warm_folder,  # noqa: F401
)
from tests.server_app.runs import SpoiltGrid, run_here, silent, state_of, untouched, with_answer

OWN: dict[str, Any] = {
    "gfmfr.groups": 3,
    "gfmfr.least_users": 6,
    "gfmfr.weight": 2.0,
    "gfmfr.fade_rounds": 6,
    "gfmfr.width": 8,
    "gfmfr.fit_steps": 7,
    "gfmfr.fit_batch": 32,
    "gfmfr.lr": 0.01,
    "gfmfr.feature_noise": 0.0,
    "gfmfr.history_weight": 0.0,
}
TAUGHT: dict[str, dict[str, Any]] = {
    "fcf": {"gfmfr.fusion": "gate", "gfmfr.history_weight": 0.7, "gfmfr.sharpness": 3.0},
    "fedncf": {"gfmfr.fusion": "sum", "gfmfr.balance": "adaptive", "gfmfr.weight": 0.05},
    "pfedrec": {
        "gfmfr.fusion": "mlp",
        "gfmfr.temperature": 2.0,
        "pfedrec.personal": False,
        "gfmfr.item_weights": "equal",
    },
    "fedrap": {
        "gfmfr.fusion": "attention",
        "gfmfr.distance": "euclidean",
        "gfmfr.history_weight": 0.4,
    },
}


def fused_values(folder: Path, run_dir: Path, backbone: str, **changed: Any) -> dict[str, Any]:
    changed = {name.replace("__", "."): value for name, value in changed.items()}
    plain = values_of(folder, run_dir, backbone)
    return {**plain, **OWN, **TAUGHT[backbone], **changed, "method": f"gfmfr:{backbone}"}


class Taught(Plain):
    """The backbone's plain algorithm, with groups, a teacher, and the server's network."""

    def __init__(self, folder: Path, backbone: str) -> None:
        super().__init__(folder, backbone)
        values = fused_values(folder, folder, backbone)
        self.settings = RunSettings.parse(values)
        self.own, self.fused = self.settings.group(backbone), self.settings.group("gfmfr")
        server = make("gfmfr", world_of(
            self.settings, load_catalogue(self.settings), torch.device("cpu")))  # fmt: skip
        assert isinstance(server, GFMFR)
        self.server, self.teacher = server, None
        self.ratios = torch.zeros(len(self.keys))
        self.centroids = torch.zeros(3, len(self.point(0)))

    def point(self, user: int) -> Tensor:
        return torch.cat([part[user] for part in self.private.values()])

    def group(self, point: Tensor) -> int:
        if self.fused.distance == "euclidean":
            gaps = [float((point - c).square().sum()) for c in self.centroids]
        else:
            gaps = [-float(point @ c / c.norm().clamp(min=1e-12)) for c in self.centroids]
        return gaps.index(min(gaps))

    def user(self, number: int, user: int) -> Alone:
        one = super().user(number, user)
        if self.teacher is not None:
            one.teacher = self.teacher[self.group(self.point(user))]
            left = float(np.cos(np.pi * number / 2 / self.fused.fade_rounds))
            one.distil = left * self.fused.weight
            one.temperature = self.fused.temperature
            if self.fused.balance == "adaptive":
                one.ratio = float(self.ratios[user])
        return one

    def round(self, number: int) -> None:
        table, scorer, users = self.table, dict(self.scorer), len(self.keys)
        change = torch.zeros(3, *table.shape)
        touches = torch.zeros(3, len(table))
        moved = {n: torch.zeros(3, *part.shape) for n, part in scorer.items()}
        heads, members = torch.zeros_like(self.centroids), torch.zeros(3)
        trained = []
        for user in range(users):
            one = self.user(number, user)
            _, touched = one.train(self.histories.of(user), self.keys[user : user + 1], number)
            trained.append(one)
            point = torch.cat([one.head[name] for name in self.private])
            g = self.group(point)
            change[g] += one.table - table
            touches[g] += touched
            heads[g] += point
            members[g] += 1
            for name in moved:
                moved[name][g] += one.head[name] - scorer[name]
        for user, one in enumerate(trained):
            for name, part in self.private.items():
                part[user] = one.head[name]
            if one.ratio is not None:
                self.ratios[user] = one.ratio
            if self.tables is not None:
                assert one.own is not None
                self.tables[user] = one.own
        by_users = self.settings.average == "users"
        whole = users if by_users else touches.sum(0).clamp(min=1)[:, None]
        self.table = table + change.sum(0) / whole
        self.scorer = {n: part + moved[n].sum(0) / users for n, part in scorer.items()}
        self.learn(number, table, change, touches, heads, members, scorer, moved)

    def learn(
        self, number: int, table: Tensor, change: Tensor, touches: Tensor, heads: Tensor,
        members: Tensor, scorer: dict[str, Tensor], moved: dict[str, Tensor],
    ) -> None:  # fmt: skip
        from server_app.groups import merge, next_centroids

        merged = merge(heads, members.long(), self.fused.least_users)
        assert merged is not None
        kept = [int(k) for k in merged.kept]
        sums = [[k for k in range(3) if merged.into[k] == g] for g in kept]
        counts = torch.stack([members[k].sum() for k in sums])
        means = torch.stack([heads[k].sum(0) for k in sums]) / counts[:, None]
        by_users = self.settings.average == "users"
        tables = [
            table + change[k].sum(0) / (
                members[k].sum() if by_users else touches[k].sum(0).clamp(min=1)[:, None])
            for k in sums
        ]  # fmt: skip
        self.centroids = next_centroids(means, counts, merged, 3 * 1_000_003 + number)
        fused = self.server.fused
        assert fused is not None
        features, seed = fused.features("warm"), 3 * 1_000_003 + number
        own, fusion = self.fused, fused._fusion
        weights = torch.stack([touches[k].sum(0) / touches[k].sum(0).mean() for k in sums])
        if own.item_weights == "equal" or by_users:
            weights = torch.ones_like(weights)
        fusion.fit(merged.kept, torch.stack(tables), features, own.fit_steps, own.fit_batch, seed,
                   weights=weights)  # fmt: skip
        made = torch.cat(list(fusion.make(merged.kept, features)), 1)
        told = []
        for k, g in enumerate(sums):
            head = {name: moved[name][g].sum(0) / counts[k] + part for name, part in scorer.items()}
            begin = 0
            for name, part in self.private.items():
                size = part[0].numel()
                head[name] = means[k, begin : begin + size].reshape(part[0].shape)
                begin += size
            scores = plain_scores(self.settings.head, head, made[k])
            told.append(torch.sigmoid(scores / own.temperature))
        self.teacher = torch.stack([told[kept.index(int(into))] for into in merged.into])
        self.made = torch.stack([made[kept.index(int(into))] for into in merged.into])

    def scores(self, number: int) -> Tensor:
        """Each user's scores and those of its history in turn, both standardised."""
        plain = super().scores(number)
        if not self.fused.history_weight:
            return plain
        for user, own in enumerate(plain):
            made = self.made[self.group(self.point(user))]
            rows = [row - made.mean(0) for row in made]
            seen = [rows[j] for j in self.histories.of(user)]
            by_history = []
            for row in rows:
                cosines = [float(row @ other / (row.norm() * other.norm())) for other in seen]
                mean = np.mean([np.exp(self.fused.sharpness * cosine) for cosine in cosines])
                by_history.append(np.log(mean))
            history = torch.tensor(by_history)
            plain[user] = (own - own.mean()) / own.std(correction=0)
            further = (history - history.mean()) / history.std(correction=0)
            plain[user] += self.fused.history_weight * further
        return plain


@pytest.fixture(scope="module")
def taught(warm_folder: Path) -> dict[str, tuple[Taught, list[dict[str, float]]]]:  # noqa: F811
    made = {backbone: Taught(warm_folder, backbone) for backbone in TAUGHT}
    return {backbone: (one, trained(one)) for backbone, one in made.items()}


@pytest.mark.parametrize("nodes", [1, 2, 7])
@pytest.mark.parametrize("backbone", TAUGHT)
def test_a_run_is_the_plain_algorithm_on_any_number_of_nodes(
    warm_folder: Path, tmp_path: Path, taught: Any, backbone: str, nodes: int  # noqa: F811
) -> None:  # fmt: skip
    expected, history = taught[backbone]
    run_here(fused_values(warm_folder, tmp_path, backbone, nodes=nodes))
    last = state_of(tmp_path, SMALL["rounds"])
    close = {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(last["table"], expected.table, **close)
    torch.testing.assert_close(last["centroids"], expected.centroids, **close)
    assert len(last["scorers"]["kept"]) > 1
    if backbone in SHARED:
        parts = HEADS["mlp"].parts(last["scorer"][0], SHARED[backbone], SMALL["dim"])
        for name, part in expected.scorer.items():
            torch.testing.assert_close(parts[name], part, **close)
    for row, metrics in zip(last["history"], history, strict=True):
        for name, value in metrics.items():
            assert row[f"validation_{name}"] == pytest.approx(value, abs=2e-2), name


def test_validation_items_choose_the_weight_of_histories(
    warm_folder: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    def history_of(name: str, weight: float) -> list[dict[str, float]]:
        folder, own = tmp_path / name, {"gfmfr.history_weight": weight, "rounds": 2}
        run_here({**fused_values(warm_folder, folder, "pfedrec"), **own})
        found: list[dict[str, float]] = state_of(folder, 2)["history"]
        return found

    def value(row: dict[str, float]) -> float:
        return row["validation_recall@50"] + row["validation_ndcg@50"]

    chosen = history_of("chosen", -1.0)[1]
    fixed = {weight: history_of(str(weight), weight)[1] for weight in HISTORY_WEIGHTS}
    best = max(HISTORY_WEIGHTS, key=lambda weight: value(fixed[weight]))
    assert state_of(tmp_path / "chosen", 2)["history_weight"] == best
    assert value(chosen) == value(fixed[best])
    assert len({value(row) for row in fixed.values()}) > 2


def test_groups_of_clustered_users_are_used_and_resumed(
    warm_folder: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    own = {"gfmfr.grouping": "clustered", "gfmfr.history_weight": 0.4, "nodes": 1}
    whole, cut = ({**fused_values(warm_folder, tmp_path / name, "pfedrec"), **own}
                  for name in ("whole", "cut"))  # fmt: skip
    run_here(whole)
    run_here({**cut, "rounds": 2})
    Checkpoints(tmp_path / "cut" / "checkpoint").close()
    run_here({**cut, "resume": True})
    states = [state_of(tmp_path / name, 4) for name in ("whole", "cut")]
    assert torch.equal(states[0]["centroids"], states[1]["centroids"])
    assert len(states[0]["scorers"]["kept"]) > 1
    run_here({**fused_values(warm_folder, tmp_path / "near", "pfedrec"), "nodes": 1})
    assert not torch.equal(states[0]["centroids"], state_of(tmp_path / "near", 4)["centroids"])


@pytest.mark.parametrize("backbone", TAUGHT)
def test_without_fusion_it_is_the_backbone(
    warm_folder: Path, tmp_path: Path, backbone: str  # noqa: F811
) -> None:  # fmt: skip
    plain, off = tmp_path / "plain", tmp_path / "off"
    run_here(values_of(warm_folder, plain, backbone, rounds=2))
    personal = {"pfedrec.personal": True} if backbone == "pfedrec" else {}
    run_here(
        {**fused_values(warm_folder, off, backbone, rounds=2), **personal, "gfmfr.fusion": "off"}
    )
    states = [state_of(folder, 2) for folder in (plain, off)]
    for name in ("table", "scorer"):
        assert torch.equal(states[0][name], states[1][name])
    names = [name for name in states[0]["history"][0] if name.startswith("validation")]
    assert names
    assert [[row[n] for n in names] for row in states[0]["history"]] == [
        [row[n] for n in names] for row in states[1]["history"]
    ]


@pytest.mark.parametrize("backbone", ["fedncf", "pfedrec"])
def test_resuming_equals_an_undisturbed_run(
    warm_folder: Path, tmp_path: Path, backbone: str  # noqa: F811
) -> None:  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_here(fused_values(warm_folder, whole, backbone))
    run_here(fused_values(warm_folder, cut, backbone, rounds=2))
    Checkpoints(cut / "checkpoint").close()
    run_here(fused_values(warm_folder, cut, backbone, resume=True))
    states = [state_of(folder, 4) for folder in (whole, cut)]
    for name in ("table", "scorer", "centroids"):
        assert torch.equal(states[0][name], states[1][name]), name
    for name in ("into", "kept", "heads", "shared"):
        assert torch.equal(states[0]["scorers"][name], states[1]["scorers"][name]), name
    for name, part in states[0]["fusion"]["network"].items():
        assert torch.equal(part, states[1]["fusion"]["network"][name]), name


def answers_of(values: dict[str, Any]) -> list[messages.TrainAnswer]:
    answers: list[messages.TrainAnswer] = []

    class Listening(InProcessGrid):
        def deliver(self, message: Any) -> Any:
            reply = super().deliver(message)
            asked = message.metadata.message_type == messages.TRAIN
            if asked and "values" in reply.content.config_records:
                answers.append(messages.TrainAnswer.from_record(reply.content))
            return reply

    run_here(values, Listening(2, values))
    return answers


@pytest.mark.parametrize("backbone", TAUGHT)
def test_what_leaves_a_node(warm_folder: Path, tmp_path: Path, backbone: str) -> None:  # noqa: F811
    answers = answers_of(fused_values(warm_folder, tmp_path, backbone, rounds=2))
    expected = {"change": (3 * 80, 4), "heads": (3, 4 if backbone in ("fcf", "fedncf") else 5)}
    expected["members"] = (3,)  # type: ignore[assignment]
    if backbone == "fedncf":
        expected["scorer"] = (3, HEADS["mlp"].size(SHARED["fedncf"], 4))
    else:
        expected["touches"] = (3 * 80,)  # type: ignore[assignment]
    assert len(answers) == 4
    for answer in answers:
        assert {name: one.shape for name, one in answer.sums.items()} == expected
        assert answer.sums["members"].sum() == answer.users


def test_without_a_teacher_none_travels(warm_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    names = set()
    for weight in (2.0, 0.0):
        values = fused_values(warm_folder, tmp_path / str(weight), "pfedrec", rounds=3)
        values["gfmfr.weight"] = weight
        grid = SpoiltGrid(2, values, untouched)
        run_here(values, grid)
        sent = [messages.TrainRequest.from_record(m.content).arrays
                for m in grid.of(messages.TRAIN)]  # fmt: skip
        names.add(frozenset(name for arrays in sent for name in arrays))
    assert names == {
        frozenset({"table", "centroids", "teacher"}), frozenset({"table", "centroids"})
    }  # fmt: skip
    plain = tmp_path / "plain"
    run_here(values_of(warm_folder, plain, "pfedrec", rounds=3))
    tables = [state_of(folder, 3)["table"] for folder in (plain, tmp_path / "0.0")]
    torch.testing.assert_close(*tables)


def test_the_frozen_twin_has_no_teacher(warm_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    values = fused_values(warm_folder, tmp_path, "pfedrec", rounds=2, baselines=True)
    values["gfmfr.history_weight"] = -1.0
    summary = run_here(values)
    assert summary["method"] == "PFedRec + GFMFR"
    assert summary["baselines"]["frozen"]["kind"] == "twin"
    state = Checkpoints(tmp_path / "frozen" / "checkpoint", exclusive=False).load(2)
    assert state["scorers"] is None
    assert not state["centroids"].any()


@pytest.mark.parametrize("weight", [-1.0, 0.6])
def test_the_frozen_twin_sees_histories_among_the_items_own_features(
    warm_folder: Path, tmp_path: Path, weight: float  # noqa: F811
) -> None:  # fmt: skip
    own = {"method": "gfmfr:frozen", "gfmfr.history_weight": weight, "dim": 6}
    values = {**fused_values(warm_folder, tmp_path, "pfedrec", rounds=2), **own}
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    asked = [
        messages.EvaluateRequest.from_record(one.content) for one in grid.of(messages.EVALUATE)
    ]
    tried, last = asked[0].arrays, asked[-1].arrays
    expected = [*HISTORY_WEIGHTS, ALONE] if weight < 0 else [weight]
    np.testing.assert_allclose(tried["0/weights"], [expected], rtol=1e-6)
    assert float(last["0/weights"][0, 0]) in np.float32(expected)
    settings = RunSettings.parse(values)
    world = world_of(settings, load_catalogue(settings), torch.device("cpu"))
    features = world.features["text"][world.rows("warm")].numpy().astype(float)
    centred = features - features.mean(0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    deviations = spread[:6] / (len(features) - 1) ** 0.5
    rows = centred @ axes[:6].T / deviations**settings.whitening
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    told = last["0/fused"].reshape(3, -1, 6)
    for group in told:  # PCA may turn an axis round, which no cosine sees
        np.testing.assert_allclose(group @ group.T, rows @ rows.T, atol=1e-3)
    assert summary["validation"]["recall@50"] > 0


@pytest.mark.parametrize("backbone", TAUGHT)
@pytest.mark.parametrize("noise_by", ["nodes", "server"])
def test_a_run_with_noise_covers_sizes_of_groups(
    warm_folder: Path, tmp_path: Path, backbone: str, noise_by: str  # noqa: F811
) -> None:  # fmt: skip
    noise = {"clip_norm": 8.0, "gaussian_scale": 0.01, "average": "users", "noise_by": noise_by}
    values = fused_values(warm_folder, tmp_path, backbone, rounds=3, **noise)
    answers: list[messages.TrainAnswer] = []

    def heard(message: Any, reply: Any) -> Any:
        if "values" in reply.content.config_records:
            answers.append(messages.TrainAnswer.from_record(reply.content))
        return reply

    summary = run_here({**values, "release_metrics": True}, SpoiltGrid(2, values, heard))
    assert summary["privacy"]["noise_by"] == noise_by
    state = state_of(tmp_path, 3)
    assert len(state["scorers"]["kept"]) > 1
    assert torch.isfinite(state["centroids"]).all()
    sums = [answer.sums for answer in answers if "heads" in answer.sums]
    assert sums
    for one in sums:
        members = one["members"]
        assert members.shape == (3, 1)
        assert members.dtype == np.int64
        counts = members * STEP / 2.0  # member_share · clip_norm
        whole = np.abs(counts - np.round(counts)) < 1e-6
        assert whole.all() if noise_by == "server" else not whole.any()
        assert {"touches"}.isdisjoint(one)


def test_a_user_of_noisy_groups_gives_a_vector_of_the_bound(
    warm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """Without the noise itself, one user per node gives at most C to all sums together."""
    monkeypatch.setattr(mechanism, "discrete_gaussian", lambda shape, _: np.zeros(shape, int))
    noise = {"clip_norm": 0.4, "gaussian_scale": 1.0, "average": "users", "nodes": 60}
    values = fused_values(warm_folder, tmp_path, "fedncf", rounds=1, **noise)
    norms, answers = [], []

    def heard(message: Any, reply: Any) -> Any:
        if "values" in reply.content.config_records:
            answers.append(messages.TrainAnswer.from_record(reply.content))
        return reply

    run_here(values, SpoiltGrid(60, values, heard))
    for answer in answers:
        if answer.users == 1 and "heads" in answer.sums:
            numbers = [one * STEP for one in answer.sums.values()]
            norms.append(sum(float(np.square(one).sum()) for one in numbers) ** 0.5)
    assert norms
    assert max(norms) == pytest.approx(0.4, rel=1e-4)


@pytest.mark.parametrize("backbone", ["fedncf", "fedrap"])
def test_bounds_and_half_numbers(
    warm_folder: Path, tmp_path: Path, backbone: str  # noqa: F811
) -> None:  # fmt: skip
    private = {"clip_norm": 0.5, "average": "users"}
    values = fused_values(
        warm_folder, tmp_path, backbone, rounds=3, wire_dtype="float16", fraction=0.5, **private
    )
    summary = run_here(values)
    assert 0 < summary["validation"]["recall@20"] <= 1


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({"gfmfr.groups": 100, "gfmfr.least_users": 1}, None),  # more groups than users
        ({"gfmfr.least_users": 40}, 1),  # of 60 users: at most one group is large enough
        ({"gfmfr.groups": 1}, 1),
        ({"gfmfr.least_users": 61}, 0),
    ],
)
def test_numbers_are_sound_however_users_fall_into_groups(
    warm_folder: Path, tmp_path: Path, caplog: Any, changed: dict[str, Any], kept: int | None  # noqa: F811
) -> None:  # fmt: skip
    values = fused_values(warm_folder, tmp_path, "pfedrec")
    run_here({**values, **changed})
    state = state_of(tmp_path, 4)
    assert torch.isfinite(state["table"]).all()
    assert torch.isfinite(state["centroids"]).all()
    if kept == 0:
        assert state["scorers"] is None
        assert "60 users are fewer than gfmfr.least_users = 61" in caplog.text
    elif kept is not None:
        assert len(state["scorers"]["kept"]) == kept
    if changed.get("gfmfr.groups") != 1 and kept != 0:
        assert "are merged" in caplog.text


def test_a_node_that_is_silent_or_counts_wrongly_is_left_out(
    warm_folder: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    def miscounting(message: Any, reply: Any) -> Any:
        if "values" not in reply.content.config_records:
            return reply
        answer = messages.TrainAnswer.from_record(reply.content)
        sums = {**answer.sums, "members": np.minimum(answer.sums["members"], 1)}
        return with_answer(sums=sums)(message, reply)

    tables = []
    for name, spoil in {"silent": silent, "miscounting": miscounting}.items():
        values = fused_values(warm_folder, tmp_path / name, "pfedrec", rounds=2, least_users=2)
        values["gfmfr.least_users"] = 2
        del values["least_users"]
        summary = run_here(values, SpoiltGrid(2, values, spoil))
        assert summary["failed_answers"] > 0
        tables.append(state_of(tmp_path / name, 2)["table"])
    assert torch.equal(*tables)


def first_sums(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """What a run's first round adds up over all nodes, as the server gets it."""
    seen: list[dict[str, np.ndarray]] = []
    step = GFMFR.step

    def listening(self: GFMFR, summed: Any) -> None:
        seen.append({name: np.array(one, np.float64) for name, one in summed.sums.items()})
        step(self, summed)

    with monkeypatch.context() as patch:
        patch.setattr(GFMFR, "step", listening)
        summary = run_here(values, InProcessGrid(3, values))
    assert summary["privacy"]["noise_by"] == values["noise_by"]
    return seen[0]


@pytest.mark.parametrize("backbone", TAUGHT)
def test_noise_of_the_sum_covers_all_that_groups_send(
    warm_folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
) -> None:
    """Groups' sums and sizes are whole steps, and each number has its own part of the noise."""
    noise = {"clip_norm": 8.0, "gaussian_scale": 0.5, "average": "users", "nodes": 3, "rounds": 2}
    bare = fused_values(warm_folder, tmp_path / "bare", backbone, **noise, noise_by="server")
    with monkeypatch.context() as patch:
        patch.setattr(aggregation, "discrete_gaussian", lambda shape, _: np.zeros(shape, int))
        users = first_sums(monkeypatch, bare)
    drawn: list[np.ndarray] = []
    draw = fixed_point.discrete_gaussian

    def keeping(shape: tuple[int, ...], deviation: float) -> np.ndarray:
        drawn.append(draw(shape, deviation))
        return drawn[-1]

    monkeypatch.setattr(fixed_point, "discrete_gaussian", keeping)
    given = fused_values(warm_folder, tmp_path / "sum", backbone, **noise, noise_by="sum",
                         secure_sums=True)  # fmt: skip
    noisy = first_sums(monkeypatch, given)
    assert users.keys() == noisy.keys() >= {"change", "heads", "members"}
    parts = len(drawn) // (2 * 3)  # of each node in each of two rounds
    added = [sum(drawn[node * parts + part] for node in range(3)) for part in range(parts)]
    by_size = {one.size: one for one in added}
    assert len(by_size) == len(users)
    for name, whole in users.items():
        assert (whole / STEP == (whole / STEP).round()).all()
        more = noisy[name] - whole
        assert (more.ravel() == by_size[whole.size] * STEP).all()
    assert kstest(np.concatenate(added) * STEP, norm(scale=0.5).cdf).pvalue > 1e-10
    sizes = users["members"] / 2.0  # member_share · clip_norm
    assert sizes.sum() == pytest.approx(60, abs=1e-4)
