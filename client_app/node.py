"""One node: its data and its users' state, and how it answers messages."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
from flwr.app import Context, RecordDict

from client_app import tasks
from client_app.interactions import NodeInteractions, load_interactions
from client_app.ledger import Ledger
from client_app.lists import forget_recommendations
from client_app.masked import MaskedSums
from client_app.members import train_members
from client_app.methods import half_of
from client_app.methods.base import Local, NodeMethod, check_loss
from client_app.partners import Partners
from client_app.policy import Policy, Sums, refusal
from client_app.scorers import Scorer
from client_app.store import StateStore
from client_app.synthetic import synthetic_users
from client_app.withdrawal import Withdrawn
from common import messages
from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.privacy import Cost, cost_of
from common.settings import NodeSettings, RunSettings, TrainingSettings
from common.users.heads import State
from common.users.ragged import Ragged
from common.users.randomness import user_keys

log = logging.getLogger("snowdrop.node")

Answer = TypeVar("Answer", bound=messages.Body)


class CatalogueMissingError(Exception):
    """This node does not have the catalogue that a message refers to."""


class OfCatalogue(Protocol):
    """A request that is about a catalogue."""

    @property
    def catalogue(self) -> str: ...


class Node:
    """One node: its interactions, its users' state, and how it answers.

    Parameters
    ----------
    context : Context
    content : RecordDict, optional
        Of a message: what stands beside the request in it.

    Raises
    ------
    SnowdropError
        If that is malformed, or a file of this node cannot be used.
    """

    def __init__(self, context: Context, content: RecordDict | None = None) -> None:
        content = content or RecordDict()
        run = RunSettings.of_run(context.run_config, context.run_id, warn=False)
        self._run = run
        self.settings = NodeSettings.parse(context.node_config, run)
        self.store = StateStore(self.settings.state_dir)
        self.policy = Policy.read(self.settings.policy)
        self.ledger = Ledger(self.settings.state_dir)
        self.withdrawn = Withdrawn.read(self.settings.state_dir)
        self.masking = messages.Masking.found_beside(content)
        self._following = messages.SharesRequest.found_beside(content)
        self._heard = messages.ConfirmAnswer.found_beside(content)
        deployed = not self.settings.simulated
        partners = Partners(self.settings.policy, self.policy, deployed)
        self.sums = MaskedSums(
            self.settings.state_dir, context.run_id, self.policy, partners, deployed
        )

    def agree(self, kind: str, request: messages.Body) -> None:
        """Refuse a request that this node's owner has not agreed to; no interaction is read.

        Parameters
        ----------
        kind : str
            The message's type.
        request : Body

        Raises
        ------
        PolicyError
            If the policy says no, or the owner has withdrawn.
        SnowdropError
            If the method's sums would not carry the noise that the settings ask for.
        """
        if self.withdrawn.everyone:
            raise refusal("withdrawn")
        masking = self.masking
        added_up = None if masking is None else Sums(True, len(masking.sources) + 1)
        self.policy.check(kind, added_up)
        if not isinstance(request, messages.OfTraining):
            return
        settings = request.training_settings()
        self.policy.check_training(settings)
        if isinstance(request, messages.EvaluateRequest) and not settings.tells_metrics:
            raise SnowdropError(
                "with noise, sums of metrics stay here: release_metrics = true asks for them"
            )
        if isinstance(request, messages.TrainRequest):
            self.policy.check_round(self._cost(settings))

    def _cost(self, settings: TrainingSettings) -> Cost | None:
        """What a round costs a user; None where its answer carries no noise that counts."""
        try:
            settings.check_noise()
        except ValueError as error:
            raise SnowdropError(str(error)) from error
        cost = cost_of(settings)
        if settings.noise_by == "server" and not self.policy.server_noise:
            cost = None
        if settings.noise_by == "sum" and not self.masking:
            raise SnowdropError(
                "noise_by = sum needs secure sums: this answer would hold a part of the noise alone"
            )
        if settings.noise and not half_of(settings.card.name).noised:
            raise SnowdropError(
                f"the method {settings.card.name} adds no noise to what it sends, though the "
                "settings ask for some"
            )
        return cost

    def answered(self, request: OfCatalogue, make: Callable[[], messages.Summable]) -> RecordDict:
        """An answer as it leaves the node: as it is, or as a masked vector of all its numbers.

        With ``noise_by = sum`` each node adds σ² / k of the noise's variance, where at least k
        members of its group are in the sum (`common.secure.groups.certain`). So the sum has a
        variance of σ² at least, whoever of the others drops out.

        Parameters
        ----------
        request : OfCatalogue
        make : Callable
            Makes the answer. A message that comes a second time does not get so far, since masks
            serve one vector.

        Raises
        ------
        CatalogueMissingError
        SnowdropError
            If the message comes out of turn, or asks for other numbers than there are.
        """
        if self.masking is None:
            return make().to_record()
        self.index(request.catalogue)  # a node that must ask for it is asked again
        layout, masks = self.masking.layout(), self.sums.accept(self.masking)
        numbers = make().numbers()
        vector = layout.encode(numbers)
        if isinstance(request, messages.TrainRequest):
            settings = request.training_settings()
            if settings.noise_by == "sum":
                if any(one.dtype.kind != "i" for one in numbers.values()):
                    raise SnowdropError(
                        "noise_by = sum needs whole numbers, and this method's sums are none"
                    )
                deviation = settings.gaussian_scale / masks.certain**0.5
                layout.add_noise(vector, deviation, public=["users"])
        masks.hide(vector)
        self.check_withdrawn()
        masked, masking = messages.MaskedAnswer(vector.long, vector.short), self.masking
        if not masking.following:
            return masked.to_record()
        return self.sums.beside(masked.to_record(), lambda: self.sums.join_next(masking))

    def unmasked(self, request: messages.UnmaskRequest) -> RecordDict:
        """Shares that take the masks off a sum, and those of the next sum where it is asked for."""
        answer, following = self.sums.reveal(request, self._heard).to_record(), self._following
        self.check_withdrawn()
        if following is None:
            return answer
        return self.sums.beside(answer, lambda: self.sums.share(following))

    def check_withdrawn(self) -> None:
        """Refuse to keep or send anything where somebody has withdrawn while this was at work.

        Lists that were made meanwhile are deleted, since they may hold the user who has withdrawn.

        Raises
        ------
        PolicyError
        """
        if Withdrawn.read(self.settings.state_dir) != self.withdrawn:
            forget_recommendations(self.settings.state_dir)
            raise refusal("withdrawn")

    def index(self, version: str) -> ItemIndex:
        """The catalogue of that version.

        Raises
        ------
        CatalogueMissingError
            If this node does not have it.
        """
        index = self.store.load_index(version)
        if index is None:
            raise CatalogueMissingError
        return index

    def interactions(self, version: str) -> tuple[ItemIndex, NodeInteractions]:
        """The catalogue of that version and the interactions with its items.

        Raises
        ------
        CatalogueMissingError
            If this node does not have that catalogue.
        """
        index = self.index(version)
        among = self.withdrawn if self.withdrawn.users else None
        return index, load_interactions(self.settings, self._run.data, self._run.seed, index, among)

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
    ) -> tuple[int, State]:
        """The newest state of the request's training up to a round, or a fresh one; its round.

        With ``or_newer``, users that it does not know have their newest state, if there is one.
        """
        fresh = half.fresh(self.keys(data), request.training_settings())
        return self.store.load(request.training, at_most, data, fresh, or_newer)

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
            histories=tasks.histories(settings.task, data, keys, settings.history),
            keys=keys,
            arrays=arrays,
            warm=len(index.rows("warm")),
            items=items,
            state_of=state_of,
            catalogue=index,
        )

    def scorer(
        self,
        request: messages.OfTraining,
        scored: messages.Scored,
        index: ItemIndex,
        data: NodeInteractions,
        items: int,
    ) -> Scorer:
        """The scorer that is ``scored`` by, with the users' state of the message's round."""
        half = half_of(scored.method)

        def state_of() -> State:
            found, state = self.state(half, request, data, request.round, or_newer=True)
            _tell_of_older(found, request.round)
            return state

        local = self.local(request, scored.arrays, index, data, state_of, items)
        return half.scorer(scored.scorer, local)

    def train(self, request: messages.TrainRequest) -> messages.TrainAnswer:
        """Train every user for one round, and keep their state.

        Raises
        ------
        SnowdropError
            If this node's owner chose to send no updates, ε is spent, too few users take part, the
            round is older than all that is kept, the message is malformed, or numbers overflow;
            nothing is kept then.
        """
        if self.settings.answer == "synthetic":
            raise SnowdropError(
                "this node's owner chose answer = synthetic: it sends synthetic users, and no "
                "updates"
            )
        kept = self.store.rounds(request.training)
        if request.round != 1 and kept and request.round <= kept[0]:
            raise SnowdropError(
                f"round {request.round} is older than all that is kept here (from round {kept[0]} "
                "on)"
            )

        def work(half: NodeMethod, found: int, local: Local) -> tuple[State, messages.TrainAnswer]:
            _tell_of_older(found, request.round - 1)
            state, answer = train_members(half, request, local)
            self.policy.check_users(answer.users)
            if request.training_settings().hides_losses:  # and whether they are numbers
                return state, replace(answer, loss_sum=None)
            check_loss(math.nan if answer.loss_sum is None else answer.loss_sum)
            return state, answer

        self.index(request.catalogue)  # a node that must ask for it is asked again
        if (cost := self._cost(request.training_settings())) is not None:
            self.ledger.spend(cost, self.policy)
        return self._trained(request, work)

    def fit_heads(self, request: messages.HeadsRequest) -> messages.HeadsAnswer:
        """Fit every user's head to an item table, and keep their state under its round.

        As many passes as there were rounds since the newest state here; nothing of them is sent.

        Raises
        ------
        SnowdropError
            As from `train`, whatever the owner chose.
        """

        def work(half: NodeMethod, found: int, local: Local) -> tuple[State, messages.HeadsAnswer]:
            rounds = range(found + 1, request.round + 1)
            return half.fit_heads(rounds, local), messages.HeadsAnswer()

        return self._trained(request, work)

    def _trained(
        self,
        request: messages.TrainRequest | messages.HeadsRequest,
        work: Callable[[NodeMethod, int, Local], tuple[State, Answer]],
    ) -> Answer:
        """What ``work`` answers, given the round of the newest state; its state is kept."""
        settings = request.training_settings()
        half = half_of(settings.card.name)
        index, data = self.interactions(request.catalogue)
        found, state = self.state(half, request, data, request.round - 1)
        self.store.drop_from(request.training, request.round)
        local = self.local(request, request.arrays, index, data, lambda: state)
        after, answer = work(half, found, local)
        self.check_withdrawn()
        self.store.save(request.training, request.round, data, after)
        self.store.prune(request.training, settings.keep_rounds, request.best_round)
        return answer

    def synthetic(self, request: messages.SyntheticRequest) -> messages.SyntheticAnswer:
        """How this node answers, and its synthetic users, unless the server has them.

        Raises
        ------
        SnowdropError
            If it has none, though its owner chose to send some.
        """
        index, data = self.interactions(request.catalogue)
        answer = self.settings.answer
        if answer == "updates":
            return messages.SyntheticAnswer(answer)

        def histories() -> Ragged:
            return tasks.histories(self._run.task, data, self.keys(data), self._run.history)

        made = synthetic_users(self.settings, self._run, index, histories)
        if made.name in request.known:
            return messages.SyntheticAnswer(answer, made.name, made.epsilon)
        self.ledger.spend_set(made.name, made.epsilon, self.policy)
        log.info("sending %d synthetic users", made.users)
        lists = {"offsets": made.histories.offsets, "items": made.histories.items}
        return messages.SyntheticAnswer(answer, made.name, made.epsilon, lists)


def _tell_of_older(found: int, wanted: int) -> None:
    if found != wanted:
        log.info("there is no state of round %d here; using that of round %d", wanted, found)


@lru_cache(maxsize=16)
def _keys(secret: bytes, data: NodeInteractions) -> np.ndarray:
    return user_keys(secret, data.users)
