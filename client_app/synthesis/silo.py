"""The users of one silo as matrices."""

from dataclasses import dataclass

from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Silo:
    """Interactions of a silo's users.

    Parameters
    ----------
    likes : csr_array, bool (users, items)
        What a synthesizer learns from.
    rated : csr_array, bool (users, items)
        Every item that a user has rated, liked or not; the same as ``likes`` where the data hold
        no low ratings.
    watched : csr_array, bool (users, items), optional
        Users on which a training may stop early. None: the synthesizer holds out some of its own.
        SDRM's published code stops on the users on which it reports.
    """

    likes: csr_array
    rated: csr_array
    watched: csr_array | None = None
