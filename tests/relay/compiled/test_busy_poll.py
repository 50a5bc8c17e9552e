"""A thread that looks for packets before it sleeps: awake after packets, for so long and no longer."""

from __future__ import annotations

from dataclasses import replace

from tests.processes import sleeps, state, threads
from tests.relay.compiled.conftest import WorldFactory
from tests.relay.world import SETTINGS, Endpoint, Session, World, channel_data, request
from turnsvr.relay.api import PumpSettings

CHANNEL = 0x4000
LONG, SHORT = 60.0, 0.01
"""Seconds: no test is so long, and any is longer."""


class Awake:
    """A pump with one thread, a session, and a peer."""

    def __init__(self, make_world: WorldFactory, settings: PumpSettings) -> None:
        before = threads()
        self.world: World = make_world(settings)
        (self.thread,) = threads() - before
        self.session: Session = self.world.session()
        self.peer: Endpoint = self.world.endpoint()
        self.session.permit(self.peer.address.host)
        self.session.bind(CHANNEL, self.peer.address)

    async def relay(self) -> None:
        """One packet each way."""
        self.session.send(channel_data(CHANNEL, b"up"))
        assert await self.peer.receive() == (b"up", self.session.relayed)
        self.peer.send(b"down", self.session.relayed)
        assert (await self.session.endpoint.receive())[0] == channel_data(CHANNEL, b"down")

    async def falls_asleep(self) -> None:
        await self.world.until(lambda: state(self.thread) == "S")


async def test_after_packets_a_thread_is_awake(make_world: WorldFactory) -> None:
    awake = Awake(make_world, replace(SETTINGS, busy_poll=LONG))
    await awake.relay()
    before = sleeps(awake.thread)
    for _ in range(20):
        await awake.relay()
    assert sleeps(awake.thread) == before


async def test_after_silence_it_sleeps(make_world: WorldFactory) -> None:
    awake = Awake(make_world, replace(SETTINGS, busy_poll=SHORT))
    for _ in range(3):
        await awake.relay()
        await awake.falls_asleep()


async def test_messages_for_the_rules_keep_it_awake_for_nothing(make_world: WorldFactory) -> None:
    """Whoever sends them has no session, and the rules take longer than a thread to wake."""
    awake = Awake(make_world, replace(SETTINGS, busy_poll=LONG))
    awake.session.send(request().encode())
    await awake.world.until(lambda: awake.world.pump.totals().sent_up == 1)
    await awake.falls_asleep()


async def test_another_setting_holds_from_the_next_packet_on(make_world: WorldFactory) -> None:
    settings = replace(SETTINGS, busy_poll=LONG)
    awake = Awake(make_world, settings)
    await awake.relay()
    awake.world.pump.reconfigure(replace(settings, busy_poll=0.0))
    await awake.relay()
    await awake.falls_asleep()
    awake.world.pump.reconfigure(settings)
    await awake.relay()
    before = sleeps(awake.thread)
    await awake.relay()
    assert sleeps(awake.thread) == before


async def test_a_pump_ends_that_is_awake(make_world: WorldFactory) -> None:
    awake = Awake(make_world, replace(SETTINGS, busy_poll=LONG))
    await awake.relay()
    awake.world.pump.shutdown()
    await awake.world.until(lambda: awake.thread not in threads())
