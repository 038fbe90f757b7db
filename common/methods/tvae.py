"""TVAE: a variational autoencoder for tables, with items as columns."""

from common.methods.card import Card, Paper
from common.methods.search import Number, OneOf
from common.methods.tabular import TabularSettings
from common.roles import Count, Positive, Role, setting


class TVAESettings(TabularSettings):
    """The autoencoder and its training."""

    latent: Count = setting(128, "width of the latent", Role.IDENTITY)
    width: Count = setting(128, "width of the two hidden layers on either side", Role.IDENTITY)
    lr: Positive = setting(1e-3, "learning rate", Role.IDENTITY)
    weight_decay: float = setting(1e-5, "weight decay", Role.IDENTITY, ge=0)
    loss_factor: Positive = setting(
        2.0, "weight of the reconstruction against the KL term", Role.IDENTITY
    )


CARD = Card(
    name="tvae",
    title="TVAE",
    kind="synthesizer",
    node="client_app.methods.tvae:TVAESynthesizer",
    paper=Paper(
        "Modeling Tabular Data using Conditional GAN",
        "Xu, Skoularidou, Cuesta-Infante, Veeramachaneni",
        arxiv="1907.00503",
        venue="NeurIPS 2019",
    ),
    settings=TVAESettings,
    search={
        "tvae.epochs": OneOf([100, 300, 500]),
        "tvae.batch": OneOf([100, 200, 500]),
        "tvae.latent": OneOf([32, 64, 128, 256]),
        "tvae.width": OneOf([128, 256, 512]),
        "tvae.lr": Number(2e-4, 5e-3),
        "tvae.loss_factor": Number(0.5, 10),
    },
    order=420,
)
