"""The Flower Strategy: whom to ask, what to send, what to do with the answers.

A round (algorithm 1 of MDiffFR): `configure_train` → nodes → `aggregate_train`, then what the
method does on the server, then `configure_evaluate` → nodes → `aggregate_evaluate`.
"""

import logging
import math
import statistics
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from common import messages
from common.errors import OverflowedError, SnowdropError
from common.task import candidates, metric_words, ranked_words
from server_app import accountant, masked
from server_app.aggregation import Aggregator, NoisySum, PlainSum, Summed
from server_app.checkpoint import Checkpoints
from server_app.curves import Curves
from server_app.measure import Task, describe, packed
from server_app.methods import Trained
from server_app.nodes import Nodes
from server_app.run_folder import RunFolder
from server_app.silos import Silos, why_not
from server_app.training import Training

log = logging.getLogger("snowdrop")

_BEST = "recall@20"


class ColdStart(Strategy):
    """Federated training of a method, with whatever it needs for items that nobody has touched.

    Parameters
    ----------
    training : Training
        New, or restored from a checkpoint.
    nodes : Nodes
    task : Task
    checkpoints : Checkpoints
    folder : RunFolder
    aggregator : Aggregator, optional
        By default each node's answer is checked by itself and added up.
    """

    def __init__(
        self,
        training: Training,
        nodes: Nodes,
        task: Task,
        checkpoints: Checkpoints,
        folder: RunFolder,
        aggregator: Aggregator | None = None,
    ) -> None:
        self.settings, self.training = training.settings, training
        self.nodes, self.task, self.checkpoints, self.folder = nodes, task, checkpoints, folder
        self.aggregator = aggregator or PlainSum(self.settings)
        index = training.index
        self.silos = Silos(
            self.settings, training.crowd, nodes, index.version, len(index.rows("warm"))
        )

    def summary(self) -> None:
        """Log what is about to be trained."""
        s, catalogue = self.settings, self.training.world.catalogue
        items = {split: len(catalogue.rows(split)) for split in ("warm", "validation", "test")}
        dim = f", d = {s.dim}" if s.card.has_dimensions else ""
        head = f", head {s.head}" if self._method.has_heads else ""
        log.info(
            "training %s: %d round%s on %d warm items%s%s; "
            "%d validation and %d test items are cold%s",
            s.title(), s.rounds, "s" * (s.rounds > 1), items["warm"], dim, head,
            items["validation"], items["test"],
            "" if s.task == "cold-items" else f"; tested on {ranked_words(s.task)}",
        )  # fmt: skip
        accountant.tell(self.training)

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
            If a round fails as often as ``round_retries`` allows, numbers overflow, or the method
            cannot be trained on synthetic users and nodes are simulated to send some.
        """
        settings, training = self.settings, self.training
        if settings.answer != "updates" and not self._method.trains_synthetic:
            raise SnowdropError(why_not(settings))
        last = num_rounds or settings.rounds
        if settings.noise:
            self._count_users()
        self.summary()
        curves = Curves(self.folder.path, training.round) if settings.tensorboard else None
        first = training.round
        if first >= last:
            log.warning(
                "rounds up to %d are trained already; to go on, set rounds above %d", last, first
            )
        result = Result()
        while training.round < last:
            row = self._round(training.round + 1, grid)
            training.history.append(row)
            if curves:
                curves.add(row)
            left = self._seconds_left(training.round - first, last)
            log.info("%s", _round_line(row, last, left, metric_words(_BEST, settings.task)))
            self.checkpoints.save(
                training.round, training.state(), settings.keep_rounds, training.best_round
            )
            self.folder.write_rounds(training.history)
            self.folder.write_answered(self.nodes.monitored.answered)
        result.arrays = self._record()
        return result

    def _count_users(self) -> None:
        """Ask how many users the nodes that train have, which is public.

        Raises
        ------
        SnowdropError
            If no node tells.
        """
        self.silos.ask(self._method.trains_synthetic)
        version, without = self.training.index.version, self.silos.without_updates
        described = describe(self.nodes, version, self.settings, without)
        self.training.users = sum(answer.users for answer in described)
        if not self.training.users and not self.silos.on_the_server_alone:
            raise SnowdropError(
                "no node tells how many users it has, on which δ depends; the warnings above say "
                "why"
            )
        if self.settings.noise_by == "server":
            self.aggregator = NoisySum(self.aggregator, self.settings, self.training.users)

    def _seconds_left(self, done: int, last: int) -> float | None:
        """Time until the last round, from the ``done`` rounds of this run so far.

        Returns
        -------
        float or None
            None while there is too little to tell it from: the first round starts processes, and
            the first fit of a generator may take longer than all rounds.
        """
        history, method = self.training.history, self._method
        known = [row["generator_seconds"] for row in history if row.get("generator_seconds")]
        coming = range(self.training.round + 1, last + 1)
        fits = method.fits_in([(number, self._validates(number)) for number in coming])
        plain = [
            row["seconds"] - (row.get("generator_seconds") or 0.0)
            for row in history[len(history) - done + 1 :]
        ]
        if not plain or (fits and not known):
            return None
        fit = statistics.fmean(known) if fits else 0.0
        return statistics.fmean(plain) * len(coming) + fit * fits

    def _validates(self, number: int) -> bool:
        """Whether items are scored after a round."""
        return number % self.settings.evaluate_every == 0 or number == self.settings.rounds

    def _round(self, number: int, grid: Grid) -> dict[str, Any]:
        """One round; what happened in it, as a row of ``rounds.csv``."""
        training = self.training
        started = time.perf_counter()
        failed_before = self.nodes.failed
        asking = self.nodes.count_anew()
        self.silos.ask(self._method.trains_synthetic)
        began, of_round = time.perf_counter(), self.nodes.count_anew()
        trained = self._train_on_nodes(number, grid)
        training.round = number
        row: dict[str, Any] = {
            "round": number,
            **trained,
            **accountant.columns(training),
            "train_seconds": time.perf_counter() - began,
            "node_bytes_down": of_round.down_per_node,
            "node_bytes_up": of_round.up_per_node,
        }
        validating = self._validates(number)
        row |= self._method.prepare(number, validating)
        measuring = self.nodes.count_anew()
        if validating:
            self._fit_heads(number)
        if validating and "validation" in self.task.splits(training):
            begin = time.perf_counter()
            self._choose_form()
            asked = self.configure_evaluate(number, ArrayRecord(), ConfigRecord(), grid)
            metrics = self.aggregate_evaluate(number, self.task.replies(list(asked), [1]))
            row["evaluate_seconds"] = time.perf_counter() - begin
            if metrics is not None:
                values = {name: metrics[name] for name in metrics if name != "users"}
                row |= {f"validation_{name}": value for name, value in values.items()}
                if values[_BEST] > training.best_recall:  # type: ignore[operator]
                    training.best_recall = float(values[_BEST])  # type: ignore[arg-type]
                    training.best_round = number
        if number in self._snapshot_rounds():
            training.snapshot()
        every = (asking, of_round, measuring)
        row["bytes_down"] = sum(traffic.down for traffic in every)
        row["bytes_up"] = sum(traffic.up for traffic in every)
        row["failed_nodes"] = self.nodes.failed - failed_before
        row["seconds"] = time.perf_counter() - started
        return row

    def _choose_form(self) -> None:
        """Have validation items choose among the forms of the method's scorer, if it has any."""
        trial = self._method.trial([candidates(self.settings.task, "validation")])
        if trial is not None:
            tried, users = self.task.measure_forms(self.training, "validation", trial)
            if users:
                self._method.choose(tried, users)

    @property
    def _method(self) -> Trained:
        if self.training.trained is None:
            raise SnowdropError(f"the method {self.settings.title()} is not trained in rounds")
        return self.training.trained

    def _record(self) -> ArrayRecord:
        arrays = self._method.arrays()
        return ArrayRecord({name: messages.Array(array) for name, array in arrays.items()})

    def _snapshot_rounds(self) -> tuple[int, ...]:
        """Validated rounds at the start, in the middle and at the end."""
        s = self.settings
        marks = [*range(s.evaluate_every, s.rounds, s.evaluate_every), s.rounds]
        return (marks[0], marks[(len(marks) - 1) // 2], marks[-1])

    def _fit_heads(self, number: int) -> None:
        """Have the users of nodes that do not train in rounds fit heads to today's item table."""
        among = self.silos.with_heads_to_fit
        if not among:
            return
        training = self.training
        request = messages.HeadsRequest(
            catalogue=training.index.version,
            training=training.id,
            round=number,
            best_round=training.best_round,
            settings=self.settings.pack(),
            arrays=packed(self._method.arrays(), self.settings),
        )
        self.nodes.ask(messages.TRAIN_HEADS, request.to_record(), messages.HeadsAnswer, among)

    def _train_on_nodes(self, number: int, grid: Grid) -> MetricRecord:
        for attempt in range(self.settings.round_retries + 1):
            before = self.nodes.failed, self.nodes.overflowed, self.nodes.unwilling
            config = ConfigRecord({"attempt": attempt})
            asked = self.configure_train(number, ArrayRecord(), config, grid)
            sums = masked.of_training(self._method.expected(), self.settings)
            replies = masked.replies(self.nodes, list(asked), sums, self.settings)
            _, trained = self.aggregate_train(number, replies)
            if trained is not None:
                return trained
            failed = self.nodes.failed - before[0]
            if failed and failed == self.nodes.overflowed - before[1]:
                raise OverflowedError(
                    f"the training overflowed on every node in round {number}; lower item_lr or "
                    f"head_lr. {_kept(number)}"
                )
            if failed and failed == self.nodes.unwilling - before[2]:
                raise SnowdropError(
                    f"no node has agreed to round {number}; the warnings above say what each "
                    f"policy refuses. {_kept(number)}: change the settings or the policies and "
                    f"{_again(number)}"
                )
            if attempt < self.settings.round_retries:
                log.warning("round %d brought no usable answer; trying again", number)
                time.sleep(min(5.0, self.settings.round_timeout))
        raise SnowdropError(
            f"round {number} brought no usable answer in {self.settings.round_retries + 1} tries; "
            f"the warnings above say why. {_kept(number)}: mend the nodes and {_again(number)}"
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A message to each node of the round; the training holds the arrays that travel.

        There is none where every node has sent synthetic users in place of updates.

        Parameters
        ----------
        server_round : int
        arrays : ArrayRecord
            Not read.
        config : ConfigRecord
            ``attempt``: how often this round was tried before, which draws other nodes.
        grid : Grid
            Not read.
        """
        training = self.training
        request = messages.TrainRequest(
            catalogue=training.index.version,
            training=training.id,
            round=server_round,
            best_round=training.best_round,
            settings=self.settings.pack(),
            scale=training.scale,
            arrays=packed(self._method.arrays(), self.settings),
        )
        seed = (self.settings.seed, server_round, int(config.get("attempt", 0)))  # type: ignore[arg-type]
        without = self.silos.without_updates
        among = self.nodes.draw(self.settings.nodes_per_round, seed, without)
        return self.nodes.to_all(messages.TRAIN, request.to_record(), among)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add up what nodes sent, and take the server's step.

        Returns
        -------
        arrays : None
            The training holds what was trained.
        metrics : MetricRecord or None
            ``users`` of nodes, where there are any ``synthetic_users``, and the mean ``loss`` of
            them all, where nodes tell theirs; None where no answer could be used.
        """
        answers = self.nodes.usable(messages.TRAIN, replies, messages.TrainAnswer)
        if answers and (given := accountant.release(self.settings)) is not None:
            self.training.spent.append((*given,))  # whether they can be used or not
        expected, scale = self._method.expected(), self.training.scale
        summed = self.aggregator.combine(answers, expected, scale)
        for node, why in summed.dropped.items():
            self.nodes.refuse(node, messages.TRAIN, why)
        if not summed.users and not self.silos.on_the_server_alone:
            if len(answers) == len(summed.dropped) or self.settings.fraction == 1:
                return None, None
            log.warning("nobody was drawn to train in round %d", server_round)
        metrics: dict[str, Any] = {"users": summed.users}
        if self.training.crowd.users:
            here = self.training.crowd.train(self._method, server_round)
            metrics["synthetic_users"] = here.users
            summed += here
        self._method.step(summed)
        self._follow(summed)
        if self.settings.hides_losses or not self._method.has_loss:
            return None, MetricRecord(metrics)
        loss = summed.loss_sum / summed.users if summed.users else math.nan
        return None, MetricRecord({**metrics, "loss": loss})

    def _follow(self, summed: Summed) -> None:
        """The scale of the next round: what was largest in this one, a power of two."""
        if self.settings.wire_dtype != "float32" and summed.largest > 0:
            self.training.scale = float(2.0 ** np.ceil(np.log2(summed.largest)))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """A message to each node that asks it to rank the validation items; nothing is read."""
        scoring = self.task.scoring(self.training.method, "validation")
        ranked = self.task.ranked(self.training, scoring, "validation")
        request = self.task.request(self.training, [ranked])
        return self.nodes.to_all(messages.EVALUATE, request.to_record())

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Mean of each metric over the users with validation items; None where there are none."""
        ((means, users),) = self.task.means(replies, 1)
        return MetricRecord({"users": users, **means}) if users else None


def _round_line(row: dict[str, Any], last: int, left: float | None, best: str) -> str:
    """A line of the log; ``best`` is what the log calls the metric of the best round."""
    parts = [f"round {row['round']:>{len(str(last))}}/{last}"]
    if "loss" in row:
        parts.append(f"loss {row['loss']:.4f}")
    if "epsilon_total" in row:
        parts.append(f"ε {row['epsilon_total']:.3g}")
    if "generator_loss" in row:
        parts.append(f"generator loss {row['generator_loss']:.4f}")
    if f"validation_{_BEST}" in row:
        parts.append(f"validation {best} {100 * row[f'validation_{_BEST}']:.2f} %")
    if row["failed_nodes"]:
        parts.append(f"{row['failed_nodes']} failed answers")
    parts.append(f"{row['seconds']:.2f} s")
    if left is not None and row["round"] < last:
        parts.append(f"{left:.0f} s left")
    return " · ".join(parts)


def _kept(number: int) -> str:
    """What is left of a training that ends in a round."""
    if number == 1:
        return "Nothing was trained; a training that was here before is kept"
    return "The checkpoint of the round before is kept"


def _again(number: int) -> str:
    return "begin again" if number == 1 else "go on with resume=true"
