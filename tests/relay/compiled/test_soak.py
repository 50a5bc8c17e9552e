"""Sessions come and go under load: nothing leaks, nothing is lost without a reason, and no byte is wrong.

TURNSVR_SOAK_SECONDS makes it as long as one likes; the default is short.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import secrets
import zlib
from collections import Counter, deque
from dataclasses import replace

import pytest

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.compiled.trains import send_train
from tests.relay.world import SETTINGS, Session, World, channel_data, now, private_loopback, read_from_relay
from turnsvr.plane import OpenRelay
from turnsvr.relay.api import RelayAddress, StreamWriter
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

SECONDS = float(os.environ.get("TURNSVR_SOAK_SECONDS", "3"))
LIVE = 40
CLIENTS = 60
PEERS = 8
FIRST_CHANNEL = 0x4000
SESSIONS = 10_000
MAX_GROWTH = 2 * 1024 * 1024
"""Bytes that resident memory may grow from the first third of the run to its end: allocators breathe."""

_DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def sealed(rng: random.Random, size: int) -> bytes:
    """Random bytes of this size with their own checksum in front."""
    body = rng.randbytes(max(size - 4, 0))
    return zlib.crc32(body).to_bytes(4, "big") + body


def is_whole(payload: bytes) -> bool:
    return zlib.crc32(payload[4:]) == int.from_bytes(payload[:4], "big")


class Soak:
    """A pump and a crowd: clients that open sessions and leave, and peers that answer to them all."""

    def __init__(self, world: World) -> None:
        self.seed = secrets.randbits(32)
        self.rng = random.Random(self.seed)
        self.world = world
        self.idle = deque(world.endpoint() for _ in range(CLIENTS))
        self.peers = [world.endpoint() for _ in range(PEERS)]
        self.live: deque[Session] = deque()
        self.seen = self.at_rest = 0
        self._number = 1_000_000

    def open(self) -> None:
        client = self.idle.popleft()
        five_tuple = FiveTuple(Transport.UDP, client.address, self.world.listeners[Family.IPV4])
        self._number += 1
        opened = self.world.pump.open(OpenRelay(self._number, five_tuple, (Family.IPV4,), now(60)))
        session = Session(self.world, self._number, client, five_tuple, opened)
        session.permit("127.0.0.1", self.rng.choice([60.0, 60.0, 60.0, -1.0]))
        for channel, peer in enumerate(self.peers[::2]):
            session.bind(FIRST_CHANNEL + channel, peer.address, self.rng.choice([60.0, 60.0, -1.0]))
        self.live.append(session)

    def close(self) -> None:
        session = self.live.popleft()
        self.world.pump.close(session.number)
        self.idle.append(session.endpoint)

    def traffic(self) -> None:
        """One train in either direction."""
        session, peer = self.rng.choice(self.live), self.rng.choice(self.peers)
        payloads = [sealed(self.rng, self.rng.choice([100, 1000]))]
        payloads += [sealed(self.rng, len(payloads[0])) for _ in range(self.rng.randrange(8))]
        if self.rng.random() < 0.5:
            channel = FIRST_CHANNEL + self.rng.randrange(PEERS // 2 + 1)
            frames = [channel_data(channel, payload) for payload in payloads]
            send_train(self.world, session.endpoint, frames, session.five_tuple.server)
        else:
            send_train(self.world, peer, payloads, session.relayed)

    def read(self) -> None:
        """Whatever has arrived is whole."""
        for peer in self.peers:
            self._check(peer.waiting())
        for client in (*self.idle, *(session.endpoint for session in self.live)):
            self._check([read_from_relay(data)[1] for data in client.waiting()])

    def _check(self, payloads: list[bytes]) -> None:
        assert all(map(is_whole, payloads)), f"seed {self.seed}"
        self.seen += len(payloads)

    async def settle(self) -> None:
        await self.world.settled()
        self.read()


async def test_soak(make_world: WorldFactory) -> None:
    # Ports that come and go, at an address of their own: at a common one somebody else's last packets may arrive.
    host = private_loopback()
    world = make_world(replace(SETTINGS, threads=2, relay_addresses=(RelayAddress(host, host),)))
    soak = Soak(world)
    start = now()
    first: tuple[int, int] | None = None
    while now() < start + SECONDS:
        while len(soak.live) < LIVE:
            soak.open()
        if first is None and now() > start + SECONDS / 3:
            first = _resources()
        for _ in range(20):
            soak.traffic()
        await soak.settle()
        for _ in range(soak.rng.randrange(LIVE // 4)):
            soak.close()
        await asyncio.sleep(0)
    while len(soak.live) < LIVE:
        soak.open()
    last = _resources()
    assert first is not None
    assert last[1] == first[1]
    assert last[0] - first[0] < MAX_GROWTH, f"{first[0]} to {last[0]} bytes, seed {soak.seed}"
    totals = world.pump.totals()
    relayed = totals.relayed.packets_from_client + totals.relayed.packets_to_client
    assert totals.received == world.sent == relayed + sum(totals.drops.values())
    assert soak.seen == relayed
    assert not totals.drops[Drop.SEND_FAILED] + totals.drops[Drop.OVERLOAD]
    assert totals.relayed.packets_from_client > 100
    while soak.live:
        soak.close()


def _resources() -> tuple[int, int]:
    """Resident bytes and open descriptors."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(_DESCRIPTORS < SESSIONS + 500, reason=f"needs {SESSIONS + 500} descriptors: ulimit -n")
async def test_ten_thousand_sessions(make_world: WorldFactory) -> None:
    host = private_loopback()
    world = make_world(replace(SETTINGS, relay_addresses=(RelayAddress(host, host),)))
    peer, got = world.endpoint(), Counter[int]()

    def writer(number: int) -> StreamWriter:
        def write(frame: bytes) -> bool:
            got[number] += 1
            return True

        return write

    relayed: dict[int, Address] = {}
    for port in range(1, SESSIONS + 1):
        client = FiveTuple(Transport.TLS, Address("127.0.0.1", port), world.listeners[Family.IPV4])
        number, opened = world.open(client, (Family.IPV4,))
        world.pump.attach(client, writer(number), lambda: None)
        world.pump.permit(number, "127.0.0.1", now(60))
        relayed[number] = opened.addresses[0]
    assert len(set(relayed.values())) == SESSIONS
    chosen = random.Random(7).sample(sorted(relayed), 200)
    for number in chosen:
        peer.send(b"abc", relayed[number])
    await world.settled()
    assert got == Counter(chosen)
    for number in relayed:
        world.pump.close(number)
    assert world.pump.totals().relayed.packets_to_client == 200
