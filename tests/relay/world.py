"""A pump with real sockets around it: clients and peers on loopback, and a Handler that takes notes."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from turnsvr import relay
from turnsvr.plane import OpenRelay
from turnsvr.ranges import EVERY_PORT, Ports
from turnsvr.relay import PumpKind
from turnsvr.relay.api import Opened, PumpSettings, RelayAddress, Relayed
from turnsvr.relay.counts import Drop, Totals
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.attributes import DATA, XOR_PEER_ADDRESS
from turnsvr.stun.framing import is_channel_data, unpack_channel_data
from turnsvr.stun.message import Class, Message, Method

LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
FAMILIES = [Family.IPV4, Family.IPV6]

SETTINGS = PumpSettings(relay_addresses=tuple(RelayAddress(host, host) for host in LOOPBACK.values()))
"""Relays on both loopback addresses."""

_PATIENCE = 10.0
"""Seconds that a wait may take on a machine that is busy; none of them passes when all is well."""


def now(offset: float = 0.0) -> float:
    """A deadline so many seconds from now."""
    return time.monotonic() + offset


class PeerError(NamedTuple):
    session: int
    peer: Address
    icmp_type: int
    icmp_code: int
    data: bytes


class Notes:
    """A Handler that remembers."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[FiveTuple, bytes]]] = []
        self.errors: list[PeerError] = []
        self.fenced: list[tuple[int, Address]] = []
        self.closed: list[tuple[FiveTuple, str]] = []
        self.told: list[Relayed] = []
        self.arrived: list[tuple[int, Address, bool]] = []
        self.connected: list[int] = []
        self.failed: list[tuple[int, bool]] = []
        self.connections = itertools.count(1_000)
        self.welcome: set[str] = set()
        """Hosts whose connections are taken."""

    @property
    def messages(self) -> list[tuple[FiveTuple, bytes]]:
        return list(itertools.chain.from_iterable(self.batches))

    def client_messages(self, batch: Sequence[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        self.batches.append(list(batch))
        return ()

    def peer_error(self, session: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes) -> None:
        self.errors.append(PeerError(session, peer, icmp_type, icmp_code, data))

    def peer_fenced(self, session: int, peer: Address) -> None:
        self.fenced.append((session, peer))

    def stream_closed(self, five_tuple: FiveTuple, reason: str) -> None:
        self.closed.append((five_tuple, reason))

    def relayed(self, packet: Relayed) -> None:
        self.told.append(packet)

    def peer_arrived(self, session: int, peer: Address, inside: bool) -> int | None:
        self.arrived.append((session, peer, inside))
        return next(self.connections) if peer.host in self.welcome else None

    def peer_connected(self, connection: int) -> None:
        self.connected.append(connection)

    def peer_failed(self, connection: int, forbidden: bool) -> None:
        self.failed.append((connection, forbidden))


class Endpoint:
    """A UDP socket of a client or a peer."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self.socket = socket.socket(Address(host, 0).family.socket_family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.address = Address(*self.socket.getsockname()[:2])

    def send(self, data: bytes, to: Address) -> None:
        """Send to the pump."""
        self._world.sent += 1
        self.socket.sendto(data, to)

    async def receive(self) -> tuple[bytes, Address]:
        async with asyncio.timeout(_PATIENCE):
            data, sender = await asyncio.get_running_loop().sock_recvfrom(self.socket, 65_536)
        return data, Address(*sender[:2])

    def waiting(self) -> list[bytes]:
        """What has arrived and nobody has read."""
        arrived = []
        while True:
            try:
                arrived.append(self.socket.recv(65_536))
            except BlockingIOError:
                return arrived


class Session:
    """A UDP client with an open session."""

    def __init__(self, world: World, number: int, endpoint: Endpoint, five_tuple: FiveTuple, opened: Opened) -> None:
        self._world = world
        self.number = number
        self.endpoint = endpoint
        self.five_tuple = five_tuple
        self.opened = opened

    @property
    def relayed(self) -> Address:
        return self.opened.addresses[0]

    def send(self, data: bytes) -> None:
        self.endpoint.send(data, self.five_tuple.server)

    async def receive(self) -> bytes:
        return (await self.endpoint.receive())[0]

    def permit(self, host: str, offset: float = 60.0, ports: Ports = EVERY_PORT) -> None:
        self._world.pump.permit(self.number, host, now(offset), ports)

    def bind(self, channel: int, peer: Address, offset: float = 60.0) -> None:
        self._world.pump.bind_channel(self.number, channel, peer, now(offset))


class World:
    """A pump, its listener on each loopback address, and whoever talks to it."""

    def __init__(self, kind: PumpKind, settings: PumpSettings | None = None) -> None:
        self.notes = Notes()
        self.pump = relay.make(settings or SETTINGS, self.notes, kind)
        self.listeners = {family: self.pump.listen(Address(host, 0)) for family, host in LOOPBACK.items()}
        self._begin()

    def _begin(self) -> None:
        self.sent = 0
        self._endpoints: list[Endpoint] = []
        self._numbers = itertools.count(1)

    def endpoint(self, host: str = "127.0.0.1") -> Endpoint:
        self._endpoints.append(Endpoint(self, host))
        return self._endpoints[-1]

    def session(
        self,
        family: Family = Family.IPV4,
        *,
        families: tuple[Family, ...] | None = None,
        offset: float = 60.0,
        server: Address | None = None,
        **request: Any,
    ) -> Session:
        """A client of one family, with a session whose relayed addresses may have others."""
        endpoint = self.endpoint(LOOPBACK[family])
        five_tuple = FiveTuple(Transport.UDP, endpoint.address, server or self.listeners[family])
        number, opened = self.open(five_tuple, families or (family,), offset=offset, **request)
        return Session(self, number, endpoint, five_tuple, opened)

    def open(
        self, five_tuple: FiveTuple, families: tuple[Family, ...], *, offset: float = 60.0, **request: Any
    ) -> tuple[int, Opened]:
        number = next(self._numbers)
        return number, self.pump.open(OpenRelay(number, five_tuple, families, now(offset), **request))

    async def until(self, condition: Callable[[], bool], patience: float = _PATIENCE) -> None:
        """Wait for something that must come, within so many seconds."""
        async with asyncio.timeout(patience):
            while not condition():  # noqa: ASYNC110 - a pump's thread tells nobody
                await asyncio.sleep(0.001)

    async def settled(self, *, inside: int = 0) -> Totals:
        """The totals, once every packet that was sent to the pump is accounted for.

        inside: packets that went from one session to another, which count for both.
        """

        def accounted() -> bool:
            totals = self.pump.totals()
            return totals.received == self.sent and whereabouts(totals) == self.sent + inside

        try:
            await self.until(accounted)
        except TimeoutError:
            raise AssertionError(f"{self.sent} packets sent, {inside} inside: {self.pump.totals()}") from None
        return self.pump.totals()

    async def dropped(self, reason: Drop, count: int = 1) -> None:
        """Wait until all is settled; exactly these drops happened."""
        drops = (await self.settled()).drops
        assert {why: n for why, n in drops.items() if n} == {reason: count}

    def end(self) -> None:
        self.pump.shutdown()
        for endpoint in self._endpoints:
            endpoint.socket.close()


def whereabouts(totals: Totals) -> int:
    """Packets whose fate is known."""
    relayed = totals.relayed.packets_from_client + totals.relayed.packets_to_client
    return relayed + totals.binding_answers + totals.challenges + totals.sent_up + sum(totals.drops.values())


def channel_data(channel: int, data: bytes, padding: bytes = b"") -> bytes:
    return channel.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data + padding


def request(method: int = Method.ALLOCATE) -> Message:
    return Message(method, Class.REQUEST, secrets.token_bytes(12))


def send_indication(peer: Address, data: bytes) -> Message:
    message = Message(Method.SEND, Class.INDICATION, secrets.token_bytes(12))
    return message.add(XOR_PEER_ADDRESS, peer).add(DATA, data)


def read_from_relay(message: bytes) -> tuple[int | Address, bytes]:
    """What a client got: the channel or the peer, and the data."""
    if is_channel_data(message):
        return unpack_channel_data(message)
    parsed = Message.parse(message)
    assert (parsed.method, parsed.message_class) == (Method.DATA, Class.INDICATION)
    assert parsed.numbers() == [XOR_PEER_ADDRESS.number, DATA.number]
    peer, data = parsed.get(XOR_PEER_ADDRESS), parsed.get(DATA)
    assert peer is not None
    assert data is not None
    return peer, data


def private_loopback() -> str:
    """An address of 127/8 that nobody else is likely to use."""
    return f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(256)}.{2 + secrets.randbelow(250)}"


def free_ports(host: str, count: int) -> tuple[int, int]:
    """An even port and the last of so many free ones from there, above those that systems give to port 0."""
    while True:
        low = 61_000 + 2 * secrets.randbelow((4_500 - count) // 2)
        sockets = []
        try:
            for port in range(low, low + count):
                sockets.append(socket.socket(Address(host, 0).family.socket_family, socket.SOCK_DGRAM))
                sockets[-1].bind((host, port))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return low, low + count - 1
