"""Which nodes of a federation know each other's keys, as its nodes come and go."""

from pathlib import Path

from client_app.partners import Partners, Signed
from client_app.policy import FILE, PARTNERS, Policy
from common.secure.member import Joined
from common.secure.signatures import name_of, names_in, read_key
from deploy import folder as federation_folder
from deploy.federation import Federation

SESSION = "s" * 16


def known_to(folder: Path, name: str) -> frozenset[str]:
    return names_in((folder / "nodes" / name / PARTNERS).read_text())


def key_of(folder: Path, name: str) -> str:
    return name_of(read_key(folder / "nodes" / name / "key"))


def test_all_nodes_of_a_federation_know_each_other(made: tuple[Path, Federation]) -> None:
    folder, federation = made
    every = {key_of(folder, name) for name in federation.node_names()}
    assert len(every) == 2
    federation_folder.add_node(folder, "late", free_port=True)
    for name in ("node-0", "node-1", "late"):
        assert known_to(folder, name) == every | {key_of(folder, "late")}
    federation_folder.give_partners(folder, federation)
    assert known_to(folder, "node-0") == every


def test_nodes_as_they_are_made_take_each_others_keys(made: tuple[Path, Federation]) -> None:
    folder, federation = made
    group: dict[int, Signed] = {}
    for place, name in enumerate(federation.node_names()):
        path = folder / "nodes" / name / FILE
        partners = Partners(path, Policy.read(path), signs=True)
        group[place] = partners.signed(SESSION, Joined.anew(SESSION).public())
    for name in federation.node_names():
        path = folder / "nodes" / name / FILE
        Partners(path, Policy.read(path), signs=True).check(SESSION, group)


def test_what_an_owner_has_written_stays(made: tuple[Path, Federation]) -> None:
    folder, federation = made
    own = folder / "nodes" / "node-0" / PARTNERS
    own.write_text("mine\n")
    (folder / "nodes" / "node-1" / PARTNERS).unlink()
    federation_folder.give_policies(folder, federation)
    assert own.read_text() == "mine\n"
    assert len(known_to(folder, "node-1")) == 2
