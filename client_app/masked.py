"""A node's part in masked sums: what it keeps between their messages, and what it answers."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from client_app.partners import Partners, Signed
from client_app.policy import Policy, Sums
from common import messages
from common.durable import exclusively, make_folder, read_checked, write_checked
from common.errors import SnowdropError
from common.secure.member import Hidden, Joined, Masks, PublicKeys, Sharing, Stage, read, written

FOLDER = "sums"

_LIFETIME = 86_400.0
"""Seconds after which what is left of an older sum is deleted."""

AnyStage = TypeVar("AnyStage", Joined, Sharing, Hidden)


class MaskedSums:
    """The masked sums that a node takes part in, one at a time for each run.

    Each stage of a sum is on the disk, in a file that this account alone can read, until the next
    message. It is replaced before the node answers, so that no message is answered twice.

    Parameters
    ----------
    state_dir : Path
    run_id : int
    policy : Policy
    partners : Partners
    lasting : bool
        Whether stages survive a loss of power: else a node that has told its vector could be asked
        for it again. A simulation does not go on after one.
    """

    def __init__(
        self,
        state_dir: Path,
        run_id: int,
        policy: Policy,
        partners: Partners,
        lasting: bool = True,
    ) -> None:
        self._folder, self._policy, self._partners = state_dir / FOLDER, policy, partners
        self._lasting = lasting
        self._path = self._folder / f"{run_id}.json"

    def join(self, request: messages.KeysRequest) -> messages.KeysAnswer:
        """New keys for a new sum; what is left of this run's last one is deleted."""
        self._policy.check_kind(request.kind)
        joined = Joined.anew(request.session)
        told = self._partners.signed(request.session, joined.public())
        with self._locked():
            self._drop_old()
            write_checked(self._path, written(joined), self._lasting)
        public = told.public
        return messages.KeysAnswer(public.channel, public.mask, told.signer, told.signature)

    def share(self, request: messages.SharesRequest) -> messages.SharesAnswer:
        """Split this node's secrets among its group.

        Raises
        ------
        PolicyError
            If the group is smaller than this node's owner agrees to, or not of partners alone.
        SnowdropError
            If it is malformed, or comes out of turn.
        """
        self._policy.check_sums(Sums(secure=True, participants=len(request.places)))
        told = _members(request)
        self._partners.check(request.session, told)
        group = {place: one.public for place, one in told.items()}
        with self._locked():
            sharing, sealed = self._at(request.session, Joined).share(request.own, group)
            write_checked(self._path, written(sharing), self._lasting)
        places, shares = list(sealed.shares), list(sealed.shares.values())
        return messages.SharesAnswer(sealed.commitment, places, shares)

    def accept(self, masking: messages.Masking) -> Masks:
        """The masks of this node's vector; there are none a second time.

        Raises
        ------
        SnowdropError
            If the message comes out of turn, or the shares in it cannot be used.
        """
        if len(masking.sources) != len(masking.shares):
            raise SnowdropError("malformed Masking")
        shares = dict(zip(masking.sources, masking.shares, strict=True))
        with self._locked():
            hidden, masks = self._at(masking.session, Sharing).accept(shares)
            write_checked(self._path, written(hidden), self._lasting)
        return masks

    def reveal(self, request: messages.UnmaskRequest) -> messages.UnmaskAnswer:
        """Shares of the others' secrets; all that is kept of the sum is deleted.

        Raises
        ------
        SnowdropError
            If the message comes out of turn, or the sum is over too few nodes.
        """
        with self._locked():
            hidden = self._at(request.session, Hidden)
            told = hidden.reveal(request.there, self._policy.fewest_participants)
            self._path.unlink()
        return messages.UnmaskAnswer(list(told), list(told.values()))

    def _at(self, session: str, stage: type[AnyStage]) -> AnyStage:
        kept: Stage | None = read(read_checked(self._path)) if self._path.exists() else None
        if not isinstance(kept, stage) or kept.session != session:
            raise SnowdropError("a message of a masked sum came out of turn, or a second time")
        return kept

    def _drop_old(self) -> None:
        for path in self._folder.glob("*.json"):
            if path == self._path or path.stat().st_mtime < time.time() - _LIFETIME:
                path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self._folder)
        with exclusively(self._folder / "lock"):
            yield


def _members(request: messages.SharesRequest) -> dict[int, Signed]:
    """The list of keys by place.

    Raises
    ------
    SnowdropError
        If it is malformed.
    """
    parts = (request.places, request.channels, request.masks, request.signers, request.signatures)
    try:
        told = {
            place: Signed(PublicKeys(channel, mask), signer, signature)
            for place, channel, mask, signer, signature in zip(*parts, strict=True)
        }
    except ValueError as error:
        raise SnowdropError("malformed SharesRequest") from error
    if len(told) != len(request.places):
        raise SnowdropError("a place stands twice in the list of keys")
    return told


def forget_sums(state_dir: Path) -> None:
    """Delete what is kept of sums that are under way."""
    shutil.rmtree(state_dir / FOLDER, ignore_errors=True)
