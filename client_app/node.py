"""One node's files, as a message finds them."""

import logging
import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from flwr.app import Context

from client_app import tasks
from client_app.interactions import NodeInteractions, load_interactions
from client_app.methods import half_of
from client_app.methods.base import Local, NodeMethod
from client_app.scorers import Scorer
from client_app.store import StateStore
from common import messages
from common.catalogue import ItemIndex
from common.errors import OverflowedError, SnowdropError
from common.settings import NodeSettings, RunSettings
from common.users.heads import State
from common.users.randomness import user_keys

log = logging.getLogger("snowdrop.node")


class CatalogueMissingError(Exception):
    """This node has not got the catalogue that a message speaks of."""


class Node:
    """One node: its interactions, its users' state, and how it answers."""

    def __init__(self, context: Context) -> None:
        run = RunSettings.of_run(context.run_config, context.run_id, warn=False)
        self._data = run.data
        self._seed = run.seed
        self.settings = NodeSettings.parse(context.node_config, run)
        self.store = StateStore(self.settings.state_dir)

    def interactions(self, version: str) -> tuple[ItemIndex, NodeInteractions]:
        """The catalogue of that version and the interactions with its items.

        Raises
        ------
        CatalogueMissingError
            If this node has not got that catalogue.
        """
        index = self.store.load_index(version)
        if index is None:
            raise CatalogueMissingError
        return index, load_interactions(self.settings, self._data, self._seed, index)

    def keys(self, data: NodeInteractions) -> np.ndarray:
        """Keys of the users' randomness, uint64 (users,)."""
        return _keys(self.store.secret(self.settings.secret_seed), data)

    def state(
        self,
        half: NodeMethod,
        request: messages.OfTraining,
        data: NodeInteractions,
        at_most: int,
        or_newer: bool = False,
    ) -> State:
        """The newest state of the request's training up to a round, or a fresh one.

        With ``or_newer``, users that it does not know have their newest state, if there is one.
        """
        fresh = half.fresh(self.keys(data), request.training_settings())
        found, state = self.store.load(request.training, at_most, data, fresh, or_newer)
        if found != at_most:
            log.info("there is no state of round %d here; using that of round %d", at_most, found)
        return state

    def local(
        self,
        request: messages.OfTraining,
        arrays: Mapping[str, np.ndarray],
        index: ItemIndex,
        data: NodeInteractions,
        state_of: Callable[[], State],
        items: int = 0,
    ) -> Local:
        """What a method's half may use for one message."""
        settings, keys = request.training_settings(), self.keys(data)
        return Local(
            settings=settings,
            histories=tasks.histories(settings.task, data, keys),
            keys=keys,
            arrays=arrays,
            warm=len(index.rows("warm")),
            items=items,
            state_of=state_of,
        )

    def scorer(
        self,
        request: messages.EvaluateRequest | messages.RecommendRequest,
        index: ItemIndex,
        data: NodeInteractions,
        items: int,
    ) -> Scorer:
        """The scorer that a message names, with the users' state of the message's round."""
        half = half_of(request.method)

        def state_of() -> State:
            return self.state(half, request, data, request.round, or_newer=True)

        local = self.local(request, request.arrays, index, data, state_of, items)
        return half.scorer(request.scorer, local)

    def train(self, request: messages.TrainRequest) -> messages.TrainAnswer:
        """Train every user for one round, and keep their state.

        Raises
        ------
        SnowdropError
            If the round is older than all that is kept, the message is malformed, or numbers
            overflow; nothing is kept then.
        """
        settings = request.training_settings()
        half = half_of(settings.card.name)
        index, data = self.interactions(request.catalogue)
        kept = self.store.rounds(request.training)
        if request.round != 1 and kept and request.round <= kept[0]:
            raise SnowdropError(
                f"round {request.round} is older than all that is kept here (from round {kept[0]} "
                "on)"
            )
        state = self.state(half, request, data, request.round - 1)
        self.store.drop_from(request.training, request.round)
        local = self.local(request, request.arrays, index, data, lambda: state)
        after, answer = half.train(request, local)
        if not math.isfinite(answer.loss_sum):
            raise OverflowedError("the loss is NaN or Inf: lower item_lr or head_lr")
        self.store.save(request.training, request.round, data, after)
        self.store.prune(request.training, settings.keep_rounds, request.best_round)
        return answer


@lru_cache(maxsize=16)
def _keys(secret: bytes, data: NodeInteractions) -> np.ndarray:
    return user_keys(secret, data.users)
