"""Kernel profile: log mean exp(β cos) of a cold item to the user's items, in whitened features."""

from common.methods.card import Card, MethodSettings
from common.methods.search import Number, OneOf
from common.roles import Count, setting


class KernelProfileSettings(MethodSettings):
    """The kernel and the features that it compares."""

    sharpness: float = setting(
        4.0, "β: the larger, the more the nearest of a user's items count", gt=0, le=40
    )
    dim: Count = setting(384, "principal components of the features")
    whitening: float = setting(0.5, "share of whitening of the components", ge=0, le=1)


CARD = Card(
    name="kernel-profile",
    title="kernel profile",
    kind="rule",
    server="server_app.methods.kernel_profile:KernelProfile",
    settings=KernelProfileSettings,
    # The defaults were chosen on validation items of amazon-office, movielens and citeulike
    # together: 37.98, 25.42 and 57.44 % Recall@20.
    search={
        "kernel-profile.sharpness": Number(1, 12),
        "kernel-profile.dim": OneOf([64, 128, 256, 384]),
        "kernel-profile.whitening": Number(0, 1, log=False),
    },
    order=210,
)
