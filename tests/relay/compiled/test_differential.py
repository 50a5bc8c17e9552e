"""The same random trace through both pumps: what comes out is the same, byte for byte.

Relayed ports and the transaction ids of Data indications are each pump's own; they are named or blanked before
the two are compared. Deadlines lie in the past or far ahead.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import select
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.relay.compiled.descriptors import udp_sockets
from tests.relay.test_inside import BEHIND_NAT
from tests.relay.world import LOOPBACK, SETTINGS, Endpoint, Session, World, channel_data, now
from turnsvr.ranges import EVERY_PORT, NO_PORT, Ports
from turnsvr.relay.api import PumpSettings
from turnsvr.stun.address import Address, Family, FiveTuple, Transport, pack_xor_address
from turnsvr.stun.message import COOKIE_BYTES

SESSIONS, PEERS, CHANNELS = 3, 3, 4
STEPS = 240
BATCH = 8
"""Steps between two looks at what came out."""

SETTINGS_TRIED = [
    replace(SETTINGS, answers_per_address=0.0),
    replace(SETTINGS, answers_per_address=0.0, gso=False),
    replace(SETTINGS, answers_per_address=0.0, bandwidth=0.5),
    replace(BEHIND_NAT, answers_per_address=0.0),
    replace(SETTINGS, answers_per_address=0.0, busy_poll=0.001),
]

Outcome = list[object]
Step = Callable[["Stage"], None]


class Stage:
    """One pump with the cast of the trace: UDP clients, a stream client (the last session), peers."""

    def __init__(self, kind: str, settings: PumpSettings, *, ipv6: bool) -> None:
        before = {descriptor for descriptor, _ in udp_sockets()}
        self.world = World("compiled" if kind == "compiled" else "portable", settings)
        self.family = Family.IPV6 if ipv6 else Family.IPV4
        self.host = LOOPBACK[self.family]
        advertised = {relay.host: relay.advertised for relay in settings.relay_addresses}
        self.hosts = (self.host, advertised[self.host])
        self.clients: list[Session] = [self.world.session(self.family) for _ in range(SESSIONS)]
        self.peers: list[Endpoint] = [self.world.endpoint(self.host) for _ in range(PEERS)]
        self.stream = FiveTuple(Transport.TLS, Address(self.host, 1), Address(self.host, 2))
        self.written: list[bytes] = []
        self.frames: list[bytes] = []
        self.world.pump.attach(self.stream, self.write, self.resume)
        self.stream_number, opened = self.world.open(self.stream, (self.family,))
        self.numbers = [*(client.number for client in self.clients), self.stream_number]
        self.relayed = [*(client.relayed for client in self.clients), opened.addresses[0]]
        self.names = {address: f"relay {at}" for at, address in enumerate(self.relayed)}
        self.names |= {Address(self.host, address.port): name for address, name in self.names.items()}
        self.names |= {Address(self.hosts[1], peer.address.port): f"other {at}" for at, peer in enumerate(self.peers)}
        self.names[self.stream.client] = "stream"
        self.names |= {peer.address: f"peer {at}" for at, peer in enumerate(self.peers)}
        self.names |= {client.endpoint.address: f"client {at}" for at, client in enumerate(self.clients)}
        self.queues = select.poll()
        endpoints = {each.socket.fileno() for each in (*self.peers, *(client.endpoint for client in self.clients))}
        for descriptor in {descriptor for descriptor, _ in udp_sockets()} - before - endpoints:
            self.queues.register(descriptor, select.POLLIN)

    def write(self, frame: bytes) -> bool:
        self.written.append(frame)
        return True

    def resume(self) -> None:
        del self.frames[: self.world.pump.relay(self.stream, self.frames)]

    def target(self, at: int) -> Address:
        """A peer by one of its two names, or beyond them a relayed address."""
        if at < 2 * PEERS:
            return Address(self.hosts[at % 2], self.peers[at // 2].address.port)
        return self.relayed[at - 2 * PEERS]

    def ports(self, which: int) -> Ports:
        """Every port, none, or that of a peer."""
        if which < 3:
            return NO_PORT if which else EVERY_PORT
        port = self.peers[which % PEERS].address.port
        return ((port, port),) if which % 2 else ((1, 2), (port, port))

    def masked_peer(self, at: int) -> bytes:
        return pack_xor_address(self.target(at), COOKIE_BYTES + bytes(12))

    def from_client(self, at: int, frame: bytes) -> None:
        if at < SESSIONS:
            self.clients[at].send(frame)
        else:
            self.world.sent += 1
            self.frames.append(frame)
            self.resume()

    async def outcome(self) -> Outcome:
        """All that came out since the last look, and the figures."""
        totals = await self.settled()
        outcome: Outcome = [
            *([self.named(data) for data in each.endpoint.waiting()] for each in self.clients),
            *(self.sourced(peer) for peer in self.peers),
            [self.named(frame) for frame in self.written],
            sorted((self.names[five_tuple.client], self.named(data)) for five_tuple, data in self.world.notes.messages),
            totals,
            [self.world.pump.counters(number) for number in self.numbers],
        ]
        for seen in (self.written, self.world.notes.batches):
            seen.clear()
        return outcome

    def sourced(self, peer: Endpoint) -> list[tuple[str, bytes]]:
        got: list[tuple[str, bytes]] = []
        while True:
            try:
                data, sender = peer.socket.recvfrom(65_536)
            except BlockingIOError:
                return got
            got.append((self.names[Address(*sender[:2])], self.named(data)))

    def named(self, frame: bytes) -> bytes:
        """The frame with relayed and peer addresses named, and a Data indication's transaction id blanked."""
        if frame[:2] == b"\x00\x17" and len(frame) >= 20:
            mask, frame = frame[4:20], frame[:8] + bytes(12) + frame[20:]
        else:
            mask = COOKIE_BYTES + bytes(12)
        for address, name in self.names.items():
            frame = frame.replace(pack_xor_address(address, mask), name.encode())
        return frame

    def is_queued(self) -> bool:
        """Whether packets wait at the pump's sockets."""
        return any(events & select.POLLIN for _, events in self.queues.poll(0))

    async def settled(self) -> tuple[object, ...]:
        """Wait until every packet is accounted for; the figures that both pumps must agree on."""
        pump = self.world.pump

        def known() -> int:
            totals = pump.totals()
            traffic = totals.relayed.packets_from_client + totals.relayed.packets_to_client
            return totals.received + traffic + totals.binding_answers + totals.sent_up + sum(totals.drops.values())

        async with asyncio.timeout(10):
            last = -1
            while pump.totals().received < self.world.sent or known() != last or self.is_queued():
                last = known()
                await asyncio.sleep(0.002)
        # More may be received than was sent: a packet for a relayed address whose session has ended leaves and returns.
        totals = pump.totals()
        return totals.relayed, totals.drops, totals.binding_answers, totals.sent_up, totals.received


