"""MultiVAE as a synthesizer: its decoder, fed N(0, I) (arXiv 1802.05814)."""

from client_app.synthesis.latent import PriorSynthesizer


class MultiVAESynthesizer(PriorSynthesizer):
    """Decodes N(0, I)."""
