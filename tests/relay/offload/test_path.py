"""Programs below a pump, between three namespaces: they carry as long as the rules and the kernel say."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from bench.lab.frames import Datagram, channel_data
from bench.lab.network import CLIENT, PEER, RELAY, SERVER, run, within
from tests.relay.offload.lab import CHANNEL, SETTINGS, Lab, Opened, Served
from turnsvr import relay
from turnsvr.plane import OpenRelay
from turnsvr.relay import PumpKind
from turnsvr.relay.api import PumpSettings
from turnsvr.relay.counts import Drop
from turnsvr.relay.offload import system
from turnsvr.relay.offload.programs import Programs
from turnsvr.relay.offload.settings import Mode, OffloadSettings
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

V4, V6 = Family.IPV4, Family.IPV6
VOICE = bytes(range(160))
STEP = 0.006
"""Seconds after which a flow that was held goes on by the programs."""


class Serve(Protocol):
    def __call__(
        self, mode: Mode | None, kind: PumpKind = "auto", settings: PumpSettings = SETTINGS,
        names: tuple[str, ...] | None = None,
    ) -> Served: ...  # fmt: skip


@pytest.fixture(scope="module")
def lab_of_module(programs: Programs) -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


@pytest.fixture
def lab(lab_of_module: Lab) -> Iterator[Lab]:
    with within(lab_of_module.server):
        yield lab_of_module


@pytest.fixture
async def serve(lab: Lab) -> AsyncIterator[Serve]:
    """Makes pumps one after the other, and ends the last."""
    made: list[Served] = []

    def factory(
        mode: Mode | None, kind: PumpKind = "auto", settings: PumpSettings = SETTINGS,
        names: tuple[str, ...] | None = None,
    ) -> Served:  # fmt: skip
        if made:
            made.pop().shutdown()
        lab.client.frames(), lab.peer.frames()
        made.append(lab.serve(mode, kind, settings, names))
        return made[-1]

    yield factory
    for each in made:
        each.shutdown()


@pytest.fixture(params=["xdp", "tc"])
def mode(request: pytest.FixtureRequest, programs: Programs) -> Mode:
    found: Mode = request.param
    if found not in programs.programs:
        pytest.skip(f"{found}: {programs.refused}")
    return found


async def talk(session: Opened, peer: Address = PEER[V4], channel: int = CHANNEL) -> tuple[int, int]:
    """A packet in each direction, which both arrive; how many of each were carried."""
    served, lab = session.served, session.served.lab
    before = served.status.carried
    lab.client.send(session.up(channel_data(channel, VOICE)))
    assert (await lab.peer.datagram()).data == VOICE
    lab.peer.send(session.down(VOICE, peer))
    assert (await lab.client.datagram()).data == channel_data(channel, VOICE)
    now = served.status.carried
    return now.packets_from_client - before.packets_from_client, now.packets_to_client - before.packets_to_client


async def carried(session: Opened, peer: Address = PEER[V4], channel: int = CHANNEL) -> None:
    """Talk in both directions until both are carried, and go on being so: routes may be looked at anew."""
    in_a_row = 0
    for _ in range(300):
        in_a_row = in_a_row + 1 if await talk(session, peer, channel) == (1, 1) else 0
        if in_a_row == 4:
            return
        await asyncio.sleep(STEP)
    raise AssertionError(session.served.status)


async def by_the_pump(session: Opened, peer: Address = PEER[V4]) -> None:
    """What both send arrives, and nothing of it was carried, with silences that would let it."""
    for _ in range(5):
        assert await talk(session, peer) == (0, 0)
        await asyncio.sleep(STEP)


async def test_a_call_is_carried(serve: Serve, mode: Mode, pump_kind: PumpKind) -> None:
    served = serve(mode, pump_kind)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    assert {(each.name, each.path) for each in served.status.interfaces} == {("sc", mode), ("sp", mode)}


@pytest.mark.parametrize("client", [V4, V6])
@pytest.mark.parametrize("peer", [V4, V6])
async def test_families(serve: Serve, mode: Mode, client: Family, peer: Family) -> None:
    session = serve(mode).open(CLIENT[client], peer)
    session.bind(PEER[peer])
    await carried(session, PEER[peer])


async def test_counters_are_of_both(serve: Serve, mode: Mode) -> None:
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    count = served.pump.counters(session.number)
    assert served.pump.totals().relayed == count
    assert count.packets_from_client > served.status.carried.packets_from_client > 0
    assert count.bytes_from_client == 160 * count.packets_from_client
    await talk(session)
    again = served.pump.counters(session.number)
    assert (again.packets_from_client, again.packets_to_client) == (
        count.packets_from_client + 1,
        count.packets_to_client + 1,
    )
    assert served.pump.close(session.number) == again
    assert served.pump.totals().relayed == again


@pytest.mark.parametrize("level", ["allocation", "permission", "channel"])
async def test_deadlines_hold_in_the_programs(serve: Serve, mode: Mode, level: str) -> None:
    """Python does nothing meanwhile: nothing is carried behind a deadline; what becomes of it is the pump's to say."""
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    ends = time.monotonic() + 0.15
    if level == "allocation":
        served.pump.refresh(session.number, ends)
    elif level == "permission":
        served.pump.permit(session.number, PEER[V4].host, ends)
    else:
        served.pump.bind_channel(session.number, CHANNEL, PEER[V4], ends)
    assert await talk(session) == (1, 1)
    stall_until(ends + 0.01)
    before = served.status.carried
    served.lab.client.send(session.up(channel_data(CHANNEL, VOICE)))
    served.lab.peer.send(session.down(VOICE, PEER[V4]))
    await served.until(lambda: served.counted("expired") == 2)
    assert served.status.carried == before
    await served.until(lambda: served.pump.totals().drops[Drop.EXPIRED] >= 1)
    await served.lab.peer.silence()


