"""What the IP header of a relayed packet says (RFC 8656 section 15): DSCP and ECN are copied, TTL and DF are set."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.compiled.trains import numbered
from tests.relay.world import (
    FAMILIES,
    LOOPBACK,
    Endpoint,
    World,
    channel_data,
    now,
    private_loopback,
    read_from_relay,
    send_indication,
)
from turnsvr.stun.address import Family, FiveTuple, Transport
from turnsvr.stun.attributes import DONT_FRAGMENT

EXPEDITED = 46 << 2
ECT_0, CONGESTED = 2, 3
VALUES = [EXPEDITED, ECT_0, CONGESTED, EXPEDITED | CONGESTED, 0, 255]
CHANNEL = 0x4000
DEFAULT_TTL = 64
_IP_RECVTTL = 12
_SOL_UDP, _UDP_SEGMENT = 17, 103


class Header(NamedTuple):
    """What a receiver's kernel says of a packet."""

    data: bytes
    traffic_class: int
    hop_limit: int


def listen_for_headers(endpoint: Endpoint) -> None:
    options = {
        socket.AF_INET: [(socket.IPPROTO_IP, socket.IP_RECVTOS), (socket.IPPROTO_IP, _IP_RECVTTL)],
        socket.AF_INET6: [
            (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS),
            (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT),
        ],
    }[endpoint.socket.family]
    for level, option in options:
        endpoint.socket.setsockopt(level, option, 1)


def mark(endpoint: Endpoint, traffic_class: int) -> None:
    """Send with this DSCP and ECN from here on."""
    if endpoint.socket.family == socket.AF_INET:
        endpoint.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
    else:
        endpoint.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)


async def receive(endpoint: Endpoint) -> Header:
    """The next packet."""
    while True:
        try:
            data, controls, _, _ = endpoint.socket.recvmsg(65_536, 256)
        except BlockingIOError:
            await asyncio.sleep(0.001)
            continue
        values = {(level, kind): int.from_bytes(value[:4], "little") for level, kind, value in controls}
        if endpoint.socket.family == socket.AF_INET:
            return Header(data, values[socket.IPPROTO_IP, socket.IP_TOS], values[socket.IPPROTO_IP, socket.IP_TTL])
        ipv6 = socket.IPPROTO_IPV6
        return Header(data, values[ipv6, socket.IPV6_TCLASS], values[ipv6, socket.IPV6_HOPLIMIT])


class Path(NamedTuple):
    world: World
    client: Endpoint
    peer: Endpoint
    family: Family
    server: tuple[str, int]
    relayed: tuple[str, int]


@pytest.fixture(params=FAMILIES)
async def path(make_world: WorldFactory, request: pytest.FixtureRequest) -> Path:
    """A session with a channel, of either family."""
    world, family = make_world(), request.param
    session, peer = world.session(family), world.endpoint(LOOPBACK[family])
    session.permit(peer.address.host)
    session.bind(CHANNEL, peer.address)
    for endpoint in (session.endpoint, peer):
        listen_for_headers(endpoint)
    return Path(world, session.endpoint, peer, family, session.five_tuple.server, session.relayed)


async def test_dscp_and_ecn_are_copied_both_ways(path: Path) -> None:
    async with asyncio.timeout(10):
        for value in VALUES:
            mark(path.client, value)
            path.client.socket.sendto(channel_data(CHANNEL, b"up"), path.server)
            assert (await receive(path.peer))[:2] == (b"up", value)
            path.client.socket.sendto(send_indication(path.peer.address, b"sent").encode(), path.server)
            assert (await receive(path.peer))[:2] == (b"sent", value)
            mark(path.peer, value)
            path.peer.socket.sendto(b"down", path.relayed)
            assert (await receive(path.client))[:2] == (channel_data(CHANNEL, b"down"), value)


async def test_what_is_marked_otherwise_is_not_joined(path: Path) -> None:
    """A mark belongs to each packet of a flow, also where those of one size may leave as one message."""
    payloads = numbered(60, 100)
    for at, payload in enumerate(payloads):
        mark(path.client, VALUES[at // 2 % 3])
        path.client.socket.sendto(channel_data(CHANNEL, payload), path.server)
        mark(path.peer, VALUES[at % 3])
        path.peer.socket.sendto(payload, path.relayed)
    async with asyncio.timeout(10):
        ups = [await receive(path.peer) for _ in payloads]
        downs = [await receive(path.client) for _ in payloads]
    # Packets that are marked otherwise may overtake each other.
    assert {up.data: up.traffic_class for up in ups} == {p: VALUES[at // 2 % 3] for at, p in enumerate(payloads)}
    assert {read_from_relay(down.data)[1]: down.traffic_class for down in downs} == {
        p: VALUES[at % 3] for at, p in enumerate(payloads)
    }


async def test_trains_keep_their_mark(path: Path) -> None:
    for value in VALUES:
        mark(path.client, value)
        frames = [channel_data(CHANNEL, payload) for payload in numbered(8, 100)]
        segment = struct.pack("=H", len(frames[0]))
        path.client.socket.sendmsg([b"".join(frames)], [(_SOL_UDP, _UDP_SEGMENT, segment)], 0, path.server)
        async with asyncio.timeout(10):
            assert {(await receive(path.peer)).traffic_class for _ in frames} == {value}


async def test_the_hop_limit_begins_anew(path: Path) -> None:
    if path.family is Family.IPV4:
        path.client.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 3)
    else:
        path.client.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 3)
    path.client.socket.sendto(channel_data(CHANNEL, b"abc"), path.server)
    async with asyncio.timeout(10):
        assert (await receive(path.peer)).hop_limit == DEFAULT_TTL


@pytest.fixture
def host() -> str:
    """An address of this host that others are not likely to use."""
    return private_loopback()


@pytest.fixture
def headers(host: str) -> Iterator[socket.socket]:
    """Whole IPv4 packets of UDP that come to this address."""
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    with raw:
        raw.bind((host, 0))
        raw.settimeout(10)
        yield raw


async def test_ipv4_packets_carry_df_when_asked_to(make_world: WorldFactory, headers: socket.socket, host: str) -> None:
    world = make_world()
    client, peer = world.endpoint(host), world.endpoint(host)
    number, opened = world.open(FiveTuple(Transport.UDP, client.address, world.listeners[Family.IPV4]), (Family.IPV4,))
    world.pump.permit(number, host, now(60))
    asked = [False, True, False, True, True]
    for at, df in enumerate(asked):
        message = send_indication(peer.address, bytes([at]))
        client.send((message.add(DONT_FRAGMENT, True) if df else message).encode(), world.listeners[Family.IPV4])
        await world.settled()
    peer.send(b"down", opened.addresses[0])
    await world.settled()
    packets = [headers.recv(65_536) for _ in [*asked, "down"]]
    assert [is_df(packet) for packet in packets] == [*asked, False]


def is_df(packet: bytes) -> bool:
    return bool(packet[6] & 0x40)
