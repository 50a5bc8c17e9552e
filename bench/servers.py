"""The servers that are compared: how each is configured at its best, started on its core, and stopped."""

from __future__ import annotations

import datetime
import ipaddress
import math
import re
import secrets
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import turnsvr
from bench.process import cpu_seconds
from turnsvr.client.credentials import Login
from turnsvr.client.load_session import classic_login
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import Class, Message, Method

SERVER_HOST = "127.0.0.1"
RELAY_HOST = "127.0.0.2"
"""Apart from the generator's own ports, so that ten thousand of each find room."""
PEER_HOST = "127.0.0.3"

USERNAME = "bench"
REALM = "bench.example"
_START_PATIENCE = 20.0
_START_ATTEMPTS = 3
_STOP_PATIENCE = 10.0
_ASK_AGAIN = 0.002
_LOOK = 0.05
"""Seconds between two looks at the CPU time of a server that has just started."""
_STILL = 0.01
"""Part of a core that a server takes at most when it stands still."""
_PLENTY = 1_000_000
_LOG_TAIL = 2_000
_DIE_WITH_US = ("setpriv", "--pdeathsig", "TERM")
"""However the bench ends; Ctrl-C reaches the bench alone, which ends the servers by itself."""
_TREE = Path(turnsvr.__file__).parents[1]


class ServerFailed(Exception):
    """The server did not start, or ended by itself; the text has the last of its log."""