async def test_what_is_refreshed_is_carried_on(serve: Serve, mode: Mode) -> None:
    served = serve(mode)
    session = served.open(lasts=0.5)
    session.bind(PEER[V4], permitted=0.5, lasts=0.5)
    await carried(session)
    served.pump.refresh(session.number, time.monotonic() + 60)
    session.bind(PEER[V4])
    await asyncio.sleep(0.6)
    assert await talk(session) == (1, 1)


@pytest.mark.parametrize("how", ["close", "permission", "port", "another channel", "moved"])
async def test_what_ends_is_carried_no_more(serve: Serve, mode: Mode, how: str) -> None:
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    now = time.monotonic()
    match how:
        case "close":
            served.pump.close(session.number)
        case "permission":
            served.pump.permit(session.number, PEER[V4].host, 0.0)
        case "port":
            served.pump.permit(session.number, PEER[V4].host, now + 60, ((7000, 7000),))
        case "another channel":
            served.pump.bind_channel(session.number, CHANNEL, Address(PEER[V4].host, 6001), now + 60)
        case "moved":
            elsewhere = FiveTuple(Transport.UDP, Address(CLIENT[V4].host, 50_001), SERVER[V4])
            served.pump.move(session.number, elsewhere)
    assert served.status.channels == (1 if how in ("another channel", "moved") else 0)
    before = served.status.carried
    if how != "another channel":  # after a silence, what the client sends is carried to the other peer
        served.lab.client.send(session.up(channel_data(CHANNEL, VOICE)))
    if how != "moved":  # what the peer sends is carried to where the client is now
        served.lab.peer.send(session.down(VOICE, PEER[V4]))
    await asyncio.sleep(0.05)
    assert served.status.carried == before


async def test_a_client_that_moved_is_carried(serve: Serve, mode: Mode) -> None:
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    session.five_tuple = FiveTuple(Transport.UDP, Address(CLIENT[V4].host, 50_001), SERVER[V4])
    served.pump.move(session.number, session.five_tuple)
    await carried(session)


