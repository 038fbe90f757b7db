"""The Flower Strategy: whom to ask, what to send, what to do with the answers.

A round (algorithm 1): train on nodes → average over users → train the generator → validate.
"""

import logging
import math
import statistics
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from common import messages
from common.catalogue import COLD_SPLITS
from common.errors import OverflowedError, SnowdropError
from common.metrics import metric_names
from common.settings import KS, RunSettings
from server_app import aggregation
from server_app.checkpoint import Checkpoints
from server_app.curves import Curves
from server_app.nodes import Nodes, Traffic
from server_app.report import RunFolder
from server_app.training import Training, make_generator

log = logging.getLogger("snowdrop")

Metrics = dict[str, float]


class ColdStart(Strategy):
    """Federated training of an item table, with a generator for items that have no row in it.

    Parameters
    ----------
    settings : RunSettings
    training : Training
        New, or restored from a checkpoint.
    checkpoints : Checkpoints
    folder : RunFolder
    device : torch.device
    """

    def __init__(
        self,
        settings: RunSettings,
        training: Training,
        checkpoints: Checkpoints,
        folder: RunFolder,
        device: torch.device,
    ) -> None:
        self.settings, self.index, self.training = settings, training.index, training
        self.checkpoints, self.folder, self.device = checkpoints, folder, device
        self._packed = messages.pack_settings(settings.training())
        self.nodes: Nodes

    def summary(self) -> None:
        """Log what is about to be trained."""
        s, rows = self.settings, self.training.rows
        log.info(
            "training %d rounds on %d warm items, d = %d, head %s, generator %s; "
            "%d validation and %d test items are cold",
            s.rounds, len(rows["warm"]), s.dim, s.head, s.generator,
            len(rows["validation"]), len(rows["test"]),
        )  # fmt: skip

    def start(  # type: ignore[override]
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Result:
        """Train until the last round, from wherever the training stands.

        Flower's own loop counts from 1 and repeats nothing; this one resumes, repeats a round
        that brought no usable answer, and keeps the best validated round.

        Raises
        ------
        SnowdropError
            If too few nodes come, or a round fails as often as ``round_retries`` allows.
        """
        settings, training = self.settings, self.training
        last = num_rounds or settings.rounds
        self.nodes = Nodes(grid, self.index, timeout or settings.round_timeout)
        self.summary()
        self.nodes.wait(settings.nodes, settings.nodes_timeout)
        curves = Curves(self.folder.path, training.round) if settings.tensorboard else None
        began, first = time.monotonic(), training.round
        if first >= last:
            log.warning("all %d rounds are trained; to go on, set rounds above %d", last, first)
        result = Result()
        while training.round < last:
            row = self._round(training.round + 1)
            training.history.append(row)
            if curves:
                curves.add(row)
            left = (time.monotonic() - began) / (training.round - first) * (last - training.round)
            log.info("%s", _round_line(row, last, left))
            self._save()
        result.arrays = ArrayRecord({"table": messages.Array(training.table.numpy())})
        return result

    def _round(self, number: int) -> dict[str, Any]:
        """One round; what happened in it, as a row of ``rounds.csv``."""
        training, settings = self.training, self.settings
        started = time.perf_counter()
        failed_before = self.nodes.failed
        self.nodes.traffic = Traffic()
        averaged = self._train_on_nodes(number)
        training.table = self._stepped(averaged)
        if not torch.isfinite(training.table).all():
            raise OverflowedError(
                f"the item table overflowed in round {number}; lower item_lr or head_lr"
            )
        training.round = number
        row: dict[str, Any] = {
            "round": number,
            "users": averaged.users,
            "loss": averaged.loss,
            "train_seconds": time.perf_counter() - started,
            "node_bytes_down": self.nodes.traffic.down_per_node,
            "node_bytes_up": self.nodes.traffic.up_per_node,
        }
        validating = number % settings.evaluate_every == 0 or number == settings.rounds
        due = number % settings.generator_every == 0 or number == settings.rounds
        if due or (validating and (training.generator.instant or not training.fitted_round)):
            row["generator_loss"], row["generator_seconds"] = training.fit(training.generator)
            training.fitted_round = number
        if validating and len(training.rows["validation"]):
            begin = time.perf_counter()
            metrics, users = self.measure("validation")
            row["evaluate_seconds"] = time.perf_counter() - begin
            if users:
                row |= {f"validation_{name}": value for name, value in metrics.items()}
                if metrics["recall@20"] > training.best_recall:
                    training.best_recall, training.best_round = metrics["recall@20"], number
        if training.fitted_round and number in self._snapshot_rounds():
            training.snapshot()
        row["failed_nodes"] = self.nodes.failed - failed_before
        row["seconds"] = time.perf_counter() - started
        return row

    def _stepped(self, averaged: aggregation.Averaged) -> torch.Tensor:
        """The item table after the server's step, float32 (warm, d)."""
        return self.training.table + self.settings.server_lr * averaged.change

    def _snapshot_rounds(self) -> tuple[int, ...]:
        """Validated rounds at the start, in the middle and at the end."""
        s = self.settings
        marks = [*range(s.evaluate_every, s.rounds, s.evaluate_every), s.rounds]
        return (marks[0], marks[(len(marks) - 1) // 2], marks[-1])

    def _train_on_nodes(self, number: int) -> aggregation.Averaged:
        for attempt in range(self.settings.round_retries + 1):
            before = self.nodes.failed, self.nodes.overflowed
            answers = self._usable(self._ask_to_train(number, attempt))
            if answers and self.settings.fraction < 1 and not any(a.users for a in answers):
                log.warning("nobody was drawn to train in round %d", number)
                return aggregation.Averaged(torch.zeros_like(self.training.table), 0, math.nan)
            try:
                return aggregation.average(answers, self.settings.average)
            except SnowdropError:
                failed = self.nodes.failed - before[0]
                if failed and failed == self.nodes.overflowed - before[1]:
                    raise OverflowedError(
                        f"the training overflowed on every node in round {number}; lower item_lr "
                        "or head_lr. The checkpoint of the round before is kept"
                    ) from None
                if attempt < self.settings.round_retries:
                    log.warning("round %d brought no usable answer; trying again", number)
                    time.sleep(min(5.0, self.settings.round_timeout))
        raise SnowdropError(
            f"round {number} brought no usable answer in {self.settings.round_retries + 1} tries; "
            "the warnings above say why. The checkpoint of the round before is kept: mend the "
            "nodes and go on with resume=true"
        )

    def _train_request(self, number: int) -> messages.TrainRequest:
        return messages.TrainRequest(
            catalogue=self.index.version,
            training=self.training.id,
            round=number,
            best_round=self.training.best_round,
            settings=self._packed,
            table=self._packed_table(self.training.table),
            mapped=self._packed_table(self.training.cold_table("warm", self.training.generator))
            if self.settings.item_pull
            else None,
        )

    def _ask_to_train(self, number: int, attempt: int) -> list[tuple[int, messages.TrainAnswer]]:
        request = self._train_request(number).to_record()
        seed = (self.settings.seed, number, attempt)
        among = self.nodes.draw(self.settings.nodes_per_round, seed)
        return self.nodes.ask(messages.TRAIN, request, messages.TrainAnswer, among)

    def _usable(
        self, answers: list[tuple[int, messages.TrainAnswer]]
    ) -> list[messages.TrainAnswer]:
        usable = []
        rows, columns = self.training.table.shape
        for node, answer in answers:
            try:
                aggregation.check(answer, (rows, columns), self.settings)
                usable.append(answer)
            except SnowdropError as error:
                self.nodes.refuse(node, messages.TRAIN, error)
        return usable

    def measure(
        self, split: str, scorer: str = "head", cold: torch.Tensor | None = None
    ) -> tuple[Metrics, int]:
        """Mean of each metric over the users with cold items of ``split``, and their number.

        Parameters
        ----------
        split : str
            'validation' or 'test'.
        scorer : str
            'head', 'content-profile' or 'random'.
        cold : Tensor, float32 (cold, d), optional
            For 'head'; by default what the generator makes.
        """
        training = self.training
        warm = None
        if scorer == "content-profile":
            warm = training.features[training.rows["warm"]]
            cold = training.features[training.rows[split]]
        elif scorer == "head" and cold is None:
            cold = training.cold_table(split)
        request = messages.EvaluateRequest(
            catalogue=self.index.version,
            training=training.id,
            round=training.round,
            settings=self._packed,
            split=split,
            scorer=scorer,
            cold=None if cold is None else self._packed_table(cold),
            warm=None if warm is None else self._packed_table(warm),
        )
        answers = self.nodes.ask(messages.EVALUATE, request.to_record(), messages.EvaluateAnswer)
        totals = dict.fromkeys(metric_names(KS), 0.0)
        users = 0
        for node, answer in answers:
            try:
                aggregation.check_metrics(answer, list(totals), self.settings)
            except SnowdropError as error:
                self.nodes.refuse(node, messages.EVALUATE, error)
                continue
            users += answer.users
            for name, value in zip(answer.names, answer.sums, strict=True):
                totals[name] += value
        return {name: total / max(users, 1) for name, total in totals.items()}, users

    def finish(self) -> dict[str, Any]:
        """Test the best validated round, or the last, beside the baselines.

        Returns
        -------
        dict
            The results part of ``summary.json``.
        """
        training, settings = self.training, self.settings
        best = training.best_round
        if best and best != training.round and (state := self.checkpoints.best()):
            ended = training.history, training.snapshots
            training.restore(state)
            training.history, training.snapshots = ended
        results: dict[str, Any] = {"best_round": best if best == training.round > 0 else None}
        log.info("testing round %d", training.round)
        splits = [split for split in COLD_SPLITS if len(training.rows[split])]
        tested_users = 0
        for split in splits:
            results[split], tested_users = self.measure(split)
        if "test" not in splits:
            log.warning("no test item is cold: there is nothing to test")
            tested_users = 0
        results["baselines"] = self._baselines(splits) if settings.baselines else {}
        results["tested_users"] = tested_users
        return results

    def _baselines(self, splits: list[str]) -> dict[str, dict[str, Metrics]]:
        training, settings = self.training, self.settings
        baselines: dict[str, dict[str, Metrics]] = {
            scorer: {split: self.measure(split, scorer)[0] for split in splits}
            for scorer in ("content-profile", "random")
        }
        controls = {"neighbours": "similar-items", "ridge": "ridge-map"}
        if settings.table_start == "features":
            controls["features"] = "own-features"
        generators = {}
        if settings.neighbour_share:
            generators[generator_name(settings)] = training.generator
        for name, label in controls.items():
            if name != settings.generator:
                generator = make_generator(name, training.transform, settings, self.device)
                training.fit(generator)
                generators[label] = generator
        for label, generator in generators.items():
            baselines[label] = {
                split: self.measure(split, cold=training.cold_table(split, generator))[0]
                for split in splits
            }
        return baselines

    def recommend(self) -> tuple[int, int]:
        """Have the nodes rank the cold items: users served, and nodes that served them."""
        training = self.training
        if not any(len(training.rows[split]) for split in COLD_SPLITS):
            return 0, 0
        cold = torch.cat([training.cold_table(split) for split in COLD_SPLITS])
        request = messages.RecommendRequest(
            catalogue=self.index.version,
            training=training.id,
            round=training.round,
            settings=self._packed,
            top=self.settings.top,
            cold=self._packed_table(cold),
        )
        kind = messages.QUERY_RECOMMEND
        answers = self.nodes.ask(kind, request.to_record(), messages.RecommendAnswer)
        return sum(answer.users for _, answer in answers), len(answers)

    def publish(self, grid: Grid) -> dict[str, int]:
        """Send embeddings of all cold items to the nodes that are there, to be recommended.

        Returns
        -------
        dict
            Counts of items, users and nodes, and the round whose state was used.

        Raises
        ------
        SnowdropError
            If no item is cold, or no node served anybody.
        """
        training, settings = self.training, self.settings
        items = sum(len(training.rows[split]) for split in COLD_SPLITS)
        if not items:
            raise SnowdropError("every item is warm: there is no new item to publish")
        self.nodes = Nodes(grid, self.index, settings.round_timeout)
        self.nodes.wait(settings.nodes, settings.nodes_timeout, at_least=1)
        if not training.fitted_round:
            training.fit(training.generator)
        users, nodes = self.recommend()
        if not nodes:
            raise SnowdropError("no node took the new items; the warnings above say why")
        log.info("%d new items are recommended to %d users on %d nodes", items, users, nodes)
        return {"items": items, "users": users, "nodes": nodes, "round": training.round}

    def _packed_table(self, table: torch.Tensor) -> np.ndarray:
        return messages.for_wire(table.numpy(), self.settings)

    def describe(self) -> list[messages.DescribeAnswer]:
        """Every node's counts."""
        request = messages.DescribeRequest(self.index.version).to_record()
        answers = self.nodes.ask(messages.QUERY_DESCRIBE, request, messages.DescribeAnswer)
        return [answer for _, answer in answers]

    def _save(self) -> None:
        training = self.training
        self.checkpoints.save(
            training.round, training.state(), self.settings.keep_rounds, training.best_round
        )
        self.folder.write_rounds(training.history)

    # What Flower's own loop would call: every Strategy has them, and `start` has no use for them.

    def configure_train(self, *_: Any) -> Iterable[Message]:
        """Nothing: `start` asks the nodes itself."""
        return []

    def aggregate_train(self, *_: Any) -> tuple[None, None]:
        """Nothing: `start` averages."""
        return None, None

    def configure_evaluate(self, *_: Any) -> Iterable[Message]:
        """Nothing: `measure` asks the nodes itself."""
        return []

    def aggregate_evaluate(self, *_: Any) -> None:
        """Nothing: `measure` averages."""


def generator_name(settings: RunSettings) -> str:
    """What the field calls the method of these settings, or the generator's name."""
    names = {
        ("diffusion", "linear"): "MDiffFR",
        ("mapping", "linear"): "IPFedRec",
        ("mapping", "mlp"): "IFedNCF",
        ("neighbours", "dot"): "CS_FCF",
        ("neighbours", "mlp"): "CS_FedNCF",
    }
    return names.get((settings.generator, settings.head), settings.generator)


def method_name(settings: RunSettings) -> str:
    """The name of what is measured, as tables show it."""
    name = generator_name(settings)
    blended = settings.neighbour_share and settings.generator != "neighbours"
    return f"{name} + similar items" if blended else name


def timings(history: list[dict[str, Any]]) -> dict[str, float | None]:
    """Medians over rounds, in seconds; None for what never happened."""
    columns = {
        "round_seconds_median": "train_seconds",
        "generator_seconds_median": "generator_seconds",
        "evaluate_seconds_median": "evaluate_seconds",
    }
    return {
        name: statistics.median(values) if (values := [r[c] for r in history if c in r]) else None
        for name, c in columns.items()
    }


def traffic(history: list[dict[str, Any]]) -> dict[str, int]:
    """Bytes of a training round to and from a node, the median round."""
    columns = {"bytes_down_per_node_and_round": "node_bytes_down",
               "bytes_up_per_node_and_round": "node_bytes_up"}  # fmt: skip
    return {
        name: int(statistics.median(values)) if (values := [r[c] for r in history if c in r]) else 0
        for name, c in columns.items()
    }


def _round_line(row: dict[str, Any], last: int, left: float) -> str:
    parts = [f"round {row['round']:>{len(str(last))}}/{last}", f"loss {row['loss']:.4f}"]
    if "generator_loss" in row:
        parts.append(f"generator loss {row['generator_loss']:.4f}")
    if "validation_recall@20" in row:
        parts.append(f"validation Recall@20 {row['validation_recall@20']:.4f}")
    if row["failed_nodes"]:
        parts.append(f"{row['failed_nodes']} failed answers")
    parts += [f"{row['seconds']:.2f} s", f"{left:.0f} s left"]
    return " · ".join(parts)
