"""A node's part in masked sums: what it keeps between their messages, and what it answers."""

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from flwr.app import RecordDict

from client_app.partners import Partners, Signed
from client_app.policy import Policy, Sums
from common import messages
from common.durable import exclusively, make_folder, read_checked, remove, write_checked
from common.errors import SnowdropError
from common.secure.groups import SMALLEST_RING, certain
from common.secure.member import (
    Confirmed,
    Hidden,
    Joined,
    Masks,
    PublicKeys,
    Sharing,
    Stage,
    read,
    written,
)

FOLDER = "sums"

_LIFETIME = 86_400.0
"""Seconds after which what is left of an older sum is deleted."""

AnyStage = TypeVar("AnyStage", bound=Stage)


class MaskedSums:
    """The masked sums that a node takes part in: for each run one, and the next one.

    Each stage of a sum is on the disk, in a file that this account alone can read, until the next
    message. It is replaced before the node answers, so that no message is answered twice. A sum has
    keys and a seed of its own: the next one's first two stages only travel beside this one's last.

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
        self._lasting, self._run = lasting, f"{run_id}-"

    def join(self, request: messages.KeysRequest) -> messages.KeysAnswer:
        """New keys for a new sum; what is left of this run's older ones is deleted."""
        self._policy.check_kind(request.kind)
        return self._joined(request.session)

    def join_next(self, masking: messages.Masking) -> messages.KeysAnswer:
        """New keys for the sum that follows the one that is under way."""
        return self._joined(masking.following, under_way=masking.session)

    def _joined(self, session: str, under_way: str | None = None) -> messages.KeysAnswer:
        joined = Joined.anew(session)
        told = self._partners.signed(session, joined.public())
        with self._locked():
            self._drop_old(under_way)
            write_checked(self._path(session), written(joined), self._lasting)
        public = told.public
        return messages.KeysAnswer(
            public.channel, public.mask, told.signer, told.signature, self._policy.summed()
        )

    def beside(self, answer: RecordDict, make: Callable[[], messages.Companion]) -> RecordDict:
        """An answer with a stage of the next sum beside it, or alone where that is refused."""
        try:
            return make().beside(answer)
        except SnowdropError as error:
            print(f"snowdrop node: it takes no part in the next sum: {error}", file=sys.stderr)
            return answer

    def share(self, request: messages.SharesRequest) -> messages.SharesAnswer:
        """Split this node's secrets among its group.

        Raises
        ------
        PolicyError
            If the group is smaller than this node's owner agrees to, or not of partners alone.
        SnowdropError
            If it is malformed, or comes out of turn.
        """
        members = len(request.places)
        # Of a small group the list of who is there is checked later, node by node.
        participants = members if members < SMALLEST_RING else certain(members)
        self._policy.check_sums(Sums(secure=True, participants=participants))
        told = _members(request)
        self._partners.check(request.session, told)
        group = {place: one.public for place, one in told.items()}
        with self._locked():
            joined, fewest = self._at(request.session, Joined), self._policy.fewest_participants
            sharing, sealed = joined.share(request.own, group, fewest)
            write_checked(self._path(request.session), written(sharing), self._lasting)
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
        if len(shares) != len(masking.sources):
            raise SnowdropError("a place stands twice among those who have shared")
        with self._locked():
            hidden, masks = self._at(masking.session, Sharing).accept(shares)
            write_checked(self._path(masking.session), written(hidden), self._lasting)
        return masks

    def confirm(self, request: messages.ConfirmRequest) -> messages.ConfirmAnswer:
        """Say to the others of the group who is in the sum; of another list nothing is said.

        Raises
        ------
        SnowdropError
            If the message comes out of turn, or the sum is over too few nodes.
        """
        with self._locked():
            hidden = self._at(request.session, Hidden)
            confirmed, said = hidden.confirm(request.there, self._policy.fewest_participants)
            write_checked(self._path(request.session), written(confirmed), self._lasting)
        return messages.ConfirmAnswer(list(said), list(said.values()))

    def reveal(
        self, request: messages.UnmaskRequest, heard: messages.ConfirmAnswer | None = None
    ) -> messages.UnmaskAnswer:
        """Shares of the others' secrets; all that is kept of this sum is deleted.

        Parameters
        ----------
        request : UnmaskRequest
        heard : ConfirmAnswer or None
            What the others have said to this node. None where all of them are in the sum.

        Raises
        ------
        SnowdropError
            If the message comes out of turn, the sum is over too few nodes, or they were not told
            the same.
        """
        fewest = self._policy.fewest_participants
        with self._locked():
            if heard is None:
                told = self._at(request.session, Hidden).reveal(request.there, fewest)
            else:
                said = dict(zip(heard.places, heard.words, strict=False))
                told = self._at(request.session, Confirmed).reveal(request.there, said, fewest)
            remove(self._path(request.session), self._lasting)
        return messages.UnmaskAnswer(list(told), list(told.values()))

    def _at(self, session: str, stage: type[AnyStage]) -> AnyStage:
        path = self._path(session)
        kept: Stage | None = read(read_checked(path)) if path.exists() else None
        if not isinstance(kept, stage) or kept.session != session:
            raise SnowdropError("a message of a masked sum came out of turn, or a second time")
        return kept

    def _path(self, session: str) -> Path:
        """Of a sum's stage; the server's word for the sum is not part of the name."""
        return self._folder / f"{self._run}{hashlib.sha256(session.encode()).hexdigest()}.json"

    def _drop_old(self, under_way: str | None) -> None:
        kept = None if under_way is None else self._path(under_way)
        for path in self._folder.glob("*.json*"):
            old = path.stat().st_mtime < time.time() - _LIFETIME
            # Its first character is a dot where a process died while it wrote the file.
            if old or (path.name.removeprefix(".").startswith(self._run) and path != kept):
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
