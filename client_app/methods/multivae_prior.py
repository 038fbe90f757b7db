"""MultiVAE++: the decoder of SDRM's MultiVAE, fed N(0, I) (arXiv 2311.03488, section 5.2)."""

from client_app.synthesis.latent import PriorSynthesizer


class MultiVAEPrior(PriorSynthesizer):
    """Decodes N(0, I)."""
