"""More than a lane can look at one by one: queues that are deep when it comes to them, and load without end."""

from __future__ import annotations

import asyncio
import math
import secrets
import socket
import struct
from dataclasses import replace
from threading import Event, Thread

import pytest

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.world import SETTINGS, Session, World, channel_data, private_loopback
from turnsvr.client.load_values import Framing, Load, Receiver, Sender
from turnsvr.relay.api import PumpSettings, RelayAddress
from turnsvr.relay.compiled import pump as compiled
from turnsvr.relay.counts import Drop

exchange = pytest.importorskip("turnsvr.client._load", reason="the load generator was not built").exchange

CHANNEL = 0x4000
SIZE = 200
FLOWS = 4
_SO_RCVBUFFORCE = 33
_SO_MEMINFO, _MEMINFO, _DROPS = 55, struct.Struct("=9I"), 8


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Lanes begin to serve when it is set."""
    event = Event()

    class Held(Thread):
        def run(self) -> None:
            event.wait()
            super().run()

    monkeypatch.setattr(compiled, "Thread", Held)
    return event


@pytest.mark.parametrize(("flows", "each"), [(1, 600), (60, 9)])
async def test_a_deep_queue_leaves_joined(make_world: WorldFactory, go: Event, flows: int, each: int) -> None:
    """Also where flows alternate, and one read of the queue has no two packets of any."""
    world = make_world(apart())
    peer = world.endpoint()
    if enlarge(peer.socket) < 1 << 20:
        pytest.skip("needs root, or a larger net.core.rmem_max, for queues so deep")
    sessions = [opened(world, peer.address.host, peer.address.port) for _ in range(flows)]
    for number in range(each):
        for at, session in enumerate(sessions):
            session.send(channel_data(CHANNEL, bytes((at,)) + number.to_bytes(2, "big")))
    go.set()
    totals = await world.settled()
    assert totals.relayed.packets_from_client == flows * each
    assert totals.sends <= 2 * flows + 2
    got = peer.waiting()
    for at in range(flows):
        assert [data[1:] for data in got if data[0] == at] == [number.to_bytes(2, "big") for number in range(each)]


def apart() -> PumpSettings:
    """Relays at an address of their own, where nothing arrives but what the test sends."""
    host = private_loopback()
    return replace(SETTINGS, relay_addresses=(RelayAddress(host, host),))


def opened(world: World, host: str, port: int) -> Session:
    session = world.session()
    session.permit(host)
    world.pump.bind_channel(session.number, CHANNEL, type(session.relayed)(host, port), math.inf)
    return session


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
async def test_whatever_comes_through_a_flood_is_whole_and_counted(make_world: WorldFactory, up: bool) -> None:
    """As much as can be sent: each packet is delivered once and in order, or dropped for a reason that is counted."""
    world = make_world(apart())
    peer = world.endpoint()
    sessions = [opened(world, peer.address.host, peer.address.port) for _ in range(FLOWS)]
    receiving = [peer.socket] if up else [session.endpoint.socket for session in sessions]
    for sock in receiving:
        enlarge(sock)
    if up:
        prefix = channel_data(CHANNEL, bytes(SIZE))[:4]
        senders = [Sender(s.endpoint.socket.fileno(), prefix, to=s.five_tuple.server) for s in sessions]
        receivers = [Receiver(peer.socket.fileno())]
    else:
        senders = [Sender(peer.socket.fileno(), to=session.relayed) for session in sessions]
        receivers = [Receiver(sock.fileno(), Framing.CLIENT) for sock in receiving]
    load = Load(SIZE, math.inf, 0.4, settle=20.0, quiet=2.0, run=secrets.randbits(16))
    counts = await asyncio.to_thread(exchange, senders, receivers, load)
    totals = world.pump.totals()
    relayed = totals.relayed.packets_from_client + totals.relayed.packets_to_client
    assert (counts.duplicates, counts.reordered, counts.foreign, counts.refused) == (0, 0, 0, 0)
    assert counts.delivered + sum(map(lost_at, receiving)) == relayed > 0
    assert relayed + totals.drops[Drop.SEND_FAILED] == totals.received <= counts.sent
    assert sum(totals.drops.values()) == totals.drops[Drop.SEND_FAILED]


def enlarge(sock: socket.socket) -> int:
    """Have room for as much as the system grants; answers the bytes."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def lost_at(sock: socket.socket) -> int:
    """Packets for which this socket had no room."""
    values = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    return int(values[_DROPS])
