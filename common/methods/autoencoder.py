"""Settings that the synthesizers share which decode users from a MultiVAE's latents."""

from typing import Any

from common.methods.search import Number, OneOf, Range
from common.methods.silo import SiloSettings
from common.roles import Count, Positive, Role, setting


class AutoencoderSettings(SiloSettings):
    """The MultiVAE, its training, its privacy, and the share of cells that is filled."""

    vae_hidden: Count = setting(
        600, "width H of the MultiVAE's hidden layer on either side", Role.IDENTITY
    )
    vae_latent: Count = setting(200, "width Z of its latent", Role.IDENTITY)
    vae_dropout: float = setting(
        0.5, "share of a user's likes that its encoder does not see in training", Role.IDENTITY,
        ge=0, lt=1,
    )  # fmt: skip
    vae_lr: Positive = setting(1e-3, "its learning rate", Role.IDENTITY)
    vae_batch: Count = setting(500, "users in one step of it", Role.IDENTITY)
    vae_epochs: Count = setting(500, "most passes over the users", Role.IDENTITY)
    vae_patience: Count = setting(
        21, "passes without a better Recall@10 after which it stops", Role.IDENTITY
    )
    kl_weight: float = setting(0.2, "largest weight of its KL term", Role.IDENTITY, ge=0)
    kl_updates: Positive = setting(
        20_000, "updates in which that weight would rise from 0 to 1", Role.IDENTITY
    )
    epsilon: float = setting(
        0.0, "ε of differential privacy, over the whole training; 0: none", Role.IDENTITY, ge=0
    )
    delta: float = setting(
        0.0, "δ of differential privacy; 0: 1 / users²", Role.IDENTITY, ge=0, lt=1
    )
    clip: Positive = setting(1.0, "L2 bound on one user's gradient, with epsilon", Role.IDENTITY)
    secure_noise: bool = setting(
        True,
        "with epsilon, draw noise and batches from the operating system, so that nobody can draw "
        "them again; false: from the seed",
        Role.IDENTITY,
    )
    most_likes: Count = setting(
        100, "likes of a user that count for the share of filled cells, with epsilon"
    )


PUBLISHED_AUTOENCODER: dict[str, Any] = {"stop_on": "watched", "fill": "rated"}
"""What SDRM's published code does where ours does better."""

SEARCH: dict[str, Range] = {
    "vae_latent": OneOf([50, 100, 200, 400]),
    "vae_hidden": OneOf([200, 400, 600, 800]),
    "vae_lr": Number(2e-4, 5e-3),
    "vae_batch": OneOf([100, 250, 500, 1000]),
}
"""What a search may choose for the MultiVAE."""
