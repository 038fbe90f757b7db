"""CTGAN: a conditional generative adversarial network for tables, with items as columns."""

from typing import Self

from pydantic import model_validator

from common.methods.card import Card, Paper
from common.methods.search import Number, OneOf
from common.methods.tabular import TabularSettings
from common.roles import Count, Positive, Role, setting


class CTGANSettings(TabularSettings):
    """Generator, discriminator and their training."""

    latent: Count = setting(128, "width of the noise that the generator gets", Role.IDENTITY)
    generator_width: Count = setting(256, "width of its two residual layers", Role.IDENTITY)
    discriminator_width: Count = setting(
        256, "width of the discriminator's two hidden layers", Role.IDENTITY
    )
    generator_lr: Positive = setting(2e-4, "learning rate of the generator", Role.IDENTITY)
    discriminator_lr: Positive = setting(2e-4, "that of the discriminator", Role.IDENTITY)
    weight_decay: float = setting(1e-6, "weight decay of both", Role.IDENTITY, ge=0)
    discriminator_steps: Count = setting(
        1, "steps of the discriminator before each one of the generator", Role.IDENTITY
    )
    pac: Count = setting(10, "users that the discriminator judges together", Role.IDENTITY)

    @model_validator(mode="after")
    def _whole_packs(self) -> Self:
        if self.batch % self.pac:
            raise ValueError(
                f"ctgan.batch = {self.batch} must be a multiple of ctgan.pac = {self.pac}"
            )
        if self.batch < 2:
            raise ValueError("ctgan.batch must be 2 or more: its layers normalise over a batch")
        return self


CARD = Card(
    name="ctgan",
    title="CTGAN",
    kind="synthesizer",
    node="client_app.methods.ctgan:CTGANSynthesizer",
    paper=Paper(
        "Modeling Tabular Data using Conditional GAN",
        "Xu, Skoularidou, Cuesta-Infante, Veeramachaneni",
        arxiv="1907.00503",
        venue="NeurIPS 2019",
    ),
    settings=CTGANSettings,
    search={
        "ctgan.epochs": OneOf([100, 300, 500]),
        "ctgan.batch": OneOf([100, 200, 500]),
        "ctgan.latent": OneOf([32, 64, 128, 256]),
        "ctgan.generator_width": OneOf([128, 256, 512]),
        "ctgan.discriminator_width": OneOf([128, 256, 512]),
        "ctgan.generator_lr": Number(5e-5, 2e-3),
        "ctgan.discriminator_lr": Number(5e-5, 2e-3),
        "ctgan.discriminator_steps": OneOf([1, 5]),
    },
    order=410,
)
