"""The ClientApp: train, evaluate and recommend on this node's private interactions."""

import logging
import math
import resource
import sys
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app.evaluation import ContentProfileScorer, HeadScorer, RandomScorer, Scorer, evaluate
from client_app.interactions import NodeInteractions, Ragged, load_interactions, merged
from client_app.local_training import train_round
from client_app.negatives import user_keys
from client_app.recommend import recommend
from client_app.scoring import HEADS, State
from client_app.store import StateStore
from common import messages
from common.catalogue import COLD_SPLITS, ItemIndex
from common.errors import OverflowedError, SnowdropError
from common.settings import NodeSettings, RunSettings, TrainingSettings

log = logging.getLogger("snowdrop.node")
app = ClientApp()


class CatalogueMissingError(Exception):
    """This node has not got the catalogue that a message speaks of."""


class Node:
    """One node's files, as a message finds them."""

    def __init__(self, context: Context) -> None:
        run = RunSettings.of_run(context.run_config, context.run_id)
        self._data = run.data
        self._seed = run.seed
        self.settings = NodeSettings.parse(context.node_config, run)
        self.store = StateStore(self.settings.state_dir)

    def interactions(self, version: str) -> tuple[ItemIndex, NodeInteractions]:
        """The catalogue of that version and the interactions with its items."""
        index = self.store.load_index(version)
        if index is None:
            raise CatalogueMissingError
        return index, load_interactions(self.settings, self._data, self._seed, index)

    def keys(self, data: NodeInteractions) -> np.ndarray:
        """Keys of the users' randomness, uint64 (users,)."""
        return _keys(self.store.secret(self.settings.secret_seed), data)

    def state(
        self,
        request: messages.OfTraining,
        data: NodeInteractions,
        at_most: int,
        or_newer: bool = False,
    ) -> State:
        """The newest state of the request's training up to a round, or fresh heads.

        With ``or_newer``, users that it does not know have their newest state, if there is one.
        """
        settings = request.training_settings()
        fresh = HEADS[settings.head].fresh(self.keys(data), settings)
        found, state = self.store.load(request.training, at_most, data, fresh, or_newer)
        if found != at_most:
            log.info("there is no state of round %d here; using that of round %d", at_most, found)
        return state


@lru_cache(maxsize=16)
def _keys(secret: bytes, data: NodeInteractions) -> np.ndarray:
    return user_keys(secret, data.users)


def _guarded(handle: Callable[[Node, RecordDict], RecordDict]) -> Callable[..., Message]:
    """Turn every failure into a fixed sentence: an exception's text could carry an id."""

    def handler(message: Message, context: Context) -> Message:
        try:
            return Message(handle(Node(context), message.content), reply_to=message)
        except CatalogueMissingError:
            return Message(messages.status_record(messages.NEEDS_CATALOGUE), reply_to=message)
        except SnowdropError as error:
            print(f"snowdrop node: {error}", file=sys.stderr)
            overflowed = isinstance(error, OverflowedError)
            return _refusal(
                message, "a refusal", messages.OVERFLOWED if overflowed else messages.REFUSED
            )
        except Exception:
            log.exception("%s failed on this node", message.metadata.message_type)
            return _refusal(message, "an error", messages.REFUSED)

    return handler


def _refusal(message: Message, kind: str, code: int) -> Message:
    reason = f"{message.metadata.message_type} ended in {kind}; the node's log says why"
    return Message(Error(code=code, reason=reason), reply_to=message)


@app.query("catalogue")
@_guarded
def keep_catalogue(node: Node, record: RecordDict) -> RecordDict:
    """Keep the announced item ids and splits."""
    node.store.save_index(messages.CatalogueNotice.from_record(record).index())
    return messages.status_record(messages.KEPT)


@app.query("describe")
@_guarded
def describe(node: Node, record: RecordDict) -> RecordDict:
    """Counts of this node's data."""
    _, data = node.interactions(messages.DescribeRequest.from_record(record).catalogue)
    return messages.DescribeAnswer(
        users=len(data.users),
        users_without_warm=data.users_without_warm,
        unknown=data.unknown,
        peak_rss_mb=peak_rss_mb(),
        **{split: len(data.by_split[split].items) for split in ("warm", *COLD_SPLITS)},
    ).to_record()


@app.query("count")
@_guarded
def count_users(node: Node, record: RecordDict) -> RecordDict:
    """How many of this node's users have interacted with each cold item of the test split."""
    index, data = node.interactions(messages.CountRequest.from_record(record).catalogue)
    items = data.by_split["test"].items
    counts = np.bincount(items, minlength=len(index.rows("test"))).astype(np.int64)
    return messages.CountAnswer(counts).to_record()


