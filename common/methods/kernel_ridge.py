"""Kernel ridge: a cold item's score is a weighted sum over the user's items, weights from texts."""

from common.methods.card import Card, MethodSettings
from common.methods.search import Number, OneOf, Range
from common.roles import Count, Positive, setting


class KernelRidgeSettings(MethodSettings):
    """The kernel, its ridge, and the features that it compares."""

    sharpness: Positive = setting(4.0, "of the kernel exp(sharpness (cos − 1))")
    ridge: Positive = setting(10.0, "λ of (K + λ I)⁻¹ k")
    dim: Count = setting(384, "principal components of the encoder's features")
    words: float = setting(0.5, "weight of TF-IDF features beside the encoder's", ge=0)
    word_dim: Count = setting(256, "dimensions of the TF-IDF features")
    whitening: float = setting(0.5, "share of whitening of the components", ge=0, le=1)


def kernel_search(name: str) -> dict[str, Range]:
    """What may be chosen for the kernel of a method that has these settings in its group."""
    return {
        f"{name}.sharpness": Number(1, 12),
        f"{name}.ridge": Number(0.5, 100),
        f"{name}.words": Number(0, 1, log=False),
        f"{name}.word_dim": OneOf([64, 128, 256, 512]),
        f"{name}.whitening": Number(0, 1, log=False),
    }


CARD = Card(
    name="kernel-ridge",
    title="kernel ridge",
    kind="rule",
    server="server_app.methods.kernel_ridge:KernelRidge",
    settings=KernelRidgeSettings,
    # The defaults were chosen on validation items of amazon-office, movielens and citeulike
    # together: 38.61, 26.17 and 57.73 % Recall@20.
    search=kernel_search("kernel-ridge"),
    tasks=("cold-items",),
    order=200,
)
