"""Signed lists of keys: a server cannot put nodes of its own into a secure sum."""

from dataclasses import replace
from pathlib import Path

import pytest

from client_app.partners import KEY, Partners, Signed
from client_app.policy import Policy
from common.errors import PolicyError, SnowdropError
from common.messages import NOBODY
from common.secure.member import Joined, PublicKeys
from deploy.credentials import make_node_key

SESSION = "s" * 16
FILE = "partners.pub"


class Nodes:
    """Folders of some nodes, and the keys that each tells."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.folders = [folder / f"node-{k}" for k in range(count)]
        for place in self.folders:
            make_node_key(place)
        self.know(range(count))
        self.told = {k: self.tell(k) for k in range(count)}

    def know(self, some: range) -> None:
        keys = [(self.folders[k] / "key.pub").read_text().rstrip() + " a note\n" for k in some]
        for place in self.folders:
            (place / FILE).write_text("".join(keys))

    def partners(self, node: int, file: str = FILE, signs: bool = True) -> Partners:
        policy = self.folders[node] / "policy.toml"
        return Partners(policy, Policy(partners=file), signs)

    def tell(self, node: int, session: str = SESSION) -> Signed:
        return self.partners(node).signed(session, Joined.anew(session).public())


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def test_a_list_of_signed_keys_of_partners_is_taken(nodes: Nodes) -> None:
    nodes.partners(0).check(SESSION, nodes.told)


def fake() -> PublicKeys:
    return Joined.anew(SESSION).public()


def test_keys_that_no_partner_has_signed_are_refused(nodes: Nodes, tmp_path: Path) -> None:
    stranger = Nodes(tmp_path / "elsewhere", 1).told[0]
    honest = nodes.told[2]
    for wrong in (
        Signed(honest.public),  # nobody has signed
        stranger,
        replace(honest, signature=stranger.signature),
        replace(honest, public=fake()),
        replace(honest, public=replace(honest.public, mask=fake().mask)),
        replace(honest, public=PublicKeys(honest.public.mask, honest.public.channel)),
        nodes.tell(2, "another session"),
        nodes.tell(1),  # one partner twice
        replace(honest, signer="no key"),
    ):
        with pytest.raises(PolicyError, match="partners: the sum would hold a node"):
            nodes.partners(0).check(SESSION, {**nodes.told, 2: wrong})


def test_a_partner_who_is_taken_from_the_file_is_refused(nodes: Nodes) -> None:
    nodes.know(range(2))
    with pytest.raises(PolicyError, match="partners"):
        nodes.partners(0).check(SESSION, nodes.told)


def test_without_partners_anybody_may_take_part_and_keys_are_signed_all_the_same(
    nodes: Nodes,
) -> None:
    nodes.partners(0, file="").check(SESSION, {**nodes.told, 2: Signed(fake())})
    Partners(None, Policy(), signs=True).check(SESSION, {2: Signed(fake())})
    for partners, signs in (
        (nodes.partners(0, file=""), True),
        (nodes.partners(0, file="", signs=False), False),
        (nodes.partners(0, signs=False), True),
        (Partners(None, Policy(), signs=True), False),
    ):
        assert (partners.signed(SESSION, fake()).signer != NOBODY) == signs


def test_a_key_or_a_file_of_partners_that_is_missing_is_told(nodes: Nodes) -> None:
    (nodes.folders[0] / FILE).unlink()
    with pytest.raises(SnowdropError, match=r"the partners .* cannot be read"):
        nodes.partners(0).check(SESSION, nodes.told)
    (nodes.folders[0] / KEY).write_text("nonsense")
    with pytest.raises(SnowdropError, match=r"the node's key .* cannot be read"):
        nodes.tell(0)
    (nodes.folders[0] / KEY).unlink()
    with pytest.raises(SnowdropError, match=r"the node's key .* cannot be read"):
        nodes.tell(0)
