"""CS_FCF's server half: a cold item is the mean of the warm items most similar in text."""

from server_app.methods.similar_items import SimilarItems


class CSFCF(SimilarItems):
    """As similar items; the heads are a setting."""
