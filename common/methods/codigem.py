"""CODIGEM: a chain of autoencoders, each of which takes one step of noise from users' rows."""

from typing import Literal

from common.methods.card import Card, Paper
from common.methods.denoising import DenoisingSettings
from common.methods.published import in_group
from common.methods.search import Number, OneOf
from common.roles import Count, Role, setting


class CODIGEMSettings(DenoisingSettings):
    """The noise, the autoencoders and the decoder."""

    steps: Count = setting(3, "steps T of noise", Role.IDENTITY)
    beta: float = setting(1e-4, "β, variance of the noise of one step", Role.IDENTITY, gt=0, lt=1)
    width: Count = setting(200, "width of the hidden layers", Role.IDENTITY)
    layers: Count = setting(
        5, "hidden layers of each autoencoder and of the decoder", Role.IDENTITY
    )
    pairs: Literal["steps", "published"] = setting(
        "steps",
        "which row an autoencoder's output is compared with: that of the step before, or the "
        "published code's, which pairs them in opposite orders",
        Role.IDENTITY,
    )
    likelihood: Literal["gaussian", "multinomial"] = setting(
        "gaussian", "what the decoder's output is of a user's row", Role.IDENTITY
    )


CARD = Card(
    name="codigem",
    title="CODIGEM",
    kind="synthesizer",
    node="client_app.methods.codigem:CODIGEMSynthesizer",
    paper=Paper(
        "Recommendation via Collaborative Diffusion Generative Model",
        "Walker, Zhong, Zhang, Gao, Zhou",
        venue="KSEM 2022",
    ),
    settings=CODIGEMSettings,
    published=in_group(
        "codigem",
        {
            "epochs": 100,
            "patience": 11,
            "batch": 200,
            "pairs": "published",
            "stop_on": "watched",
            "fill": "rated",
        },
    ),
    search={
        "codigem.steps": OneOf([2, 3, 5, 10]),
        "codigem.beta": Number(1e-4, 0.9),
        "codigem.width": OneOf([100, 200, 400]),
        "codigem.layers": OneOf([1, 2, 5]),
        "codigem.lr": Number(2e-4, 5e-3),
        "codigem.batch": OneOf([100, 200, 400]),
        "codigem.likelihood": OneOf(["gaussian", "multinomial"]),
    },
    order=430,
)
