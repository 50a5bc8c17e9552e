"""Random traces against a model of the table that fits on a page.

The model says for each packet who gets what, or why nobody does. Deadlines lie in the past or far ahead, so that it
needs no clock.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay.world import SETTINGS, Endpoint, World, channel_data, now, read_from_relay, send_indication
from turnsvr.ranges import EVERY_PORT, NO_PORT
from turnsvr.relay import PumpKind
from turnsvr.relay.counts import Counters, Drop
from turnsvr.stun.address import Address

SESSIONS, PEERS, CHANNELS = 2, 3, 3
HOSTS = ["127.0.0.2", "127.0.0.3"]
RELAY = "127.0.0.1"
FENCED = frozenset((RELAY,))

sessions = st.integers(0, SESSIONS - 1)
peers = st.integers(0, PEERS - 1)
everyone = st.integers(0, PEERS + SESSIONS - 1)
"""Peers, then the relayed addresses of the sessions."""
channels = st.integers(0x4000, 0x4000 + CHANNELS - 1)
hosts = st.sampled_from([*HOSTS, RELAY])
alive = st.sampled_from([True, True, True, False])

STEP = st.one_of(
    st.tuples(st.just("permit"), sessions, hosts, alive),
    st.tuples(st.just("bind"), sessions, channels, everyone, alive),
    st.tuples(st.just("refresh"), sessions, alive),
    st.tuples(st.just("channel data"), sessions, channels),
    st.tuples(st.just("channel data"), sessions, channels),
    st.tuples(st.just("send"), sessions, everyone),
    st.tuples(st.just("from peer"), sessions, peers),
    st.tuples(st.just("from peer"), sessions, peers),
)


@dataclass
class Model:
    """One session's share of the table."""

    relayed: Address
    alive: bool = True
    permissions: dict[str, bool] = field(default_factory=dict)
    channels: dict[int, tuple[Address, bool]] = field(default_factory=dict)

    def refusal(self, host: str) -> Drop | None:
        if not self.alive:
            return Drop.EXPIRED
        if host not in self.permissions:
            return Drop.NO_PERMISSION
        return None if self.permissions[host] else Drop.EXPIRED

    def bind(self, number: int, peer: Address, is_alive: bool) -> None:
        others = {n: bound for n, bound in self.channels.items() if n != number and bound[0] != peer}
        self.channels = {**others, number: (peer, is_alive)}

    def peer_of(self, number: int) -> Address | Drop:
        if not self.alive:
            return Drop.EXPIRED
        if number not in self.channels:
            return Drop.NO_CHANNEL
        peer, is_alive = self.channels[number]
        return peer if is_alive else Drop.EXPIRED

    def seen_by_client(self, peer: Address) -> int | Address:
        return next((n for n, (bound, is_alive) in self.channels.items() if bound == peer and is_alive), peer)


class Trace:
    """A pump and its model, one step at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions = [world.session() for _ in range(SESSIONS)]
        self.peers = [world.endpoint(HOSTS[number % len(HOSTS)]) for number in range(PEERS)]
        self.models = [Model(session.relayed) for session in self.sessions]
        self.addresses = [peer.address for peer in self.peers] + [session.relayed for session in self.sessions]
        self.drops = dict.fromkeys(Drop, 0)
        self.counters = [[0, 0, 0, 0, 0] for _ in self.sessions]
        self.inside = 0
        self.sent_up = 0

    async def step(self, step: tuple[object, ...], data: bytes) -> None:
        match step:
            case ("permit", int(at), str(host), bool(is_alive)):
                self.sessions[at].permit(host, 60 if is_alive else -1, NO_PORT if host in FENCED else EVERY_PORT)
                self.models[at].permissions[host] = is_alive
            case ("bind", int(at), int(number), int(whom), bool(is_alive)):
                self.sessions[at].bind(number, self.addresses[whom], 60 if is_alive else -1)
                self.models[at].bind(number, self.addresses[whom], is_alive)
            case ("refresh", int(at), bool(is_alive)):
                self.world.pump.refresh(self.sessions[at].number, now(60 if is_alive else -1))
                self.models[at].alive = is_alive
            case ("channel data", int(at), int(number)):
                self.sessions[at].send(channel_data(number, data))
                peer = self.models[at].peer_of(number)
                if isinstance(peer, Drop):
                    self._drop(at, peer)
                else:
                    await self._relayed(at, peer, data)
            case ("send", int(at), int(whom)):
                self.sessions[at].send(send_indication(self.addresses[whom], data).encode())
                if self.models[at].alive:
                    await self._relayed(at, self.addresses[whom], data)
                else:
                    self.sent_up += 1
            case ("from peer", int(at), int(whom)):
                self.peers[whom].send(data, self.sessions[at].relayed)
                await self._to_client(at, self.addresses[whom], data)
            case _:
                raise AssertionError(step)
        await self._check()

    async def _relayed(self, at: int, peer: Address, data: bytes) -> None:
        refusal = self.models[at].refusal(peer.host)
        if refusal is not None:
            self._drop(at, refusal)
            return
        other = next((n for n, model in enumerate(self.models) if model.relayed == peer and model.alive), None)
        if other is not None:
            self._count(at, 0, data)
            self.inside += 1
            await self._to_client(other, self.models[at].relayed, data)
        elif peer.host in FENCED:
            self._drop(at, Drop.FENCED)
        else:
            self._count(at, 0, data)
            endpoint = self.peers[self.addresses.index(peer)]
            assert await endpoint.receive() == (data, self.models[at].relayed)

    async def _to_client(self, at: int, peer: Address, data: bytes) -> None:
        refusal = self.models[at].refusal(peer.host)
        if refusal is not None:
            self._drop(at, refusal)
            return
        self._count(at, 2, data)
        assert read_from_relay(await self.sessions[at].receive()) == (self.models[at].seen_by_client(peer), data)

    def _count(self, at: int, packets: int, data: bytes) -> None:
        self.counters[at][packets] += 1
        self.counters[at][packets + 1] += len(data)

    def _drop(self, at: int, reason: Drop) -> None:
        self.drops[reason] += 1
        self.counters[at][4] += 1

    async def _check(self) -> None:
        totals = await self.world.settled(inside=self.inside)
        assert {why: n for why, n in totals.drops.items() if n} == {why: n for why, n in self.drops.items() if n}
        assert totals.sent_up == self.sent_up
        endpoints: list[Endpoint] = [*self.peers, *(session.endpoint for session in self.sessions)]
        assert not any(endpoint.waiting() for endpoint in endpoints)
        for session, counters in zip(self.sessions, self.counters, strict=True):
            assert self.world.pump.counters(session.number) == Counters(*counters)


@settings(max_examples=120, deadline=None)
@given(steps=st.lists(STEP, max_size=40), data=st.data())
def test_the_pump_does_what_the_model_says(
    pump_kind: PumpKind, steps: list[tuple[object, ...]], data: st.DataObject
) -> None:
    payloads = data.draw(st.lists(st.binary(max_size=40), min_size=len(steps), max_size=len(steps)))
    asyncio.run(_trace(pump_kind, steps, payloads))


async def _trace(kind: PumpKind, steps: list[tuple[object, ...]], payloads: list[bytes]) -> None:
    world = World(kind, SETTINGS)
    try:
        trace = Trace(world)
        for step, payload in zip(steps, payloads, strict=True):
            await trace.step(step, payload)
    finally:
        world.end()
