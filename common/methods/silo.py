"""Settings that synthesizers share which score items: of the silo's users and cells."""

from typing import Literal

from common.methods.card import MethodSettings
from common.roles import Role, setting


class SiloSettings(MethodSettings):
    """Who stops a training, and how many cells are filled."""

    stop_on: Literal["own", "watched"] = setting(
        "own",
        "users whose Recall@10 stops it: some of its own that it does not train on, or those that "
        "a comparison hands it",
        Role.IDENTITY,
    )
    held_out: float = setting(0.1, "share of its own users that stop it", Role.IDENTITY, ge=0, lt=1)
    fill: Literal["likes", "rated"] = setting(
        "likes", "what synthetic users fill as many cells as: likes, or all ratings"
    )
