"""Who may be in a secure sum with this node: those whose public keys its owner keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client_app.policy import Policy, refusal
from common.errors import SnowdropError
from common.messages import NOBODY
from common.secure.member import PublicKeys
from common.secure.signatures import is_signed, name_of, names_in, read_key, sign

KEY = "key"
"""The node's own key, beside its policy."""


@dataclass(frozen=True)
class Signed:
    """Keys for a sum, and who has told them; nobody knows where there is no signature."""

    public: PublicKeys
    signer: str = NOBODY
    signature: bytes = NOBODY.encode()


class Partners:
    """What the folder of a node's policy says of its partners.

    Parameters
    ----------
    path : Path or None
        Of the policy; without one, keys are not signed and anybody may take part.
    policy : Policy
    signs : bool
        Whether a key that lies there is this node's own.
    """

    def __init__(self, path: Path | None, policy: Policy, signs: bool) -> None:
        self._folder = None if path is None else path.parent
        self._file, self._signs = policy.partners, signs

    def signed(self, session: str, public: PublicKeys) -> Signed:
        """This node's keys for a sum, signed where it has a key of its own.

        Raises
        ------
        SnowdropError
            If that key cannot be read, or is missing and the policy names partners.
        """
        path = None if self._folder is None else self._folder / KEY
        if path is None or not (self._file or (self._signs and path.exists())):
            return Signed(public)
        key = read_key(path)
        return Signed(public, name_of(key), sign(key, session, public))

    def check(self, session: str, group: Mapping[int, Signed]) -> None:
        """Refuse a list of keys in which not every key is that of another partner.

        Raises
        ------
        PolicyError
        SnowdropError
            If the file of partners cannot be read.
        """
        if self._folder is None or not self._file:
            return
        known = known_partners(self._folder / self._file)
        signers = {one.signer for one in group.values()}
        if len(signers) != len(group) or not signers <= known:
            raise refusal("partners")
        if not all(is_signed(one.signer, one.signature, session, one.public)
                   for one in group.values()):  # fmt: skip
            raise refusal("partners")


def known_partners(path: Path) -> frozenset[str]:
    """The public keys in a file of partners.

    Raises
    ------
    SnowdropError
        If it cannot be read.
    """
    try:
        return names_in(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SnowdropError(f"the partners {path} cannot be read") from error
