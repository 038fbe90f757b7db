"""MultiVAE++: the decoder of SDRM's MultiVAE, fed N(0, I)."""

from common.methods.autoencoder import PUBLISHED_AUTOENCODER, SEARCH, AutoencoderSettings
from common.methods.card import Card, Paper
from common.methods.published import in_group

CARD = Card(
    name="multivae-prior",
    title="MultiVAE++",
    kind="synthesizer",
    node="client_app.methods.multivae_prior:MultiVAEPrior",
    paper=Paper(
        "Multi-Resolution Diffusion for Privacy-Sensitive Recommender Systems",
        "Lilienthal, Mello, Eirinaki, Tiomkin",
        arxiv="2311.03488",
    ),
    settings=AutoencoderSettings,
    # The MultiVAE that SDRM's published search found for ml-100k with SVD.
    published=in_group(
        "multivae-prior",
        {
            **PUBLISHED_AUTOENCODER,
            "vae_hidden": 930,
            "vae_latent": 830,
            "vae_lr": 6e-4,
            "vae_batch": 780,
        },
    ),
    search={f"multivae-prior.{name}": choices for name, choices in SEARCH.items()},
    scored_by_search=True,
    order=402,
)
