"""The server that each guide's file becomes, on loopback, under coturn's own client."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, ServerProcess, free_port, need
from tests.interop.uclient import Case, Expect, command, verdict
from tests.migrate.conftest import SURROUNDINGS
from tests.migrate.guides import GUIDES, source
from turnsvr import config
from turnsvr.config.settings import Settings
from turnsvr.credentials import shared_secret
from turnsvr.migrate import convert
from turnsvr.net.tls import TlsFiles

_CLIENT_TIMEOUT = 60.0
_DREW_A_CHANNEL_TWICE = "channel bind: error 400"
"""The client draws channel numbers by chance and ends where it draws one for two peers: it may try once more."""
_PASSWORDS = {"logen": "youhavetoberealistic"}
"""Of users whose password the file has, so that a client can use it."""

_HERE = ("listening-ip", "relay-ip", "listening-port", "tls-listening-port", "min-port", "max-port", "userdb")


def on_loopback(
    text: bytes, directory: Path, certificate: TlsFiles, *, port: int, tls_port: int, metrics_port: int
) -> bytes:
    """A guide's file for this host: loopback addresses, free ports, a certificate that is there, peers on loopback."""
    lines = [line for line in text.decode().splitlines() if not line.startswith(tuple(f"{key}=" for key in _HERE))]
    lines = [line for line in lines if not line.startswith(("denied-peer-ip=127.", "denied-peer-ip=::1"))]
    lines = [f"cert={certificate.certificate}" if line.startswith("cert=") else line for line in lines]
    lines = [f"pkey={certificate.key}" if line.startswith("pkey=") else line for line in lines]
    lines += [
        *("listening-ip=127.0.0.1", "relay-ip=127.0.0.1", f"listening-port={port}", f"tls-listening-port={tls_port}"),
        *("allow-loopback-peers", "prometheus-address=127.0.0.1", f"prometheus-port={metrics_port}"),
    ]
    if b"userdb=" in text:
        database = directory / "turndb"
        subprocess.run(
            [need("turnadmin"), "-a", "-b", database, "-u", "somebody", "-r", "else.example", "-p", "unused"],
            check=True,
            capture_output=True,
            timeout=30,
        )
        lines.append(f"userdb={database}")
    return "\n".join(lines).encode()


@dataclass(frozen=True)
class Imported:
    """A server that runs on what the import made."""

    guide: str
    settings: Settings
    port: int
    tls_port: int

    @property
    def transports(self) -> set[str]:
        return {listener.transport for listener in self.settings.listeners()}

    def login(self) -> tuple[str, str]:
        """A user of the file, or credentials from its secret."""
        for name, password in _PASSWORDS.items():
            if name in self.settings.credentials.users:
                return name, password
        secret = self.settings.credentials.secrets[0].get_secret_value()
        return shared_secret.make(secret, "alice", 600, time.time())


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, certificate: TlsFiles) -> Iterator[Callable[[str], Imported]]:
    """Starts the server of a guide once."""
    running: dict[str, tuple[ServerProcess, Imported]] = {}

    def start(guide: str) -> Imported:
        if guide not in running:
            directory = tmp_path_factory.mktemp(guide)
            ports = {"port": free_port(), "tls_port": free_port(), "metrics_port": free_port()}
            text = convert(
                on_loopback(source(guide), directory, certificate, **ports), f"{guide}.conf", SURROUNDINGS
            ).text
            process = ServerProcess(text, directory).__enter__()
            settings = config.load(process.file)
            running[guide] = process, Imported(guide, settings, ports["port"], ports["tls_port"])
        return running[guide][1]

    yield start
    for process, _ in running.values():
        process.__exit__(None, None, None)


_LEGS = {
    "udp": Case("udp", "-X", messages=5),
    "tcp": Case("tcp", "-t -X", messages=5),
    "tls": Case("tls", "-t -X", messages=5, tls=True),
}

_SERVED = {
    "bigbluebutton": {"udp", "tcp", "tls"},
    "debian-stock": {"udp", "tcp"},
    "jitsi": {"udp", "tls"},
    "matrix-docker-ansible": {"udp", "tcp", "tls"},
    "nextcloud-talk": {"udp", "tcp"},
    "prosody": {"udp", "tcp", "tls"},
    "static-users": {"udp", "tcp", "tls"},
    "synapse": {"udp", "tcp", "tls"},
}
"""What each guide's server speaks with clients."""


@pytest.mark.parametrize("guide", GUIDES)
def test_what_is_served(guide: str, servers: Callable[[str], Imported]) -> None:
    assert servers(guide).transports == _SERVED[guide]


@pytest.mark.parametrize(("guide", "leg"), [(guide, leg) for guide in GUIDES for leg in sorted(_SERVED[guide])])
def test_a_client_relays(guide: str, leg: str, servers: Callable[[str], Imported], peer_port: int) -> None:
    assert _run(_LEGS[leg], servers(guide), peer_port) is None


@pytest.mark.parametrize("guide", GUIDES)
def test_a_private_peer_is_refused(guide: str, servers: Callable[[str], Imported], peer_port: int) -> None:
    case = Case("private-peer", "-X", Expect.NOTHING, messages=2)
    assert _run(case, servers(guide), peer_port, peer="10.99.99.99") is None


@pytest.mark.parametrize("guide", GUIDES)
def test_a_stranger_is_refused(guide: str, servers: Callable[[str], Imported], peer_port: int) -> None:
    case = Case("stranger", "-X", Expect.NOTHING, messages=2)
    assert _run(case, servers(guide), peer_port, password="guessed") is None


def test_metrics_are_served(servers: Callable[[str], Imported]) -> None:
    """The file with users and the line `prometheus`."""
    web = servers("static-users").settings.web
    assert web is not None
    [listen] = web.listen
    with urllib.request.urlopen(f"{listen}/metrics", timeout=PATIENCE) as response:
        assert b"turnsvr_sessions" in response.read()


def _run(case: Case, server: Imported, peer_port: int, *, peer: str = "127.0.0.1", password: str = "") -> str | None:
    """What is wrong with a run of the client, or None."""
    need("turnutils_uclient")
    name, good = server.login()
    logged_in = Case(
        case.name, case.arguments, case.expect, case.tls, user=name, password=password or good, messages=case.messages
    )
    line = command(logged_in, port=server.port, tls_port=server.tls_port, peer_port=peer_port)
    line[line.index("-e") + 1] = peer
    result = _client(line)
    if result is not None and _DREW_A_CHANNEL_TWICE in result.stdout:
        result = _client(line)
    problem = verdict(logged_in, result)
    if problem is None and peer != "127.0.0.1":
        assert result is not None
        return None if "403" in result.stdout else "no 403 was told"
    return problem and f"{problem}\n{result.stdout[-2000:] if result is not None else ''}"


def _client(line: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            line, capture_output=True, text=True, timeout=_CLIENT_TIMEOUT, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return None