class _Ended(ServerFailed):
    """It ended by itself."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """Addresses where the server listens, where it relays, and of the peers."""

    server: str = SERVER_HOST
    relay: str = RELAY_HOST
    peer: str = PEER_HOST


@dataclass(frozen=True, slots=True)
class Plan:
    """How to start a server: the transport that clients use, its threads and the cores they may run on."""

    transport: Transport = Transport.UDP
    threads: int = 1
    cores: Sequence[int] = (0,)
    tcp_relay: bool = False
    """Whether peers are reached over TCP; coturn has it on always."""
    hosts: Hosts = Hosts()


class Server(ABC):
    """A server of one kind; start() gives a running one. Files go to `folder`."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = secrets.token_hex(16)

    @property
    def login(self) -> Login:
        return classic_login(USERNAME, self.password)

    def start(self, plan: Plan) -> Running:
        """Start and wait for the first answer; again when it ends at once, for its port may have been taken meanwhile.

        Raises ServerFailed.
        """
        for _ in range(_START_ATTEMPTS - 1):
            with suppress(_Ended):
                return self._start(plan)
        return self._start(plan)

    def _start(self, plan: Plan) -> Running:
        address, tls = (Address(plan.hosts.server, free_port(plan.hosts.server)) for _ in range(2))
        command = self._command(plan, address, tls)
        log = self.folder / f"{self.name}.log"
        with log.open("wb") as output:
            began = time.monotonic()
            process = subprocess.Popen(  # noqa: S603
                [*_DIE_WITH_US, "taskset", "-c", ",".join(map(str, plan.cores)), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=_TREE,
                process_group=0,
            )
        running = Running(self, process, tls if plan.transport.is_encrypted else address, log)
        try:
            running.started_in = _first_answer(running, address) - began
        except BaseException:
            running.stop()
            raise
        return running

    @abstractmethod
    def _command(self, plan: Plan, address: Address, tls: Address) -> list[str]:
        """The command line; what is secret goes into a file."""


@dataclass(slots=True)
class Running:
    """A server that answers; a context manager that stops it."""

    server: Server
    process: subprocess.Popen[bytes]
    address: Address
    log: Path
    started_in: float = field(default=0.0)
    """Seconds from its start to its first answer."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raises ServerFailed when the server has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-_LOG_TAIL:].strip()
            raise _Ended(f"{self.server.name} ended with status {self.process.returncode}:\n{tail}")

    def settle(self) -> None:
        """Wait until it stands still: it may answer before it has loaded all that it needs. Raises ServerFailed."""
        deadline = time.monotonic() + _START_PATIENCE
        before, now = -math.inf, cpu_seconds(self.pid)
        while now - before > _STILL * _LOOK and time.monotonic() < deadline:
            time.sleep(_LOOK)
            self.check()
            before, now = now, cpu_seconds(self.pid)

    def stop(self) -> None:
        """Ask it to end, and make it when it does not."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Turnsvr(Server):
    """This project, from the tree that the bench belongs to."""

    name = "turnsvr"

    def __init__(self, folder: Path, *, pump: str = "auto", busy_poll: int = 0, offload: str = "off") -> None:
        """pump, busy_poll and offload as pump.kind, pump.busy_poll and pump.offload of the settings."""
        super().__init__(folder)
        self.pump = pump
        self.busy_poll = busy_poll
        self.offload = offload
        self.admin_socket = folder / "admin.sock"
        """Served where it offloads, which its status tells of."""

    def _command(self, plan: Plan, address: Address, tls: Address) -> list[str]:
        listen = [f"udp://{address}", f"tcp://{address}"]
        settings: dict[str, object] = {
            "realm": REALM,
            "listen": listen,
            "relay": {"addresses": [plan.hosts.relay], "tcp": plan.tcp_relay},
            "credentials": {"users": {USERNAME: self.password}},
            "peers": {"allow": ["127.0.0.1", plan.hosts.peer]},
            "limits": {
                "allocations": _PLENTY,
                "allocations_per_user": _PLENTY,
                "allocation_rate_per_user": 0,
                "peer_connections": _PLENTY,
                "connections": _PLENTY,
                "connections_per_address": _PLENTY,
                "answers_per_address": 0,
            },
            "pump": {
                "kind": self.pump,
                "threads": plan.threads,
                "busy_poll": self.busy_poll,
                "offload": self.offload,
            },
            "log": {"level": "warning"},
        }
        if self.offload != "off":
            settings["admin"] = {"socket": str(self.admin_socket)}
        if plan.transport.is_encrypted:
            listen.append(f"{plan.transport.value}://{tls}")
            certificate, key = make_certificate(self.folder)
            settings["tls"] = {"certificate": str(certificate), "key": str(key)}
        path = self.folder / "turnsvr.yaml"
        _write_private(path, yaml.safe_dump(settings))
        return [sys.executable, "-m", "turnsvr", "run", "-c", str(path)]


class Coturn(Server):
    """coturn with one relay thread and everything off that costs time and is not asked for."""

    name = "coturn"

    def __init__(self, folder: Path, program: str, flags: Sequence[str] = ()) -> None:
        """flags: further ones, as its help spells them."""
        super().__init__(folder)
        self.program = program
        self.flags = flags

    def knows(self, flags: Sequence[str]) -> bool:
        """Whether its help names them all."""
        try:
            said = subprocess.run(  # noqa: S603
                [self.program, "--help"], capture_output=True, text=True, check=False, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return set(flags) <= set(re.findall(r"--[a-z0-9-]+", said.stdout + said.stderr))

    def version(self) -> str:
        """As it says; raises ServerFailed when the program cannot be run."""
        try:
            said = subprocess.run(  # noqa: S603
                [self.program, "--version"], capture_output=True, text=True, check=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerFailed(f"{self.program} cannot be run: {error}") from None
        return said.stdout.strip().splitlines()[-1]

    def _command(self, plan: Plan, address: Address, tls: Address) -> list[str]:
        lines = [
            f"listening-ip={address.host}",
            f"listening-port={address.port}",
            f"tls-listening-port={tls.port}",
            f"relay-ip={plan.hosts.relay}",
            f"relay-threads={plan.threads}",
            "lt-cred-mech",
            f"user={USERNAME}:{self.password}",
            f"realm={REALM}",
            "allow-loopback-peers",
            f"cli-password={secrets.token_hex(8)}",
            "no-cli",
            "dtls" if plan.transport is Transport.DTLS else "no-dtls",
            "no-rfc5780",
            "no-dynamic-ip-list",
            "no-dynamic-realms",
            "no-stdout-log",
            "log-file=/dev/null",
            "simple-log",
            f"pidfile={self.folder / 'coturn.pid'}",
            f"userdb={self.folder / 'coturn.sqlite'}",
        ]
        if plan.transport.is_encrypted:
            certificate, key = make_certificate(self.folder)
            lines += [f"cert={certificate}", f"pkey={key}"]
        else:
            lines.append("no-tls")
        path = self.folder / "coturn.conf"
        _write_private(path, "\n".join(lines) + "\n")
        return [self.program, "-c", str(path), *self.flags]


def free_port(host: str = SERVER_HOST) -> int:
    """A port that is free for UDP and TCP just now."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind((host, 0))
            with suppress(OSError):
                tcp.bind(udp.getsockname())
                return int(udp.getsockname()[1])


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Certificate and key (P-256) for the server's address, good for a day; both servers get the same kind."""
    certificate, key_file = folder / "certificate.pem", folder / "key.pem"
    if certificate.exists():
        return certificate, key_file
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, REALM)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(SERVER_HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_private(key_file, encoded.decode())
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    return certificate, key_file


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _first_answer(running: Running, address: Address) -> float:
    """When the first Binding request was answered; one is sent every two milliseconds. Raises ServerFailed."""
    deadline = time.monotonic() + _START_PATIENCE
    request = Message(Method.BINDING, Class.REQUEST, secrets.token_bytes(12)).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(address)
        asking.settimeout(_ASK_AGAIN)
        while time.monotonic() < deadline:
            began = time.monotonic()
            with suppress(OSError):
                asking.send(request)
                asking.recv(2048)
                return time.monotonic()
            running.check()
            time.sleep(max(0.0, _ASK_AGAIN - (time.monotonic() - began)))
    raise ServerFailed(f"{running.server.name} did not answer within {_START_PATIENCE:.0f} s")
