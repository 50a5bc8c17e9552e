"""ICMP errors about what was sent to peers, and that they cost no data."""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import replace

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import (
    FAMILIES,
    LOOPBACK,
    SETTINGS,
    PeerError,
    channel_data,
    private_loopback,
    read_from_relay,
    send_indication,
)
from turnsvr.relay import PumpKind
from turnsvr.relay.api import RelayAddress
from turnsvr.stun.address import Address, Family
from turnsvr.stun.attributes import DONT_FRAGMENT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no error queue on this system")

needs_raw_sockets = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")
PORT_UNREACHABLE = {Family.IPV4: (3, 3), Family.IPV6: (1, 4)}


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_closed_port_is_reported(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory()
    session, gone = world.session(family), world.endpoint(LOOPBACK[family])
    gone.socket.close()
    session.permit(gone.address.host)
    session.send(send_indication(gone.address, b"abc").encode())
    await world.until(lambda: bool(world.notes.errors))
    assert world.notes.errors == [PeerError(session.number, gone.address, *PORT_UNREACHABLE[family], bytes(4))]
    error = world.notes.errors[0]
    assert isinstance(error.peer, Address)


async def test_errors_lose_no_data(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, peer, gone = world.session(), world.endpoint(), world.endpoint()
    gone.socket.close()
    session.permit("127.0.0.1")
    session.bind(0x4000, gone.address)
    session.bind(0x4001, peer.address)
    count = 100
    for number in range(count):
        session.send(channel_data(0x4000, b"lost"))
        session.send(channel_data(0x4001, bytes([number])))
        peer.send(bytes([number]), session.relayed)
    assert [(await peer.receive())[0] for _ in range(count)] == [bytes([number]) for number in range(count)]
    got = [read_from_relay(await session.receive()) for _ in range(count)]
    assert got == [(0x4001, bytes([number])) for number in range(count)]
    totals = await world.settled()
    assert not sum(totals.drops.values())
    await world.until(lambda: bool(world.notes.errors))
    assert {error.peer for error in world.notes.errors} == {gone.address}


async def test_without_a_live_permission_nobody_is_told(pump_factory: PumpFactory, pump_kind: PumpKind) -> None:
    if pump_kind != "portable":
        pytest.skip("only a pump on this thread lets the permission end between the packet and its error")
    world = pump_factory()
    session, gone, witness = world.session(), world.endpoint(), world.session()
    gone.socket.close()
    for each in (session, witness):
        each.permit("127.0.0.1")
        world.pump.send_to_peer(each.number, gone.address, b"abc", dont_fragment=False)
    session.permit("127.0.0.1", offset=-0.001)
    await world.until(lambda: bool(world.notes.errors))
    assert [error.session for error in world.notes.errors] == [witness.number]


async def test_a_session_may_be_closed_when_its_error_comes(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    session, gone = world.session(), world.endpoint()
    gone.socket.close()
    session.permit("127.0.0.1")
    told: list[int] = []

    def close(session: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes) -> None:
        told.append(session)
        world.pump.close(session)

    world.notes.peer_error = close  # type: ignore[method-assign]
    for _ in range(5):
        session.send(send_indication(gone.address, b"abc").encode())
    await world.until(lambda: bool(told))
    assert not world.pump.counters(session.number).packets_from_client


@pytest.mark.parametrize("family", FAMILIES)
async def test_where_nobody_wants_them_the_kernel_keeps_none(pump_factory: PumpFactory, family: Family) -> None:
    """A reload changes it for sessions that live, and errors cost no data either way."""
    settings = replace(SETTINGS, peer_errors=False)
    world = pump_factory(settings)
    session, gone, peer = world.session(family), world.endpoint(LOOPBACK[family]), world.endpoint(LOOPBACK[family])
    gone.socket.close()
    session.permit(gone.address.host)

    async def send_to_both() -> None:
        for _ in range(5):
            session.send(send_indication(gone.address, b"lost").encode())
            session.send(send_indication(peer.address, b"abc").encode())
        for _ in range(5):
            await peer.receive()
        await world.settled()

    await send_to_both()
    assert not world.notes.errors
    world.pump.reconfigure(SETTINGS)
    await send_to_both()
    await world.until(lambda: bool(world.notes.errors))
    world.pump.reconfigure(settings)
    await world.settled()
    world.notes.errors.clear()
    await send_to_both()
    assert not world.notes.errors


@needs_raw_sockets
@pytest.mark.parametrize(
    ("icmp_type", "code", "rest", "data"),
    [
        (3, 1, bytes(4), bytes(4)),
        (3, 4, struct.pack("!HH", 0, 1280), struct.pack("!I", 1280)),
        (3, 13, bytes(4), bytes(4)),
        (11, 0, bytes(4), bytes(4)),
    ],
)
async def test_errors_that_clients_are_told_of(
    pump_factory: PumpFactory, icmp_type: int, code: int, rest: bytes, data: bytes
) -> None:
    host = private_loopback()
    world = pump_factory(replace(SETTINGS, relay_addresses=(RelayAddress(host, host),)))
    session, peer = world.session(), world.endpoint(private_loopback())
    session.permit(peer.address.host)
    session.send(send_indication(peer.address, b"abc").add(DONT_FRAGMENT, True).encode())
    await peer.receive()
    _icmp(icmp_type, code, rest, session.relayed, peer.address)
    await world.until(lambda: bool(world.notes.errors))
    assert world.notes.errors == [PeerError(session.number, peer.address, icmp_type, code, data)]


@needs_raw_sockets
async def test_other_errors_stay_here(pump_factory: PumpFactory) -> None:
    host = private_loopback()
    world = pump_factory(replace(SETTINGS, relay_addresses=(RelayAddress(host, host),)))
    session, peer = world.session(), world.endpoint(private_loopback())
    session.permit(peer.address.host)
    session.send(send_indication(peer.address, b"abc").encode())
    await peer.receive()
    _icmp(12, 0, bytes(4), session.relayed, peer.address)
    _icmp(3, 3, bytes(4), session.relayed, peer.address)
    await world.until(lambda: bool(world.notes.errors))
    assert [(error.icmp_type, error.icmp_code) for error in world.notes.errors] == [(3, 3)]


@needs_raw_sockets
@pytest.mark.parametrize(
    ("icmp_type", "code", "rest", "data"),
    [
        (1, 0, bytes(4), bytes(4)),
        (1, 4, bytes(4), bytes(4)),
        (2, 0, struct.pack("!I", 65_536), struct.pack("!I", 65_536)),  # the interface's own: nobody else sends less
        (3, 0, bytes(4), bytes(4)),
    ],
)
async def test_errors_of_ipv6_that_clients_are_told_of(
    pump_factory: PumpFactory, icmp_type: int, code: int, rest: bytes, data: bytes
) -> None:
    world = pump_factory()
    session, peer = world.session(Family.IPV6), world.endpoint("::1")
    session.permit("::1")
    session.send(send_indication(peer.address, b"abc").encode())
    await peer.receive()
    _icmp6(4, 0, bytes(4), session.relayed, peer.address)  # a parameter problem stays here
    _icmp6(icmp_type, code, rest, session.relayed, peer.address)
    await world.until(lambda: bool(world.notes.errors))
    assert world.notes.errors == [PeerError(session.number, peer.address, icmp_type, code, data)]


@needs_raw_sockets
@pytest.mark.parametrize("family", FAMILIES)
async def test_none_of_them_is_told_where_nobody_wants_them(pump_factory: PumpFactory, family: Family) -> None:
    world = pump_factory(replace(SETTINGS, peer_errors=False))
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(peer.address.host)
    session.bind(0x4000, peer.address)
    session.send(channel_data(0x4000, b"abc"))
    await peer.receive()
    types = ((3, 1), (3, 13), (11, 0)) if family is Family.IPV4 else ((1, 0), (1, 4), (3, 0))
    for icmp_type, code in types:
        send = _icmp if family is Family.IPV4 else _icmp6
        send(icmp_type, code, bytes(4), session.relayed, peer.address)
        peer.send(b"on it goes", session.relayed)
        assert await session.receive() == channel_data(0x4000, b"on it goes")
    await world.settled()
    assert not world.notes.errors


def _icmp6(icmp_type: int, code: int, rest: bytes, relayed: Address, peer: Address) -> None:
    """The same of IPv6; the kernel makes the checksum."""
    udp = struct.pack("!HHHH", relayed.port, peer.port, 11, 0)
    ip = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + relayed.packed + peer.packed
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.sendto(struct.pack("!BBH", icmp_type, code, 0) + rest + ip + udp, (relayed.host, 0))


def _icmp(icmp_type: int, code: int, rest: bytes, relayed: Address, peer: Address) -> None:
    """An ICMP error from the peer's host about a packet of the relay."""
    udp = struct.pack("!HHHH", relayed.port, peer.port, 11, 0)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 31, 0, 0x4000, 64, 17, 0) + relayed.packed + peer.packed
    body = rest + ip + udp
    message = struct.pack("!BBH", icmp_type, code, 0) + body
    message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.bind((peer.host, 0))
        raw.sendto(message, (relayed.host, 0))


def _checksum(data: bytes) -> int:
    words: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return words ^ 0xFFFF