def made(rng: random.Random) -> Step:
    """One random step."""
    which, session, target = rng.randrange(20), rng.randrange(SESSIONS + 1), rng.randrange(2 * PEERS + SESSIONS + 1)
    channel, offset = 0x4000 + rng.randrange(CHANNELS), rng.choice([60.0, 60.0, 60.0, -1.0])
    data = rng.randbytes(rng.choice([0, 1, 3, 4, 160, 1000, rng.randrange(3000)]))
    if which < 3:
        name, ports = rng.randrange(2), rng.choice([0, 0, 1, 3, 4, 5])
        return lambda stage: stage.world.pump.permit(
            stage.numbers[session], stage.hosts[name], now(offset), stage.ports(ports)
        )
    if which < 6:
        return lambda stage: stage.world.pump.bind_channel(
            stage.numbers[session], channel, stage.target(target), now(offset)
        )
    if which == 6:
        return lambda stage: stage.world.pump.refresh(stage.numbers[session], now(offset))
    if which < 10:
        frame = channel_data(channel, data, bytes(-len(data) % 4) if session == SESSIONS or rng.random() < 0.3 else b"")
        return lambda stage: stage.from_client(session, frame)
    if which < 14:
        return lambda stage: stage.peers[target % PEERS].send(data, Address(stage.host, stage.relayed[session].port))
    if which < 17:
        build = _indication(rng, target, data)
        return lambda stage: stage.from_client(session, build(stage))
    if which == 17:
        dont_fragment = rng.random() < 0.5
        return lambda stage: stage.world.pump.send_to_peer(
            stage.numbers[session], stage.target(target), data, dont_fragment=dont_fragment
        )
    hostile = _hostile(rng, channel)
    return lambda stage: stage.from_client(session, hostile)


