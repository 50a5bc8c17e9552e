"""What is compared in the laboratory: servers, each started anew for each run, and the kernel that merely forwards."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.lab import sockets
from bench.lab.cases import LabCase
from bench.lab.network import CLIENT, PEER, RELAY, SERVER, Network, within
from bench.lab.traffic import Flows, Ports
from bench.servers import Coturn, Hosts, Plan, Running, Server, Turnsvr
from turnsvr.admin import NoServer, RefusedByServer
from turnsvr.admin.client import AdminClient
from turnsvr.client import load_flows
from turnsvr.client.load_drive import UdpSessions
from turnsvr.client.load_session import TurnSession
from turnsvr.client.load_values import Direction
from turnsvr.stun.address import Address, Family

DEBIAN: Final = "turnserver"
FAST: Final = ("--multiplex-peer", "--udp-gso")
"""coturn's own, from 4.17 on: one relay port for each thread, so that each client must have a peer of its own."""
PUMP, TC, XDP, FORWARD, COTURN, OTHER = "pump", "tc", "xdp", "forwarding", "coturn", "other coturn"
HOSTS: Final = Hosts(SERVER[Family.IPV4].host, RELAY[Family.IPV4], PEER[Family.IPV4].host)
_CLIENT: Final = CLIENT[Family.IPV4].host
_FIRST_CLIENT, _FIRST_PEER = 40_000, 20_000
_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")


class RowAbsent(Exception):
    """The row cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One that is compared; without a server it is the kernel's plain forwarding."""

    name: str
    server: Server | None = None
    label: str = ""

    @property
    def is_coturn(self) -> bool:
        return isinstance(self.server, Coturn)


@dataclass(frozen=True, slots=True)
class Ready:
    """A row that carries flows: what to send, and its process where it has one."""

    frames: Flows
    running: Running | None = None
    sockets: load_flows.Flows | None = None
    """What sends in place of the kernel."""

    @property
    def pid(self) -> int | None:
        return self.running.pid if self.running else None

    def check(self) -> None:
        """Raises ServerFailed when the server has ended."""
        if self.running:
            self.running.check()


def rows(folder: Path, program: str, *, pump: str = "auto", busy_poll: int = 0) -> list[Row]:
    """Debian's coturn, another where `program` names it, this server by each way, the kernel. Raises ServerFailed."""
    found = []
    debian = shutil.which(DEBIAN)
    paths = {DEBIAN: COTURN} if debian or program == DEBIAN else {}
    if program != DEBIAN and (debian is None or shutil.which(program) != debian):
        paths[program] = OTHER
    for path, name in paths.items():
        server = Coturn(_made(folder / name), path)
        version = server.version()
        found.append(Row(name, server, f"coturn {version}"))
        if server.knows(FAST):
            fast = Coturn(_made(folder / f"{name}-fast"), path, FAST)
            found.append(Row(f"{name} fast", fast, f"coturn {version} {' '.join(FAST)}"))
    for name, mode, label in ((PUMP, "off", "the pump alone"), (TC, TC, "by TC"), (XDP, XDP, "by XDP")):
        ours = Turnsvr(_made(folder / name), pump=pump, busy_poll=busy_poll, offload=mode)
        found.append(Row(name, ours, f"turnsvr, {label}"))
    return [*found, Row(FORWARD, None, "the kernel forwarding IP packets")]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextmanager
def ready(row: Row, network: Network, case: LabCase, core: int) -> Iterator[Ready]:
    """The case's flows, which the row carries. Raises RowAbsent, ServerFailed, LoadError, OSError."""
    direction, count = case.direction, case.flows
    if row.server is None:
        frames = _forwarded(direction, count)
        with _forwarding(network), ExitStack() as stack:
            yield Ready(frames, None, stack.enter_context(_plain(network, case, frames)) if case.by_sockets else None)
        return
    with ExitStack() as stack:
        with within(network.server):
            running = stack.enter_context(row.server.start(Plan(cores=(core,), hosts=HOSTS)))
            running.settle()
        with within(network.client_pair.namespace):
            sessions = _open(running, count, stack)
        if isinstance(row.server, Turnsvr) and row.server.offload != "off":
            _attached(row.server)
        made = sockets.relayed(direction, sessions, network.peer_pair, case.size) if case.by_sockets else None
        yield Ready(
            _relayed(running.address, direction, sessions), running, stack.enter_context(made) if made else None
        )


def _plain(network: Network, case: LabCase, frames: Flows) -> load_flows.Flows:
    pairs = (network.client_pair, network.peer_pair)
    ends = [
        (Address(frames.source, each.source), Address(frames.destination, each.destination)) for each in frames.ports
    ]
    return sockets.forwarded(pairs if case.direction is Direction.UP else (pairs[1], pairs[0]), ends)


def _open(running: Running, count: int, stack: ExitStack) -> list[sockets.Opened]:
    """Sessions with a channel each to a peer of its own."""
    ports = itertools.count(_FIRST_PEER)
    opening = UdpSessions(running.address, lambda: TurnSession(running.server.login, Address(HOSTS.peer, next(ports))))
    found = []
    for session, client in opening.open(count):
        stack.callback(client.close)
        found.append(sockets.Opened(session, client))
    return found


def _attached(server: Turnsvr) -> None:
    """Raises RowAbsent where the programs are not at both interfaces."""
    try:
        with AdminClient.on_socket(server.admin_socket) as admin:
            said: Sequence[str] = admin.status()["offload"]
    except (NoServer, RefusedByServer) as error:
        raise RowAbsent(str(error)) from None
    if sum(f" by {server.offload}" in line for line in said) < 2:  # the client's interface and the peer's
        raise RowAbsent("; ".join(said))


def _relayed(server: Address, direction: Direction, sessions: Sequence[sockets.Opened]) -> Flows:
    if direction is Direction.UP:
        return Flows(_CLIENT, server.host, [Ports(each.port, server.port) for each in sessions], in_channel=True)
    down = [Ports(session.peer.port, session.relayed.port) for session, _ in sessions if session.relayed]
    return Flows(HOSTS.peer, HOSTS.relay, down, in_channel=False)


def _forwarded(direction: Direction, count: int) -> Flows:
    ports = [Ports(_FIRST_CLIENT + number, _FIRST_PEER + number) for number in range(count)]
    if direction is Direction.UP:
        return Flows(_CLIENT, HOSTS.peer, ports, in_channel=False)
    return Flows(HOSTS.peer, _CLIENT, [Ports(*reversed(each)) for each in ports], in_channel=False)


@contextmanager
def _forwarding(network: Network) -> Iterator[None]:
    """A host that forwards, which one that serves has no reason to be."""
    with within(network.server):
        _FORWARDING.write_text("1")
    try:
        yield
    finally:
        with within(network.server):
            _FORWARDING.write_text("0")
