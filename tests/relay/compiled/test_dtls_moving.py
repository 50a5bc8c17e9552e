"""DTLS clients whose pump gives its listeners away: it serves each on a socket of its own, for it has the keys."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.relay.compiled.dtls_client import DtlsClient, DtlsWorld, MakeDtlsWorld, datagram_context
from tests.relay.world import LOOPBACK, SETTINGS, Endpoint, Notes, channel_data, now, request
from turnsvr import relay
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.counts import Drop
from turnsvr.relay.moving import MovablePump
from turnsvr.relay.sockets import wildcard
from turnsvr.stun.address import Address, Family, FiveTuple
from turnsvr.stun.message import Method

CHANNEL = 0x4000
THREADS = [(1, 1), (3, 1), (1, 3)]


class Call:
    """A DTLS client with a session and a peer."""

    def __init__(self, client: DtlsClient, peer: Endpoint, five_tuple: FiveTuple) -> None:
        self.client, self.peer, self.five_tuple = client, peer, five_tuple

    @classmethod
    async def begin(cls, world: DtlsWorld, family: Family, server: Address) -> Call:
        client = DtlsClient(world, world.endpoint(LOOPBACK[family]), server)
        await client.shake_hands()
        five_tuple = await client.session(request().encode())
        peer = world.endpoint(LOOPBACK[family])
        world.pump.bind_channel(client.number, CHANNEL, peer.address, now(60))
        return cls(client, peer, five_tuple)

    async def talks(self, said: bytes) -> None:
        self.client.say(channel_data(CHANNEL, said))
        assert await self.peer.receive() == (said, self.client.relayed)
        self.peer.send(said, self.client.relayed)
        assert await self.client.read() == channel_data(CHANNEL, said)


class Move:
    """The listeners of a world go to another pump, and its DTLS sessions stay."""

    def __init__(self, world: DtlsWorld, files: TlsFiles, threads: int) -> None:
        self.giver: MovablePump = world.pump
        self.notes = Notes()
        self.taker = relay.make(replace(SETTINGS, threads=threads), self.notes, "compiled", is_armed=False)
        self.taker.secure(datagram_context(files))

    def give(self, *calls: Call) -> set[int]:
        stays = {each.client.number for each in calls}
        self.giver.freeze()
        ends = self.giver.keep(stays)
        for address, group in self.giver.belongings(stays).listeners.items():
            self.taker.listen(address, descriptors=[os.dup(each) for each in group], dtls=True)
        return ends

    def switch(self, *calls: Call) -> None:
        self.giver.part({each.client.number for each in calls})
        self.taker.arm()
        self.giver.leave()
        self.giver.thaw()


@pytest.fixture(params=THREADS, ids=["same", "fewer threads", "more threads"])
def threads(request: pytest.FixtureRequest) -> tuple[int, int]:
    before, after = request.param
    return before, after


@pytest.mark.parametrize("family", LOOPBACK)
@pytest.mark.parametrize("is_wildcard", [False, True], ids=["address", "wildcard"])
async def test_a_dtls_session_stays_and_everybody_else_is_the_takers(
    make_dtls_world: MakeDtlsWorld, certificate: TlsFiles, threads: tuple[int, int], family: Family, is_wildcard: bool
) -> None:
    before, after = threads
    world = make_dtls_world(replace(SETTINGS, threads=before))
    server = world.listeners[family]
    if is_wildcard:
        bound = world.pump.listen(Address(wildcard(family), 0), dtls=True)
        server = Address(LOOPBACK[family], bound.port)
    calls = [await Call.begin(world, family, server) for _ in range(4)]
    move = Move(world, certificate, after)
    try:
        assert move.give(*calls) == set()
        for each in calls:
            await each.talks(b"before")
        idle = DtlsClient(world, world.endpoint(LOOPBACK[family]), server)
        await idle.shake_hands()
        move.switch(*calls)
        for each in calls:
            await each.talks(b"after")
            each.client.say(asked := request(Method.REFRESH).encode())
            await world.until(lambda: (each.five_tuple, asked) in world.notes.messages)  # noqa: B023 - awaited here
        while not idle.end.is_over:  # it had no session, and is told to come anew
            await idle.hear()
        stranger = world.endpoint(LOOPBACK[family])
        stranger.send(asked := request().encode(), server)
        await world.until(lambda: [data for _, data in move.notes.messages] == [asked])
        later = DtlsClient(world, world.endpoint(LOOPBACK[family]), server)
        await later.shake_hands()
        assert move.taker.associations().handshakes == 1
        assert move.giver.associations().open == len(calls)
        assert move.giver.totals().drops[Drop.NO_SESSION] == 0
    finally:
        move.taker.shutdown()


async def test_a_client_that_has_gone_comes_anew_to_the_taker(
    make_dtls_world: MakeDtlsWorld, certificate: TlsFiles
) -> None:
    """Its socket is closed, and its address is the listener's again."""
    world = make_dtls_world()
    server = world.listeners[Family.IPV4]
    call = await Call.begin(world, Family.IPV4, server)
    before = len(os.listdir("/proc/self/fd"))
    move = Move(world, certificate, 1)
    try:
        move.give(call)
        move.switch(call)
        call.client.transmit(call.client.end.close())
        await world.until(lambda: world.notes.closed == [(call.five_tuple, "closed by the client")])
        world.pump.close(call.client.number)
        again = DtlsClient(world, call.client.endpoint, server)
        await again.shake_hands()
        assert move.taker.associations().open == 1
    finally:
        move.taker.shutdown()
    await world.until(lambda: len(os.listdir("/proc/self/fd")) < before)


