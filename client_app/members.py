"""A round in which some of a node's users are in the federation, and the others look on."""

from dataclasses import replace

import numpy as np

from client_app.methods.base import Local, NodeMethod
from common.messages import TrainAnswer, TrainRequest
from common.users.heads import State
from common.users.personal import only, rearranged
from common.users.training import members


def train_members(
    half: NodeMethod, request: TrainRequest, local: Local
) -> tuple[State, TrainAnswer]:
    """One round of all users of a node; the answer is about those in the federation alone.

    The others fit their heads to the arrays that came, as users do whose node sends synthetic
    users; what they would have sent is forgotten.
    """
    inside = members(local.keys, local.settings.federated)
    if inside.all():
        return half.train(request, local)
    users, others = np.flatnonzero(inside), np.flatnonzero(~inside)
    state = local.state_of()
    trained, answer = half.train(request, _of_users(local, users, state))
    fitted = half.fit_heads([request.round], _of_users(local, others, state))
    whole = half.fresh(local.keys, local.settings)
    for known, of in ((trained, users), (fitted, others)):
        places = np.full(len(inside), -1)
        places[of] = np.arange(len(of))
        whole = rearranged(known, whole, places)
    return whole, answer


def _of_users(local: Local, users: np.ndarray, state: State) -> Local:
    return replace(
        local,
        histories=local.histories.take(users),
        keys=local.keys[users],
        state_of=lambda: only(state, users),
    )