@pytest.mark.parametrize("which", ["peer", "client"])
async def test_a_mac_address_that_changes(serve: Serve, mode: Mode, which: str) -> None:
    served = serve(mode)
    lab, session = served.lab, served.open()
    session.bind(PEER[V4])
    await carried(session)
    end = lab.peer if which == "peer" else lab.client
    end.mac = b"\x02" + os.urandom(5)
    host = PEER[V4].host if which == "peer" else CLIENT[V4].host
    try:
        with within(end.namespace):
            run("ip", "link", "set", end.name, "address", end.mac.hex(":"))
        lab.in_server("ip", "neigh", "replace", host, "lladdr", end.mac.hex(":"), "dev", end.server_end)
        await carried(session)
        lab.client.send(session.up(channel_data(CHANNEL, VOICE)))
        assert (await lab.peer.datagram()).to_mac == lab.peer.mac
        lab.peer.send(session.down(VOICE, PEER[V4]))
        assert (await lab.client.datagram()).to_mac == lab.client.mac
    finally:
        lab.in_server("ip", "neigh", "del", host, "dev", end.server_end)


async def test_a_neighbour_that_is_gone(serve: Serve, mode: Mode) -> None:
    """Its packets go to the pump, which makes the kernel look for it."""
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    for _ in range(20):  # the peer may ask for our address itself, and be known by that
        served.lab.in_server("ip", "neigh", "flush", "dev", "sp")
        await asyncio.sleep(0.01)
        await talk(session)
        if served.counted("unknown_hop"):
            break
    assert served.counted("unknown_hop")
    await carried(session)


async def test_a_route_that_changes(serve: Serve, mode: Mode) -> None:
    """The peer is behind a router: first it is the peer's end, then the client's."""
    served = serve(mode)
    lab, far = served.lab, Address("10.99.0.9", 6000)
    lab.in_server("ip", "route", "add", "10.99.0.0/24", "via", PEER[V4].host)
    try:
        session = served.open()
        session.bind(far)
        await carried(session, far)
        lab.in_server("ip", "route", "replace", "10.99.0.0/24", "via", CLIENT[V4].host, "src", RELAY[V4])
        await asyncio.sleep(0.02)
        for _ in range(300):
            before = served.status.carried.packets_from_client
            lab.client.send(session.up(channel_data(CHANNEL, VOICE)))
            got = await lab.client.datagram()
            assert (got.destination, got.data) == (far, VOICE)
            if served.status.carried.packets_from_client > before:
                break
            await asyncio.sleep(STEP)
        else:
            raise AssertionError(served.status)
        assert not lab.peer.frames()
        # What the peer sends still comes by its own interface, by which no answer leaves now: the kernel judges it.
        before = served.counted("other_interface")
        lab.peer.send(session.down(VOICE, far))
        await served.until(lambda: served.counted("other_interface") > before)
    finally:
        lab.in_server("ip", "route", "del", "10.99.0.0/24")


