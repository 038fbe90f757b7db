"""GFMFR's node half: users pick their group, and are taught what it prefers.

Zhang, Zhang, Long, Xue, Xia and Yang, "Multimodal-enhanced Federated Recommendation: A Group-wise
Fusion Approach", WWW 2026 (arXiv 2509.19955). A user minimises its backbone's loss plus
λ · ρ · T² · KL(t_g ‖ ŷ) over the items that it samples, where g is the group whose centroid is
nearest to the private parts of its scoring head. Sums over users leave the node for each group
apart; which group a user is in does not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from client_app.history import kernel_scores
from client_app.methods import half_of
from client_app.methods.backbone import SCORER, Backbone
from client_app.methods.base import Local, NodeMethod, answer_of, groups_of
from client_app.scorers import Scorer, standardised
from common.errors import SnowdropError
from common.messages import TrainAnswer, TrainRequest
from common.methods.gfmfr import GFMFRSettings
from common.settings import TrainingSettings
from common.users.groups import Teacher
from common.users.heads import State
from common.users.training import Beside

RATIO = "teacher.ratio"
"""The part of the state that holds ρ of each user, where it is not constant."""

MIXED = "with-history"
"""The scorer that this method brings beside those of its backbone."""


class WithHistory(Scorer):
    """Users' scores by the backbone, and by their own histories among fused embeddings.

    The score s_ui + ω · h_ui, each of the two standardised over a user's items, with f_u the
    backbone's scorer, g the user's group, H_u its history and β = ``sharpness``:

        s_ui = f_u(e_i),    h_ui = log mean over j in H_u of exp(β cos(Q_gi − Q̄_g, Q_gj − Q̄_g))

    Needs ``fused``: Q, (groups · items, d); ``weights``: each ω that is tried, (1, w); and
    ``centroids``. The forms are the weights.

    Parameters
    ----------
    local : Local
    plain : Scorer
        Of the backbone.
    groups : Tensor, int64 (users,)
    own : GFMFRSettings
    """

    def __init__(self, local: Local, plain: Scorer, groups: Tensor, own: GFMFRSettings) -> None:
        self._plain, self._groups, self._sharpness = plain, groups, own.sharpness
        rows = local.table("fused", own.groups * local.items, local.settings.dim)
        fused = rows.reshape(own.groups, local.items, -1)
        self._fused = normalize(fused - fused.mean(1, keepdim=True), dim=2)
        self._weights = local.table("weights", 1)[0].tolist()
        self._histories = local.histories

    def __call__(self, users: np.ndarray) -> Tensor:
        return next(self.forms(users))

    def forms(self, users: np.ndarray) -> Iterator[Tensor]:
        plain = standardised(self._plain(users))
        history = standardised(self._by_history(users))
        for weight in self._weights:
            yield plain + weight * history

    def _by_history(self, users: np.ndarray) -> Tensor:
        """h before it is standardised, float32 (users, items)."""
        groups = self._groups[users]
        scores = torch.empty(len(users), self._fused.shape[1])
        for one in groups.unique():
            there = groups == one
            histories = self._histories.take(users[there.numpy()])
            fused = self._fused[one]
            scores[there] = kernel_scores(histories, fused, fused, self._sharpness)
        return scores


class GFMFR(NodeMethod):
    """A backbone whose users have a teacher."""

    noised = True

    def own(self, settings: TrainingSettings) -> GFMFRSettings:
        """The method's own settings."""
        group: GFMFRSettings = settings.group(self.name)
        return group

    def backbone(self, settings: TrainingSettings) -> Backbone:
        """The half of the recommender that is taught.

        Raises
        ------
        SnowdropError
            If the message names another kind of method.
        """
        half = half_of(self.own(settings).backbone)
        if not isinstance(half, Backbone):
            raise SnowdropError(f"{half.name} is no recommender that can be taught")
        return half

    def fresh(self, keys: np.ndarray, settings: TrainingSettings) -> State:
        own, state = self.own(settings), self.backbone(settings).fresh(keys, settings)
        if own.fusion != "off" and own.balance == "adaptive":
            state[RATIO] = torch.zeros(len(keys))
        return state

    def train(self, request: TrainRequest, local: Local) -> tuple[State, TrainAnswer]:
        half, alone = self.backbone(local.settings), _without_teacher(local)
        if self.own(local.settings).fusion == "off":
            return half.train(request, alone)
        state, number = alone.state_of(), request.round
        beside = self.beside(half, local, state, number)
        after, result = half.one_round(alone, state, number, beside)
        if isinstance(beside.loss, Teacher) and beside.loss.ratio is not None:
            after = after | {RATIO: beside.loss.ratio}
        elif RATIO in local.state_of():
            after = after | {RATIO: local.state_of()[RATIO]}
        shared = half.own(local.settings).shared
        return after, answer_of(result, request, local.settings, shared, beside.told)

    def beside(self, half: Backbone, local: Local, state: State, number: int) -> Beside:
        """What the backbone trains, with users in groups and their teacher."""
        settings, own = local.settings, self.own(local.settings)
        heads = half.heads_of(state)
        groups = groups_of(local, own, list(heads))
        loss = None
        if "teacher" in local.arrays:
            group = groups.of(np.arange(len(local.keys)), heads)
            new = groups.points(heads) == groups.points(half.fresh(local.keys, settings))
            group[new.all(1)] = -1
            ratio = local.state_of().get(RATIO)
            wanted = local.table("teacher", own.groups, local.warm)
            loss = Teacher(wanted, group, own.share_of(number), own.temperature, ratio)
        plain = half.beside(local, state, number)
        return replace(
            plain, loss=loss, groups=groups, told=groups.names, membership=own.membership(settings)
        )

    def fit_heads(self, rounds: Iterable[int], local: Local) -> State:
        kept = {n: part for n, part in local.state_of().items() if n == RATIO}
        return self.backbone(local.settings).fit_heads(rounds, _without_teacher(local)) | kept

    def scorer(self, name: str, local: Local) -> Scorer:
        half, alone = self.backbone(local.settings), _without_teacher(local)
        if name != MIXED:
            return half.scorer(name, alone)
        own, heads = self.own(local.settings), half.heads_of(alone.state_of())
        groups = groups_of(local, own, list(heads)).of(np.arange(len(local.keys)), heads)
        return WithHistory(local, half.scorer(SCORER, alone), groups, own)


def _without_teacher(local: Local) -> Local:
    """The same node, as the backbone knows its users' state."""

    def state_of() -> State:
        return {name: part for name, part in local.state_of().items() if name != RATIO}

    return replace(local, state_of=state_of)
