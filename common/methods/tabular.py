"""Settings that the synthesizers share which take items as the columns of a table."""

from common.methods.card import MethodSettings
from common.roles import Count, Positive, Role, setting


class TabularSettings(MethodSettings):
    """The training, and the memory that it may take."""

    epochs: Count = setting(300, "passes over the users", Role.IDENTITY)
    batch: Count = setting(500, "users in one step", Role.IDENTITY)
    memory: Positive = setting(
        4.0, "largest estimate of the training's memory, in GB, with which it begins", Role.NEUTRAL
    )
