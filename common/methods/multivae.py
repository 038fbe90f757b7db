"""MultiVAE: the decoder of a variational autoencoder of users' likes, fed N(0, I)."""

from common.methods.autoencoder import PUBLISHED_AUTOENCODER, SEARCH, AutoencoderSettings
from common.methods.card import Card, Paper
from common.methods.published import in_group

CARD = Card(
    name="multivae",
    title="MultiVAE",
    kind="synthesizer",
    node="client_app.methods.multivae:MultiVAESynthesizer",
    paper=Paper(
        "Variational Autoencoders for Collaborative Filtering",
        "Liang, Krishnan, Hoffman, Jebara",
        arxiv="1802.05814",
    ),
    settings=AutoencoderSettings,
    published=in_group(
        "multivae",
        {
            **PUBLISHED_AUTOENCODER,
            "vae_hidden": 600,
            "vae_latent": 200,
            "vae_lr": 1e-3,
            "vae_batch": 500,
            "vae_epochs": 200,
            "vae_patience": 200,
            "kl_updates": 200_000,
        },
    ),
    search={f"multivae.{name}": choices for name, choices in SEARCH.items()},
    order=404,
)