def _indication(rng: random.Random, target: int, data: bytes) -> Callable[[Stage], bytes]:
    """A Send indication, plain or with something odd about it."""
    odd = rng.choice(["", "", "", "", "reversed", "twice", "df", "software", "other", "cut", "extra", "empty"])
    software = rng.randbytes(rng.randrange(9))

    def build(stage: Stage) -> bytes:
        peer, payload = _attribute(0x12, stage.masked_peer(target)), _attribute(0x13, data)
        attributes = {
            "reversed": payload + peer,
            "twice": peer + peer + payload,
            "df": peer + _attribute(0x1A, b"") + payload,
            "software": peer + payload + _attribute(0x8022, software),
            "other": peer + payload + _attribute(0x0024, bytes(4)),
            "cut": _attribute(0x12, b"\x00\x01\x12\x34") + payload,
            "extra": peer + payload + b"\x00\x13\x00",
            "empty": b"",
        }.get(odd, peer + payload)
        return b"\x00\x16" + len(attributes).to_bytes(2, "big") + COOKIE_BYTES + bytes(12) + attributes

    return build


def _attribute(number: int, value: bytes) -> bytes:
    return number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)


def _hostile(rng: random.Random, channel: int) -> bytes:
    """Bytes that nobody means well with, and messages for the rules."""
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(rng.randrange(60))
    if kind == 1:
        return channel_data(channel, rng.randbytes(8))[: rng.randrange(12)]
    if kind == 2:
        return channel.to_bytes(2, "big") + b"\xff\xff" + rng.randbytes(rng.randrange(40))
    if kind == 3:
        return b"\x00\x01\x00\x00" + COOKIE_BYTES + bytes(12)
    if kind == 4:
        return b"\x00\x01\x00\x00" + rng.randbytes(16)
    length = rng.randrange(0, 40)
    return (
        rng.choice([b"\x00\x16", b"\x00\x03", b"\x3f\xff"])
        + bytes((0, length))
        + COOKIE_BYTES
        + rng.randbytes(12 + length)
    )


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("settings", SETTINGS_TRIED, ids=["plain", "single", "narrow", "behind NAT", "awake"])
async def test_both_do_the_same(settings: PumpSettings, ipv6: bool) -> None:
    seed = secrets.randbits(32)
    rng = random.Random(seed)
    stages = [Stage(kind, settings, ipv6=ipv6) for kind in ("portable", "compiled")]
    try:
        history: list[Outcome] = []
        for at in range(STEPS):
            step = made(rng)
            for stage in stages:
                step(stage)
            # Steps of the control plane and packets have no order between them unless the packets have arrived.
            for stage in stages:
                await stage.settled()
            if at % BATCH == 0:
                portable, compiled = [await stage.outcome() for stage in stages]
                history.append(portable)
                assert compiled == portable, f"seed {seed}, step {at}"
    finally:
        for stage in stages:
            stage.world.end()
    assert any(history)