async def test_a_client_that_has_lost_its_state_begins_anew_where_it_was(
    make_dtls_world: MakeDtlsWorld, certificate: TlsFiles
) -> None:
    """Whoever has its former association can tell that from a forged hello, and nobody else."""
    world = make_dtls_world()
    server = world.listeners[Family.IPV4]
    call = await Call.begin(world, Family.IPV4, server)
    move = Move(world, certificate, 1)
    try:
        move.give(call)
        move.switch(call)
        forger = DtlsClient(world, call.client.endpoint, server)
        forger.transmit(forger.end.begin())
        await call.client.endpoint.receive()  # a cookie, with which it would have to go on
        await call.talks(b"still")
        again = DtlsClient(world, call.client.endpoint, server)
        await again.shake_hands()
        await world.until(lambda: world.notes.closed == [(call.five_tuple, "another handshake took its place")])
        world.pump.close(call.client.number)
        again.say(asked := request().encode())
        await world.until(lambda: world.notes.messages[-1][1] == asked)
        assert world.notes.messages[-1][0] != call.five_tuple
    finally:
        move.taker.shutdown()


async def test_a_giver_that_takes_back_serves_all_of_them(
    make_dtls_world: MakeDtlsWorld, certificate: TlsFiles
) -> None:
    world = make_dtls_world(replace(SETTINGS, threads=2))
    server = world.listeners[Family.IPV4]
    call = await Call.begin(world, Family.IPV4, server)
    move = Move(world, certificate, 1)
    move.give(call)
    world.pump.part({call.client.number})
    await call.talks(b"while nobody reads the listener")
    move.taker.shutdown()
    world.pump.rejoin()
    world.pump.thaw()
    await call.talks(b"after")
    other = await Call.begin(world, Family.IPV4, server)
    await other.talks(b"as ever")
    again = Move(world, certificate, 2)
    try:
        assert again.give(call, other) == set()
        again.switch(call, other)
        await call.talks(b"at last")
        await other.talks(b"as well")
    finally:
        again.taker.shutdown()


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_a_socket_a_client_is_told_that_it_is_over(
    make_dtls_world: MakeDtlsWorld, certificate: TlsFiles
) -> None:
    world = make_dtls_world()
    call = await Call.begin(world, Family.IPV4, world.listeners[Family.IPV4])
    move = Move(world, certificate, 1)
    try:
        with no_more_files():
            assert world.pump.keep({call.client.number}) == {call.client.number}
        for address, group in world.pump.belongings({call.client.number}).listeners.items():
            move.taker.listen(address, descriptors=[os.dup(each) for each in group], dtls=True)
        move.switch(call)
        while not call.client.end.is_over:
            await asyncio.wait_for(call.client.hear(), 10)
        await world.until(lambda: world.notes.closed == [(call.five_tuple, "closed by the client")])
    finally:
        move.taker.shutdown()
