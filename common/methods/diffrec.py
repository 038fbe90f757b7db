"""DiffRec: a diffusion of users' rows, whose denoiser predicts the row without noise."""

from typing import Self

from pydantic import model_validator

from common.methods.card import Card, Paper
from common.methods.denoising import DenoisingSettings
from common.methods.published import in_group
from common.methods.search import Number, OneOf
from common.roles import Count, Positive, Role, setting


class DiffRecSettings(DenoisingSettings):
    """The diffusion, its denoiser and its sampling."""

    steps: int = setting(10, "diffusion steps T", Role.IDENTITY, ge=1, le=1000)
    noise_scale: Positive = setting(0.005, "s of the noise schedule, equation 4", Role.IDENTITY)
    noise_min: Positive = setting(0.005, "α_min of it", Role.IDENTITY)
    noise_max: Positive = setting(0.01, "α_max of it", Role.IDENTITY)
    hidden: Count = setting(600, "width of the denoiser's outer hidden layers", Role.IDENTITY)
    bottleneck: int = setting(
        200, "width of a layer between them; 0: they are one", Role.IDENTITY, ge=0
    )
    time_width: int = setting(10, "width of the step's embedding", Role.IDENTITY, ge=2)
    dropout: float = setting(
        0.5, "share of a row's entries that it does not see in training", Role.IDENTITY, ge=0, lt=1
    )
    reweight: bool = setting(
        True, "weigh steps by SNR(t − 1) − SNR(t), and the first one by 1", Role.IDENTITY
    )
    importance: bool = setting(True, "train more on steps of larger loss", Role.IDENTITY)
    weight_decay: float = setting(0.0, "weight decay", Role.IDENTITY, ge=0)
    sampling_noise: bool = setting(False, "whether the reverse process adds noise of its own")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.noise_scale * self.noise_max >= 1:
            raise ValueError("diffrec.noise_scale · noise_max must be below 1 (equation 4)")
        if self.noise_min > self.noise_max:
            raise ValueError("diffrec.noise_min must not exceed noise_max (equation 4)")
        return self


CARD = Card(
    name="diffrec",
    title="DiffRec",
    kind="synthesizer",
    node="client_app.methods.diffrec:DiffRecSynthesizer",
    paper=Paper(
        "Diffusion Recommender Model",
        "Wang, Xu, Feng, Lin, He, Chua",
        arxiv="2304.04971",
        venue="SIGIR 2023",
    ),
    settings=DiffRecSettings,
    # The published values for MovieLens-1M; T is SDRM's.
    published=in_group("diffrec", {"epochs": 1000, "stop_on": "watched", "fill": "rated"}),
    search={
        "diffrec.steps": OneOf([5, 10, 20, 40]),
        "diffrec.noise_scale": Number(0.005, 50),
        "diffrec.hidden": OneOf([200, 400, 600, 1000]),
        "diffrec.bottleneck": OneOf([0, 100, 200]),
        "diffrec.lr": Number(1e-4, 3e-3),
        "diffrec.batch": OneOf([100, 200, 400]),
        "diffrec.sampling_noise": OneOf([False, True]),
        "diffrec.reweight": OneOf([False, True]),
    },
    order=440,
)
