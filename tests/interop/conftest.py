"""One real server and one echoing peer for all programs that nobody here wrote."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ServerProcess, free_port, need
from tests.interop.uclient import PASSWORD, REALM, USER
from turnsvr.net.tls import TlsFiles
from turnsvr.relay import PumpKind, refuses_dtls

_SETTINGS = """
pump: {{kind: {pump}}}
realm: {realm}
listen:
  - udp://127.0.0.1:{port}
  - tcp://127.0.0.1:{port}
  - tls://127.0.0.1:{tls_port}
  - udp://[::1]:{port}
  - tcp://[::1]:{port}
  - tls://[::1]:{tls_port}{dtls}
tls: {{certificate: {certificate}, key: {key}}}
relay: {{addresses: [127.0.0.1, "::1"], tcp: true}}
credentials:
  users: {{{user}: {password}}}
  oauth:
    keys:
      north: {{key: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK, realm: crinna.org}}
      union: {{key: MTIzNDU2Nzg5MDEyMzQ1Ngo=, algorithm: A128GCM, realm: north.gov}}
      oldempire: MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK
peers: {{allow: [127.0.0.1, "::1"]}}
stun: {{mobility: true}}
limits: {{allocations_per_user: 1000, answers_per_address: 10000}}
"""


_DTLS = """
  - dtls://127.0.0.1:{tls_port}
  - dtls://[::1]:{tls_port}"""


@dataclass(frozen=True)
class InteropServer:
    """Ports on 127.0.0.1 and ::1."""

    port: int
    tls_port: int
    peer_port: int
    process: ServerProcess


@pytest.fixture(scope="session")
def interop_server(
    tmp_path_factory: pytest.TempPathFactory, certificate: TlsFiles, peer_port: int
) -> Iterator[InteropServer]:
    """`turnsvr run` on loopback, for USER, with a peer that echoes."""
    with _serving("auto", tmp_path_factory.mktemp("interop"), certificate, peer_port) as server:
        yield server


@pytest.fixture(scope="session")
def portable_server(
    tmp_path_factory: pytest.TempPathFactory, certificate: TlsFiles, peer_port: int
) -> Iterator[InteropServer]:
    """The same with the portable pump."""
    with _serving("portable", tmp_path_factory.mktemp("portable"), certificate, peer_port) as server:
        yield server


@contextmanager
def _serving(pump: PumpKind, directory: Path, certificate: TlsFiles, peer_port: int) -> Iterator[InteropServer]:
    port, tls_port = free_port(), free_port()
    settings = _SETTINGS.format(
        pump=pump,
        realm=REALM,
        port=port,
        tls_port=tls_port,
        dtls="" if refuses_dtls(pump) else _DTLS.format(tls_port=tls_port),
        certificate=certificate.certificate,
        key=certificate.key,
        user=USER,
        password=PASSWORD,
    )
    with ServerProcess(settings, directory) as process:
        yield InteropServer(port, tls_port, peer_port, process)


@pytest.fixture(scope="session")
def keep_freed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that keeps a client from using what it has freed, for LD_PRELOAD."""
    library = tmp_path_factory.mktemp("client") / "keep_freed.so"
    source = Path(__file__).with_name("keep_freed.c")
    subprocess.run([need("cc"), "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="session")
def peer_port() -> Iterator[int]:
    """Where coturn's echoing peer listens, on 127.0.0.1 and ::1."""
    program, port = need("turnutils_peer"), free_port()
    process = subprocess.Popen(
        [program, "-L", "127.0.0.1", "-L", "::1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()
