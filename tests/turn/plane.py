"""A model of the data plane: what relay/api.py promises, in memory, with failures and delays on demand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from turnsvr.plane import ConnectPeer, OpenRelay
from turnsvr.stun.address import Address, Family, FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.turn.commands import (
    BindChannel,
    DisconnectPeer,
    ExpectClient,
    ExtendRelay,
    JoinPeer,
    MoveRelay,
    Permit,
    SendToPeer,
)

RELAY_HOSTS = {Family.IPV4: "192.0.2.100", Family.IPV6: "2001:db8::100"}
FIRST_PORT = 49152
LAST_PORT = 65535


@dataclass(slots=True)
class Session:
    """One allocation as the pump knows it."""

    deadline: float
    tcp: bool = False
    relayed: dict[Family, Address] = field(default_factory=dict)
    permissions: dict[str, float] = field(default_factory=dict)
    channels: dict[int, tuple[Address, float]] = field(default_factory=dict)
    client: FiveTuple | None = None
    """Where its client is, since it has moved."""


@dataclass(slots=True)
class Connection:
    """One to a peer."""

    session: int
    is_connected: bool = False
    client: FiveTuple | None = None


class Plane:
    """Sessions, permissions, channels, connections, held ports; it refuses by assertion what no pump could do."""

    def __init__(self, families: Iterable[Family] = tuple(Family)) -> None:
        self.families = set(families)
        self.sessions: dict[int, Session] = {}
        self.held: dict[bytes, Address] = {}
        self.broken: dict[Family, ErrorCode] = {}
        """Families that cannot be opened now, and why."""
        self.relayed: list[SendToPeer] = []
        self.expected: set[FiveTuple] = set()
        self.connections: dict[int, Connection] = {}
        self.connects: list[ConnectPeer] = []
        self._port = FIRST_PORT

    def open(self, command: OpenRelay) -> tuple[list[Address], dict[Family, ErrorCode]]:
        """Addresses that were opened, and what kept other families away."""
        assert command.allocation not in self.sessions
        session = Session(command.deadline, command.tcp)
        failures: dict[Family, ErrorCode] = {}
        if command.claim is not None:
            held = self.held.pop(command.claim, None)
            if held is None:
                return [], {Family.IPV4: ErrorCode.INSUFFICIENT_CAPACITY}
            session.relayed[held.family] = held
        for family in command.families:
            code = self.broken.get(family)
            if family not in self.families:
                code = ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED
            if code is not None:
                failures[family] = code
                continue
            session.relayed[family] = self._take(family, command)
        if session.relayed:
            self.sessions[command.allocation] = session
        return list(session.relayed.values()), failures

    def _take(self, family: Family, command: OpenRelay) -> Address:
        even = command.even_port or command.reserve is not None
        self._port += self._port % 2 if even else 0
        address = Address(RELAY_HOSTS[family], self._port)
        self._port += 1
        if command.reserve is not None:
            self.held[command.reserve] = Address(RELAY_HOSTS[family], self._port)
            self._port += 1
        if self._port >= LAST_PORT - 2:
            self._port = FIRST_PORT
        return address

    def close(self, allocation: int, family: Family | None) -> None:
        session = self.sessions.get(allocation)
        if session is None:
            return
        if family is not None:
            del session.relayed[family]
            for host in [host for host in session.permissions if Address(host, 0).family is family]:
                del session.permissions[host]
            for number in [n for n, (peer, _) in session.channels.items() if peer.family is family]:
                del session.channels[number]
        if family is None or not session.relayed:
            del self.sessions[allocation]
            assert not [each for each in self.connections.values() if each.session == allocation]

    def connect(self, command: ConnectPeer) -> None:
        session = self.sessions[command.allocation]
        assert session.tcp
        assert command.peer.family in session.relayed
        assert command.connection not in self.connections
        self.connections[command.connection] = Connection(command.allocation)
        self.connects.append(command)

    def connected(self, number: int) -> None:
        self.connections[number].is_connected = True

    def arrived(self, number: int, session: int) -> None:
        assert self.sessions[session].tcp
        assert number not in self.connections
        self.connections[number] = Connection(session, is_connected=True)

    def join(self, command: JoinPeer) -> None:
        connection = self.connections[command.connection]
        assert connection.session == command.allocation
        assert connection.is_connected
        assert connection.client is None
        connection.client = command.five_tuple

    def disconnect(self, command: DisconnectPeer) -> None:
        self.connections.pop(command.connection, None)

    def extend(self, command: ExtendRelay) -> None:
        self.sessions[command.allocation].deadline = command.deadline

    def permit(self, command: Permit) -> None:
        assert not self.sessions[command.allocation].tcp
        self.sessions[command.allocation].permissions[command.host] = command.deadline

    def bind(self, command: BindChannel) -> None:
        session = self.sessions[command.allocation]
        for number in [n for n, (peer, _) in session.channels.items() if peer == command.peer]:
            del session.channels[number]
        session.channels[command.channel] = command.peer, command.deadline

    def expect(self, command: ExpectClient) -> None:
        assert (command.five_tuple in self.expected) != command.expected
        self.expected ^= {command.five_tuple}

    def move(self, command: MoveRelay) -> None:
        assert all(session.client != command.five_tuple for session in self.sessions.values())
        self.expected.discard(command.five_tuple)
        self.sessions[command.allocation].client = command.five_tuple

    def release(self, token: bytes) -> None:
        self.held.pop(token, None)

    def covers(self, allocation: int, peer: Address, now: float) -> bool:
        """Whether a packet may pass between this allocation and this peer now."""
        session = self.sessions.get(allocation)
        if session is None or now >= session.deadline or peer.family not in session.relayed:
            return False
        return now < session.permissions.get(peer.host, 0.0)

    def send_to_peer(self, command: SendToPeer, now: float) -> None:
        """Relay one packet; the rules must have had a permission for it."""
        assert self.covers(command.allocation, command.peer, now), f"relayed without a permission: {command}"
        self.relayed.append(command)
