"""What a node's owner is told, asked of real SuperLinks."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import flwr.client.grpc_rere_client.node_auth_client_interceptor as signing
import pytest

from common.errors import SnowdropError
from deploy import certificate, credentials, local, supervisor
from deploy import folder as federation_folder
from deploy.federation import Federation
from deploy.flower import end
from deploy.health import healthy, takes_part
from deploy.processes import node, superlink
from deploy.reach import obstacle, obstacle_of
from deploy.warm.__main__ import tell_obstacle

Made = tuple[Path, Federation]


def made_in(folder: Path) -> Made:
    """A federation of one node that listens on this machine's loopback, on free ports."""
    programs = str(Path(sys.executable).parent)
    description = Federation.new(folder, "fed", 1, ("127.0.0.1",), 0, programs)
    return folder, federation_folder.make(folder, description, force=False, keep=False)


@contextmanager
def running(federation: Federation) -> Iterator[None]:
    """Its SuperLink, as `snowdrop deploy up` starts it."""
    process = superlink(federation)
    with (Path(federation.root) / "superlink.log").open("wb") as output:
        started = subprocess.Popen(
            process.command,
            env=os.environ | process.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while not healthy(process.health):
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield
    finally:
        end(started)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A SuperLink that knows the key of its node."""
    folder, federation = made_in(tmp_path_factory.mktemp("reach") / "fed")
    with running(federation):
        assert local.register(folder, federation) == ["node-0"]
        yield folder, federation


@contextmanager
def running_node(federation: Federation) -> Iterator[str]:
    """The first node, as it is started everywhere; the address of its health."""
    process = node(federation, federation.nodes[0])
    started = subprocess.Popen(
        process.command,
        env=os.environ | process.environment | {"SNOWDROP_WARM": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: healthy(process.health))
        yield process.health
    finally:
        end(started)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_node_takes_part_once_it_is_connected(up: Made, tmp_path: Path) -> None:
    federation = up[1]
    with running_node(federation) as health:
        wait_for(lambda: takes_part(health, federation.fleet_address))
        assert not takes_part(health, federation.control_address)
    _, alone = made_in(tmp_path / "alone")
    with running_node(alone) as health:
        assert healthy(health)
        assert not takes_part(health, alone.fleet_address)


def told(up: Made, address: str = "", authority: Path | None = None) -> str:
    folder, federation = up
    place = folder / "nodes" / "node-0"
    why = obstacle(
        address or federation.fleet_address, authority or place / "ca.crt", place / "key"
    )
    return why or ""


def test_nothing_is_in_the_way_of_a_registered_node(up: Made) -> None:
    assert local.node_obstacle(*up, "node-0") is None


def test_a_wrong_host_name_or_port_is_one_sentence(up: Made) -> None:
    port = up[1].fleet_port
    assert "'server.invalid' is not known to this machine" in told(up, f"server.invalid:{port}")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    assert f"nothing listens on 127.0.0.1:{free}: start" in told(up, f"127.0.0.1:{free}")
    assert "speaks no TLS" in told(up, superlink(up[1]).health)
    assert "is for localhost, 127.0.0.1, ::1 and not for '127.0.0.2'" in told(
        up, f"127.0.0.2:{port}"
    )


def test_an_authority_of_another_federation_is_one_sentence(up: Made, tmp_path: Path) -> None:
    credentials.make_authority(tmp_path, "other")
    assert "does not vouch for the server" in told(up, authority=tmp_path / "ca.crt")
    assert "cannot be read: copy ca.crt" in told(up, authority=tmp_path / "absent.crt")


def test_a_key_of_another_federation_is_one_sentence(up: Made, tmp_path: Path) -> None:
    key = up[0] / "nodes" / "node-0" / "key"
    own = key.read_bytes()
    credentials.make_node_key(tmp_path)
    key.write_bytes((tmp_path / "key").read_bytes())
    try:
        why = told(up)
        assert f"does not know the key {key}: register it there" in why
        assert local.node_obstacle(*up, "node-0") == why
        key.write_text("no key")
        assert "is no key of a node" in told(up)
    finally:
        key.write_bytes(own)


def test_a_clock_that_is_off_is_one_sentence(up: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = signing.now
    monkeypatch.setattr(signing, "now", lambda: clock() - timedelta(minutes=4))
    assert not told(up)
    for minutes in (-10, 10):
        monkeypatch.setattr(signing, "now", lambda m=minutes: clock() + timedelta(minutes=m))
        assert "differ by more than five minutes" in told(up)


def test_a_node_says_it_in_its_log_and_asks_for_its_key_at_the_second_start(
    up: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    federation = up[1]
    command = list(node(federation, federation.nodes[0]).command)
    assert obstacle_of(command, with_key=True) is None
    credentials.make_node_key(tmp_path)
    command[command.index("--auth-supernode-private-key") + 1] = str(tmp_path / "key")
    tell_obstacle(command, tmp_path / "home")
    assert capfd.readouterr().err == ""
    tell_obstacle(command, tmp_path / "home")
    assert "snowdrop: the SuperLink at" in capfd.readouterr().err
    command[command.index("--superlink") + 1] = "server.invalid:1"
    tell_obstacle(command, tmp_path / "other-home")
    assert "'server.invalid' is not known" in capfd.readouterr().err
    tell_obstacle(["flower-supernode", "--superlink", "no-port", "--root-certificates", "x"],
                  tmp_path / "home")  # fmt: skip
    assert "could not look" in capfd.readouterr().err


def test_an_expired_certificate_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, federation = made_in(tmp_path / "fed")
    monkeypatch.setattr(credentials, "SERVER_DAYS", 0)
    certificate.renew(folder, federation)
    with running(federation):
        assert "ended on" in told((folder, federation))
        assert "`snowdrop deploy renew DIR`" in told((folder, federation))


def test_a_port_in_use_is_one_sentence_and_nothing_is_started(tmp_path: Path) -> None:
    folder, federation = made_in(tmp_path / "fed")
    data = folder / "nodes" / "node-0" / "data" / "interactions.csv"
    data.write_text("user_id,item_id\n")
    for name, host, port in federation.listeners():
        with socket.create_server((host, port)):
            sentence = f"port {port} of {name} is in use by another process"
            with pytest.raises(SnowdropError, match=sentence):
                local.up(folder, print)
    assert not (folder / "run").exists()


def test_a_federation_with_a_wrong_key_does_not_come_up(tmp_path: Path) -> None:
    folder, _ = made_in(tmp_path / "fed")
    (folder / "nodes" / "node-0" / "data" / "interactions.csv").write_text("user_id,item_id\n")
    credentials.make_node_key(tmp_path)
    (tmp_path / "key").replace(folder / "nodes" / "node-0" / "key")
    with pytest.raises(SnowdropError, match=r"node-0 cannot take part: .* does not know the key"):
        local.up(folder, print)
    assert not supervisor.family(folder)
