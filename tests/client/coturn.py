"""coturn, started and ended: the server that nobody here wrote."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, free_port, need
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address

REALM, USER, PASSWORD = "example.org", "alice", "wonderland"


@dataclass(frozen=True)
class Coturn:
    """A running coturn on 127.0.0.1."""

    plain: Address
    tls: Address
    log: Path


@contextmanager
def coturn(directory: Path, certificate: TlsFiles, *options: str) -> Iterator[Coturn]:
    """coturn on free ports of 127.0.0.1: UDP, TCP and TLS, loopback peers allowed."""
    plain, tls = Address("127.0.0.1", free_port()), Address("127.0.0.1", free_port())
    command = coturn_command(
        directory,
        *("-L", plain.host, "-p", str(plain.port), "--tls-listening-port", str(tls.port)),
        *("--cert", str(certificate.certificate), "--pkey", str(certificate.key), "--allow-loopback-peers"),
        *options,
    )
    with running(command, directory / "coturn.log", lambda: listens(plain)):
        yield Coturn(plain, tls, directory / "coturn.log")


def coturn_command(directory: Path, *options: str) -> Sequence[str]:
    """The command line of a coturn that keeps its files in directory; options say where it listens."""
    return [
        need("turnserver"),
        *("-n", "--lt-cred-mech", f"--user={USER}:{PASSWORD}", f"--realm={REALM}", "--no-cli", "--no-dtls"),
        *("--log-file=stdout", "--simple-log", f"--pidfile={directory}/pid", f"--userdb={directory}/db"),
        *options,
    ]


@contextmanager
def running(command: Sequence[str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """A process whose output goes to log, from when it is ready; it ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listens(server: Address) -> bool:
    """Whether somebody takes TCP connections there."""
    try:
        socket.create_connection(server, timeout=1).close()
    except OSError:
        return False
    return True