async def test_a_path_that_gets_narrow(serve: Serve, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel learns the MTU of a path from ICMP, and tells nobody."""
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    below = served.pump._below  # type: ignore[attr-defined]
    known = below._kernel.route
    monkeypatch.setattr(below._kernel, "route", lambda *ends: (found := known(*ends)) and replace(found, mtu=180))
    channel = below._table.sessions[session.number].channels[CHANNEL]
    await served.until(lambda: {way.mtu for way in channel.ways} == {180})
    await by_the_pump(session)
    assert served.counted("too_large")


async def test_no_route(serve: Serve, mode: Mode) -> None:
    """The kernel knows no way to the peer now, and one later."""
    served = serve(mode)
    session = served.open()
    far = Address("10.98.0.9", 6000)
    session.bind(far)
    assert served.status.channels == 0
    served.lab.in_server("ip", "route", "add", "10.98.0.0/24", "via", PEER[V4].host)
    try:
        await carried(session, far)
    finally:
        served.lab.in_server("ip", "route", "del", "10.98.0.0/24")


async def test_a_full_table(serve: Serve, mode: Mode) -> None:
    """What has no room is the pump's; room that comes back is used."""
    served = serve(mode, settings=replace(SETTINGS, max_sessions=2, max_channels=1))
    first, second = served.open(), served.open(replace_port(CLIENT[V4], 50_001))
    first.bind(PEER[V4])
    second.bind(PEER[V4])
    await carried(first)
    await carried(second)
    peer = Address(PEER[V4].host, 6001)
    served.pump.close(first.number)
    third = served.open(replace_port(CLIENT[V4], 50_002))
    third.bind(peer)
    await carried(third, peer)
    below = served.pump._below  # type: ignore[attr-defined]
    below._table._room = below._table.flows
    served.pump.close(third.number)
    below._table._room = below._table.flows
    fourth = served.open(replace_port(CLIENT[V4], 50_003))
    fourth.bind(PEER[V4])
    await by_the_pump(fourth)
    assert (served.status.full, served.status.channels) == (1, 1)


async def test_peers_of_this_server_are_the_pump_s(serve: Serve, mode: Mode) -> None:
    served = serve(mode)
    one, other = served.open(), served.open(replace_port(CLIENT[V4], 50_001))
    one.bind(other.relayed)
    other.bind(one.relayed)
    assert served.status.channels == 0
    served.lab.client.send(one.up(channel_data(CHANNEL, VOICE)))
    got = await served.lab.client.datagram()
    assert (got.destination, got.data) == (other.five_tuple.client, channel_data(CHANNEL, VOICE))


async def test_bandwidth_is_of_both_ways(serve: Serve, mode: Mode) -> None:
    """What the pump has moved is taken off what the programs may, and the other way round."""
    served = serve(mode)
    session = served.open(bandwidth=16_000.0)
    session.bind(PEER[V4])
    await carried(session)
    for _ in range(50):
        served.pump.send_to_peer(session.number, PEER[V4], VOICE * 6, dont_fragment=False)
    await served.until(lambda: served.pump.counters(session.number).dropped > 0)
    dropped = served.pump.totals().drops[Drop.BANDWIDTH]
    served.lab.peer.frames()
    await asyncio.sleep(STEP)
    for _ in range(20):
        served.lab.client.send(session.up(channel_data(CHANNEL, VOICE * 6)))
    await served.until(lambda: served.counted("over_bandwidth") >= 15)
    assert served.pump.totals().drops[Drop.BANDWIDTH] >= dropped + 15


async def test_a_limit_that_is_reloaded(serve: Serve, mode: Mode) -> None:
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    served.pump.reconfigure(replace(SETTINGS, bandwidth=1_000.0))
    for _ in range(20):
        served.lab.client.send(session.up(channel_data(CHANNEL, VOICE)))
    await served.until(lambda: served.counted("over_bandwidth") >= 13)
    served.pump.reconfigure(SETTINGS)
    await asyncio.sleep(STEP)
    served.lab.peer.frames()
    assert await talk(session) == (1, 1)


async def test_a_session_that_is_traced_is_the_pump_s(serve: Serve, mode: Mode) -> None:
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    served.pump.tell(session.number, True)
    await by_the_pump(session)
    assert len(served.notes.told) >= 10
    served.pump.tell(session.number, False)
    await carried(session)


async def test_only_the_interfaces_that_are_named(serve: Serve, mode: Mode) -> None:
    served = serve(mode, names=("sc", "nowhere0"))
    session = served.open()
    session.bind(PEER[V4])
    assert [(each.name, each.path) for each in served.status.interfaces] == [("sc", mode), ("nowhere0", "pump")]
    for _ in range(50):
        up, down = await talk(session)
        assert down == 0
        if up:
            return
        await asyncio.sleep(STEP)
    raise AssertionError(served.status)


async def test_auto_takes_xdp_where_the_other_end_takes_frames(serve: Serve, programs: Programs) -> None:
    served = serve("auto")
    assert {each.path for each in served.status.interfaces} == {"xdp"}


async def test_a_move_to_another_pump(serve: Serve, lab: Lab, mode: Mode) -> None:
    """The old one lets go before the move; the new one attaches after it; a failure has the old one carry again."""
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    served.pump.freeze()
    belongings = served.pump.belongings(())
    served.pump.part(())
    assert not served.status.interfaces
    counted = served.pump.counters(session.number)
    served.pump.rejoin()
    served.pump.thaw()
    await carried(session)
    assert belongings.sessions[session.number].counters.packets_from_client <= counted.packets_from_client


async def test_a_process_that_is_killed_takes_the_programs_along(lab: Lab, mode: Mode) -> None:
    process = start(mode)
    try:
        assert process.stdout is not None
        assert any(line == "serving\n" for line in process.stdout)
        assert attached(lab, mode)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        for _ in range(200):
            if not attached(lab, mode):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the programs are still there")
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()  # type: ignore[union-attr]


def stall_until(when: float) -> None:
    """Have Python do nothing."""
    time.sleep(max(0.0, when - time.monotonic()))


def start(mode: Mode) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.relay.offload.serving", mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def attached(lab: Lab, mode: Mode) -> bool:
    """Whether an interface of the server has a program."""
    if mode == "xdp":
        return "prog/xdp" in lab.in_server("ip", "link", "show", "dev", "sc")
    return system.attached(socket.if_nametoindex("sc"), system.ATTACH_TCX_INGRESS) > 0


def replace_port(address: Address, port: int) -> Address:
    return Address(address.host, port)


async def test_a_flood_of_strangers_beside_a_call(serve: Serve, lab: Lab, mode: Mode) -> None:
    """A hundred spoofed Allocate requests for each packet of a call, which loses less than one in a hundred."""
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    allocate = bytes.fromhex("000300082112a442") + bytes(12) + bytes.fromhex("0019000411000000")
    flood = [
        lab.client.server_mac
        + lab.client.mac
        + Datagram(Address(f"10.81.0.{9 + at % 200}", at), SERVER[V4], allocate).frame()[12:]
        for at in range(1_024, 1_424)
    ]
    sent = 0
    for at in range(100):
        for frame in flood[at % 4 * 100 :][:100]:
            lab.client.send_frame(frame)
        lab.client.send(session.up(channel_data(CHANNEL, VOICE)))
        sent += 1
        if at % 10 == 9:
            await asyncio.sleep(0)
            lab.client.frames()
    await asyncio.sleep(0.05)
    lost = sent - sum(1 for frame in lab.peer.frames() if frame[-len(VOICE) :] == VOICE)
    assert lost <= sent // 100
    assert served.status.channels == 1


async def test_the_taker_carries_what_the_giver_has_carried(serve: Serve, mode: Mode) -> None:
    """The giver's programs are gone before the taker's come: an interface has one XDP program at a time."""
    served = serve(mode)
    session = served.open()
    session.bind(PEER[V4])
    await carried(session)
    giver = served.pump
    taker = relay.make(SETTINGS, served.notes, offload=OffloadSettings(mode), is_armed=False)
    giver.freeze()
    belongings = giver.belongings(())
    for address, descriptors in belongings.listeners.items():
        taker.listen(address, descriptors=[os.dup(each) for each in descriptors])
    state = belongings.sessions[session.number]
    relays = tuple(replace(each, descriptor=os.dup(each.descriptor)) for each in state.relays)
    ends = time.monotonic() + 600
    giver.part(())
    taker.take(OpenRelay(session.number, session.five_tuple, (V4,), ends), replace(state, relays=relays))
    taker.arm()
    last = giver.leave()[session.number]
    taker.settle(session.number, last - state.counters)
    served.pump = session.pump = taker
    session.bind(PEER[V4])
    await carried(session)
    assert taker.counters(session.number).packets_from_client >= last.packets_from_client + 4 > 4
    giver.shutdown()
