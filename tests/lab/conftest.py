"""One laboratory for a module, with our own server and coturn side by side at the same two addresses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.client.coturn import PASSWORD, REALM, USER, coturn_command, listens, running
from tests.lab.netlab import Lab, Node, laboratory, require
from turnsvr.client.nat import NatOptions
from turnsvr.client.nat_sockets import Tempo
from turnsvr.client.transaction import Timers
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address

QUICK = NatOptions(tempo=Tempo(Timers(rto=0.1, rc=5, rm=4), least_rto=0.05, pace=0.01), stream_patience=2)
"""On these links an answer takes a millisecond or never comes."""


@dataclass(frozen=True)
class Server:
    """A STUN server with two addresses and two ports."""

    name: str
    port: int
    alternate_port: int

    def uri(self, host: str) -> str:
        return f"stun:[{host}]:{self.port}" if ":" in host else f"stun:{host}:{self.port}"


OURS, COTURN = Server("turnsvr", 3478, 3479), Server("coturn", 4478, 4479)
BOTH_SERVERS = pytest.mark.parametrize("server", [OURS, COTURN], ids=lambda server: server.name)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, certificate: TlsFiles) -> Iterator[Lab]:
    """The public segment with both servers; user "alice" of coturn.py relays through either."""
    require()
    directory = tmp_path_factory.mktemp("lab")
    with (
        laboratory() as built,
        _coturn(built, directory),
        turnsvr(built.core, directory, _settings(built, certificate)),
    ):
        yield built


@contextmanager
def _coturn(lab: Lab, directory: Path) -> Iterator[None]:
    ports = ("-p", str(COTURN.port), "--alt-listening-port", str(COTURN.alternate_port), "--no-tls")
    addresses = [option for address in (*lab.servers_v4, *lab.servers_v6) for option in ("-L", address)]
    command = lab.core.inside(*coturn_command(directory, *ports, *addresses))
    with running(command, directory / "coturn.log", ready(lab.core, Address(lab.servers_v4[0], COTURN.port))):
        yield


def _settings(lab: Lab, certificate: TlsFiles) -> dict[str, Any]:
    hosts = [lab.servers_v4[0], f"[{lab.servers_v6[0]}]"]
    return {
        "listen": [f"{transport}://{host}" for transport in ("udp", "tcp", "tls") for host in hosts],
        "tls": {"certificate": str(certificate.certificate), "key": str(certificate.key)},
        "relay": {"addresses": [lab.servers_v4[0], lab.servers_v6[0]]},
        "nat_discovery": {
            "primary": [lab.servers_v4[0], lab.servers_v6[0]],
            "alternate": [lab.servers_v4[1], lab.servers_v6[1]],
        },
    }


@contextmanager
def turnsvr(node: Node, directory: Path, settings: dict[str, Any], *, first: str = "") -> Iterator[None]:
    """Our own server in a node; settings as of the file, where user, realm and generous limits are filled in.

    first: Python that its process runs before it starts.
    """
    usual = {
        "realm": REALM,
        "credentials": {"users": {USER: PASSWORD}},
        "limits": {"allocations_per_user": 1000, "answers_per_address": 10_000},
    }
    file = directory / "turnsvr.yaml"
    file.write_text(json.dumps(usual | settings))
    file.chmod(0o600)
    program = f"{first}\nfrom turnsvr.cli import main; main()"
    command = [sys.executable, "-c", program, "run", "-c", str(file)]
    tcp = next(text for text in settings["listen"] if text.startswith("tcp://"))
    server = Address(tcp.removeprefix("tcp://"), OURS.port)
    with running(node.inside(*command), directory / "turnsvr.app.log", ready(node, server)):
        yield


def ready(node: Node, server: Address) -> Callable[[], bool]:
    async def look() -> bool:
        return listens(server)

    return lambda: node.run(look)
