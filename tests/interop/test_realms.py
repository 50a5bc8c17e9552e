"""Several realms, told apart by coturn's client: by the ORIGIN that it sends and by the listener that it talks to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import ServerProcess, free_port, need
from tests.interop.uclient import Case, Expect, command, verdict

_SHOP = "https://shop.example.org"
_SETTINGS = """
realm: example.org
listen: ["udp://127.0.0.1:{port}", "tcp://127.0.0.1:{port}", "udp://127.0.0.1:{game_port}"]
relay: {{addresses: 127.0.0.1}}
credentials: {{users: {{alice: wonderland}}}}
peers: {{allow: 127.0.0.1}}
realms:
  shop.example.org:
    origins: ["{origin}"]
    credentials: {{users: {{bob: builder}}}}
  game.example.org:
    listen: ["udp://127.0.0.1:{game_port}"]
    credentials: {{users: {{carol: singer}}}}
"""


@dataclass(frozen=True)
class RealmServer:
    port: int
    game_port: int
    process: ServerProcess


@pytest.fixture(scope="module")
def realm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealmServer]:
    port, game_port = free_port(), free_port()
    settings = _SETTINGS.format(port=port, game_port=game_port, origin=_SHOP)
    with ServerProcess(settings, tmp_path_factory.mktemp("realms")) as process:
        yield RealmServer(port, game_port, process)


def run(server: RealmServer, peer_port: int, case: Case, *, game: bool = False) -> str | None:
    need("turnutils_uclient")
    port = server.game_port if game else server.port
    line = command(case, port=port, tls_port=0, peer_port=peer_port)
    try:
        result = subprocess.run(line, check=False, capture_output=True, text=True, errors="replace", timeout=60)
    except subprocess.TimeoutExpired:
        return verdict(case, None)
    return verdict(case, result)


def case(user: str, password: str, arguments: str = "-X -c", expect: Expect = Expect.ALL) -> Case:
    return Case("", arguments, expect, user=user, password=password, messages=5)


@pytest.mark.parametrize(
    ("user", "password", "origin", "game", "realm"),
    [
        ("alice", "wonderland", None, False, "example.org"),
        ("alice", "wonderland", "https://elsewhere.example.org", False, "example.org"),
        ("bob", "builder", _SHOP, False, "shop.example.org"),
        ("bob", "builder", "HTTPS://Shop.example.org:443/", True, "shop.example.org"),
        ("carol", "singer", None, True, "game.example.org"),
    ],
)
def test_users_relay_in_the_realm_that_is_chosen_for_them(
    realm_server: RealmServer, peer_port: int, user: str, password: str, origin: str | None, game: bool, realm: str
) -> None:
    arguments = "-X -c" if origin is None else f"-X -c -o {origin}"
    assert run(realm_server, peer_port, case(user, password, arguments), game=game) is None
    lines = [line for line in realm_server.process.log.splitlines() if "session started" in line]
    assert f" user={user} " in lines[-1]
    assert lines[-1].endswith(f"realm={realm}")


@pytest.mark.parametrize(
    ("user", "password", "arguments", "game"),
    [
        ("bob", "builder", "-X -c", False),
        ("alice", "wonderland", f"-X -c -o {_SHOP}", False),
        ("alice", "wonderland", "-X -c", True),
    ],
)
def test_users_of_another_realm_are_unknown(
    realm_server: RealmServer, peer_port: int, user: str, password: str, arguments: str, game: bool
) -> None:
    refused = case(user, password, arguments, Expect.NOTHING)
    assert run(realm_server, peer_port, refused, game=game) is None
    assert 'reason="unknown user" realm=' in realm_server.process.log
