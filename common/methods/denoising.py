"""Settings that the synthesizers share which turn noise into scores of all items."""

from common.methods.silo import SiloSettings
from common.roles import Count, Positive, Role, setting


class DenoisingSettings(SiloSettings):
    """The training."""

    epochs: Count = setting(200, "most passes over the users", Role.IDENTITY)
    patience: Count = setting(
        20, "passes without a better Recall@10 after which it stops", Role.IDENTITY
    )
    batch: Count = setting(400, "users in one step", Role.IDENTITY)
    lr: Positive = setting(1e-3, "learning rate", Role.IDENTITY)
