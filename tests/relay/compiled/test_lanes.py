"""Several threads: a session lives on one, and nobody outside can tell."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from tests.processes import sleeps, threads
from tests.relay.compiled.conftest import WorldFactory
from tests.relay.compiled.trains import numbered, send_train
from tests.relay.world import FAMILIES, LOOPBACK, SETTINGS, Session, World, channel_data, request, send_indication
from turnsvr.relay.compiled import sockets
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Address, Family

THREADS = replace(SETTINGS, threads=3, answers_per_address=0.0)
SESSIONS = 24
"""So many that no thread is likely to have none of them: one run in 20,000."""


@pytest.fixture(params=["steered", "scattered"])
def steering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Scattered: the kernel picks the thread, as it does where it takes no program of ours."""
    if request.param == "scattered":

        def refuse(descriptor: int, lanes: int) -> None:
            raise OSError(errno.EPERM, "not here")

        monkeypatch.setattr(sockets, "steer_group", refuse)
    return str(request.param)


def sessions_of(world: World, family: Family) -> list[Session]:
    sessions = [world.session(family) for _ in range(SESSIONS)]
    for session in sessions:
        session.permit(LOOPBACK[family])
    return sessions


@pytest.mark.parametrize("family", FAMILIES)
async def test_relaying(make_world: WorldFactory, steering: str, family: Family) -> None:
    world = make_world(THREADS)
    sessions, peer = sessions_of(world, family), world.endpoint(LOOPBACK[family])
    for session in sessions:
        session.bind(0x4000, peer.address)
        session.send(channel_data(0x4000, b"up"))
        assert await peer.receive() == (b"up", session.relayed)
        session.send(send_indication(peer.address, b"as well").encode())
        assert await peer.receive() == (b"as well", session.relayed)
        peer.send(b"down", session.relayed)
        assert await session.receive() == channel_data(0x4000, b"down")
    await world.settled()


@pytest.mark.parametrize("family", FAMILIES)
async def test_from_relay_to_relay(make_world: WorldFactory, steering: str, family: Family) -> None:
    world = make_world(THREADS)
    sessions = sessions_of(world, family)
    payloads = numbered(4, 100)
    for one, other in zip(sessions, [*sessions[1:], sessions[0]], strict=True):
        one.bind(0x4000, other.relayed)
        other.bind(0x4001, one.relayed)
        send_train(world, one.endpoint, [channel_data(0x4000, data) for data in payloads], one.five_tuple.server)
        assert [await other.receive() for _ in payloads] == [channel_data(0x4001, data) for data in payloads]
    await world.settled(inside=4 * SESSIONS)


async def test_messages_go_up(make_world: WorldFactory, steering: str) -> None:
    world = make_world(THREADS)
    sessions, message = sessions_of(world, Family.IPV4), request().encode()
    for session in sessions:
        session.send(message)
    await world.until(lambda: len(world.notes.messages) == SESSIONS)
    assert set(world.notes.messages) == {(session.five_tuple, message) for session in sessions}
    for session in sessions:
        world.pump.send(session.five_tuple, message)
        assert await session.receive() == message


async def test_drops_and_bindings(make_world: WorldFactory, steering: str) -> None:
    world = make_world(THREADS)
    binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
    for session in sessions_of(world, Family.IPV4):
        session.send(channel_data(0x4000, b"abc"))
        session.send(binding)
        assert (await session.receive())[:2] == b"\x01\x01"
    stranger = world.endpoint()
    stranger.send(channel_data(0x4000, b"abc"), world.listeners[Family.IPV4])
    totals = await world.settled()
    assert totals.binding_answers == SESSIONS
    assert (totals.drops[Drop.NO_CHANNEL], totals.drops[Drop.NO_SESSION]) == (SESSIONS, 1)


async def test_the_rate_of_answers_is_one_for_all(make_world: WorldFactory) -> None:
    world = make_world(replace(THREADS, answers_per_address=0.5))
    for _ in range(40):
        world.endpoint().send(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), world.listeners[Family.IPV4])
    totals = await world.settled()
    assert 5 <= totals.binding_answers < 20
    assert totals.drops[Drop.RATE_LIMITED] == 40 - totals.binding_answers


async def test_a_listener_takes_nobody_elses_port(make_world: WorldFactory) -> None:
    world, other = make_world(THREADS), make_world(THREADS)
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        other.pump.listen(world.listeners[Family.IPV4])


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_wildcards(make_world: WorldFactory, steering: str, host: str) -> None:
    world = make_world(THREADS)
    bound = world.pump.listen(Address(host, 0))
    family = bound.family
    peer = world.endpoint(LOOPBACK[family])
    for _ in range(SESSIONS):
        session = world.session(family, server=Address(LOOPBACK[family], bound.port))
        session.permit(LOOPBACK[family])
        session.send(send_indication(peer.address, b"up").encode())
        assert await peer.receive() == (b"up", session.relayed)
        peer.send(b"down", session.relayed)
        data, sender = await session.endpoint.receive()
        assert sender == session.five_tuple.server
        assert data.startswith(b"\x00\x17")


async def test_each_thread_has_work_and_ends(make_world: WorldFactory) -> None:
    before = threads()
    world = make_world(THREADS)
    started = threads() - before
    assert len(started) == 3
    sessions, peer = sessions_of(world, Family.IPV4), world.endpoint()
    for session in sessions:
        session.bind(0x4000, peer.address)
    used = {thread: sleeps(thread) for thread in started}
    for session in sessions:
        session.send(channel_data(0x4000, b"abc"))
        await peer.receive()
    await world.until(lambda: all(sleeps(thread) > used[thread] for thread in started))
    world.pump.shutdown()
    await world.until(lambda: not threads() & started)