@app.train()
@_guarded
def train(node: Node, record: RecordDict) -> RecordDict:
    """Train every user of this node for one round."""
    request = messages.TrainRequest.from_record(record)
    settings = request.training_settings()
    index, data = node.interactions(request.catalogue)
    table = _checked(request.table, len(index.rows("warm")), settings.dim)
    mapped = None
    if settings.item_pull:
        if request.mapped is None:
            raise SnowdropError("train with item_pull carries no mapped embeddings")
        mapped = _checked(request.mapped, *table.shape)
    kept = node.store.rounds(request.training)
    if request.round != 1 and kept and request.round <= kept[0]:
        raise SnowdropError(
            f"round {request.round} is older than all that is kept here (from round {kept[0]} on)"
        )
    state = node.state(request, data, request.round - 1)
    node.store.drop_from(request.training, request.round)
    state, result = train_round(
        table, state, data.warm, node.keys(data), request.round, settings, mapped
    )
    if not math.isfinite(result.loss_sum):
        raise OverflowedError("the loss is NaN or Inf: lower item_lr or head_lr")
    change, scale = messages.for_wire_scaled(result.change.numpy(), settings)  # or nothing is kept
    node.store.save(request.training, request.round, data, state)
    node.store.prune(request.training, settings.keep_rounds, request.best_round)
    return messages.TrainAnswer(
        users=result.users,
        loss_sum=result.loss_sum,
        change=change,
        scale=scale,
        touches=result.touches.numpy() if settings.average == "touches" else None,
    ).to_record()


@app.evaluate()
@_guarded
def evaluate_split(node: Node, record: RecordDict) -> RecordDict:
    """Rank a split's cold items for every user that has some; sums go back."""
    request = messages.EvaluateRequest.from_record(record)
    index, data = node.interactions(request.catalogue)
    items = len(index.rows(request.split))
    tie_order = torch.from_numpy(np.argsort(np.argsort(np.asarray(index.ids_of(request.split)))))
    scorer = _scorer(node, request, index, data, items)
    users, sums = evaluate(data, request.split, tie_order, scorer)
    return messages.EvaluateAnswer(users, list(sums), list(sums.values())).to_record()


@app.query("recommend")
@_guarded
def recommend_new(node: Node, record: RecordDict) -> RecordDict:
    """Rank new items for every user; the lists stay here."""
    request = messages.RecommendRequest.from_record(record)
    index, data = node.interactions(request.catalogue)
    settings = request.training_settings()
    state = node.state(request, data, request.round, or_newer=True)
    ids = [item for split in COLD_SPLITS for item in index.ids_of(split)]
    cold = _checked(request.cold, len(ids), settings.dim)
    seen = None if node.settings.simulated else _seen(index, data)
    served = recommend(data, state, cold, ids, request.top, settings, node.settings.state_dir, seen)
    return messages.RecommendAnswer(served).to_record()


def _seen(index: ItemIndex, data: NodeInteractions) -> Ragged:
    """Rows, in the table of all cold items, of those that each user has interacted with."""
    first, second = (data.by_split[split] for split in COLD_SPLITS)
    shifted = second.items + len(index.rows(COLD_SPLITS[0]))
    return merged([first, Ragged(second.offsets, shifted)])


def _scorer(
    node: Node,
    request: messages.EvaluateRequest,
    index: ItemIndex,
    data: NodeInteractions,
    items: int,
) -> Scorer:
    if request.scorer not in request.SCORERS:
        raise SnowdropError(f"the scorer {request.scorer!r} is unknown")
    if request.scorer == "random":
        return RandomScorer(node.keys(data), items)
    if request.cold is None:
        raise SnowdropError(f"evaluate with scorer {request.scorer} carries no cold table")
    if request.scorer == "content-profile":
        if request.warm is None:
            raise SnowdropError("evaluate with the content profile carries no warm features")
        warm = _checked(request.warm, len(index.rows("warm")), request.cold.shape[1])
        return ContentProfileScorer(data.warm, warm, _checked(request.cold, items, warm.shape[1]))
    settings: TrainingSettings = request.training_settings()
    state = node.state(request, data, request.round, or_newer=True)
    return HeadScorer(state, _checked(request.cold, items, settings.dim), settings)


def _checked(array: np.ndarray, rows: int, columns: int) -> torch.Tensor:
    """A float32 tensor of the announced shape."""
    if array.shape != (rows, columns):
        raise SnowdropError(f"a table of shape {array.shape} came, expected {(rows, columns)}")
    return torch.from_numpy(array.astype(np.float32))


def peak_rss_mb() -> float:
    """Most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
