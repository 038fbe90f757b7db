"""SDRM: score-based diffusion in the latent space of a MultiVAE makes synthetic users."""

from typing import Any, Literal, Self

from pydantic import model_validator

from common.methods.autoencoder import PUBLISHED_AUTOENCODER, SEARCH, AutoencoderSettings
from common.methods.card import Card, Paper, Variant
from common.methods.published import in_group
from common.methods.search import Number, OneOf
from common.roles import Count, Positive, Role, setting

StandardKind = Literal["none", "global", "entries", "whole"]


class SDRMSettings(AutoencoderSettings):
    """The diffusion of latents, and its sampling."""

    steps: int = setting(50, "diffusion steps T", Role.IDENTITY, ge=2, le=1000)
    schedule: Literal["linear", "scaled", "cosine"] = setting(
        "scaled",
        "noise schedule: β from 1e-4 to .02 whatever T is, the same times 1000 / T, or cosine",
        Role.IDENTITY,
    )
    noising: Literal["root", "published"] = setting(
        "root", "factor of the noise in z_t: √(1 − ᾱ_t), or the published code's 1 − ᾱ_t",
        Role.IDENTITY,
    )  # fmt: skip
    noise_scale: Positive = setting(1.0, "ν, a factor of all noise", Role.IDENTITY)
    objective: Literal["code", "equation-1", "noise", "velocity"] = setting(
        "velocity",
        "loss: of the published code, equation 1, or the error of the noise or of its velocity",
        Role.IDENTITY,
    )
    standardise: StandardKind = setting(
        "whole",
        "scale of latents in the diffusion: as they are, one scale, one per dimension, or whitened",
        Role.IDENTITY,
    )
    restored: float = setting(
        0.0,
        "share of the latents' own mean and spread that synthetic ones get back; 1: all, as real "
        "users have it; 0: none, so that rare tastes are as common as frequent ones",
        ge=0,
        le=1,
    )
    width: int = setting(0, "width of the denoiser; 0: that of the latent", Role.IDENTITY, ge=0)
    layers: int = setting(2, "hidden layers h of the denoiser", Role.IDENTITY, ge=0)
    shared_layers: bool = setting(
        False, "whether its hidden layers are one layer, repeated", Role.IDENTITY
    )
    bounded: bool = setting(False, "whether a tanh bounds its output", Role.IDENTITY)
    dropout: float = setting(
        0.5, "share of a latent's entries that it does not see", Role.IDENTITY, ge=0, lt=1
    )
    sampling_dropout: bool = setting(False, "whether entries are dropped in sampling, too")
    lr: Positive = setting(1e-3, "learning rate, which falls to 0 over the epochs", Role.IDENTITY)
    weight_decay: float = setting(1e-4, "weight decay", Role.IDENTITY, ge=0)
    batch: Count = setting(500, "users in one step", Role.IDENTITY)
    epochs: Count = setting(200, "passes over the users", Role.IDENTITY)
    sampling: Literal["full", "multi"] = setting(
        "full",
        "where synthetic users start: at step T (F-SDRM), or each at a step of its own (M-SDRM)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.epsilon and self.objective == "code":
            raise ValueError(
                "sdrm.epsilon needs another objective than code: the published code's loss divides "
                "by a variance over all users of a step"
            )
        return self


PUBLISHED: dict[str, Any] = {
    **PUBLISHED_AUTOENCODER,
    "schedule": "linear",
    "noising": "published",
    "objective": "code",
    "standardise": "none",
    "shared_layers": True,
    "bounded": True,
    "sampling_dropout": True,
}
"""The form of the published code; sizes and rates differ between data sets."""

FIXED = {name: SDRMSettings.model_fields[name].default for name in PUBLISHED}
"""The form that is the default."""

CARD = Card(
    name="sdrm",
    title="SDRM",
    kind="synthesizer",
    node="client_app.methods.sdrm:SDRM",
    paper=Paper(
        "Multi-Resolution Diffusion for Privacy-Sensitive Recommender Systems",
        "Lilienthal, Mello, Eirinaki, Tiomkin",
        arxiv="2311.03488",
    ),
    settings=SDRMSettings,
    # Sizes and rates that the published search found for ml-100k with SVD; those for other data
    # sets and recommenders are in benchmarks/sdrm_published.toml.
    published=in_group(
        "sdrm",
        {
            **PUBLISHED,
            "vae_hidden": 930,
            "vae_latent": 830,
            "vae_lr": 6e-4,
            "vae_batch": 780,
            "steps": 83,
            "noise_scale": 1.0,
            "layers": 2,
            "lr": 2.1e-5,
            "batch": 550,
            "epochs": 265,
        },
    ),
    variants={
        "fixed": Variant("SDRM, fixed form", in_group("sdrm", FIXED)),
        "full": Variant("F-SDRM", {"sdrm.sampling": "full"}),
        "multi": Variant("M-SDRM", {"sdrm.sampling": "multi"}),
    },
    search={
        **{f"sdrm.{name}": choices for name, choices in SEARCH.items()},
        "sdrm.steps": OneOf([20, 50, 100, 200]),
        "sdrm.lr": Number(1e-4, 3e-3),
        "sdrm.layers": OneOf([0, 1, 2, 3]),
        "sdrm.epochs": OneOf([100, 200, 400]),
    },
    scored_by_search=True,
    order=400,
)
