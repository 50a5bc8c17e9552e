"""A media server on the relay's own host: reached where the operator names it, under both names, and never else."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from tests.client.coturn import PASSWORD, USER
from tests.lab.conftest import OURS, turnsvr
from tests.lab.netlab import Node, Site, laboratory, require
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link
from turnsvr.client.transaction import Timers, TransactionFailed
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.stun.address import Address, Family, Transport

LOGIN = Login(USER, PASSWORD)
PATIENCE = 20.0
A_MOMENT = 3.0
"""Seconds in which a change of addresses has reached the server, on a machine that is busy."""
PUBLIC_V6 = "2a0f:7777:ffff::7"
SECOND, SECOND_PUBLIC = "10.77.0.6", "198.18.77.6"
NAMED, CLOSED = 10_001, 11_000
LOCAL = "10.9.0.0/16"


@dataclass(frozen=True)
class Cloud:
    site: Site
    log: Path

    @property
    def host(self) -> Node:
        return self.site.client

    def names(self, family: Family) -> tuple[str, str]:
        """Inner and outer."""
        if family is Family.IPV4:
            return self.site.address, self.site.public
        return self.site.address_v6, PUBLIC_V6


@pytest.fixture(scope="module", params=["portable", "compiled"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    require()
    with ExitStack() as stack:
        lab = stack.enter_context(laboratory())
        site = stack.enter_context(lab.one_to_one())
        site.client.ip(f"addr add {SECOND}/24 dev eth0")
        outside = f"ip daddr {{ {site.public}, {SECOND_PUBLIC} }} counter", f"ip6 daddr {PUBLIC_V6} counter"
        rules = "\n".join(("type filter hook output priority 0;", *outside))
        site.client.nft(f"table inet wire {{\nchain out {{\n{rules}\n}}\n}}")
        directory = tmp_path_factory.mktemp("cloud")
        settings = {
            "listen": [f"udp://{site.address}", f"tcp://{site.address}"],
            "relay": {
                "addresses": [site.address, SECOND, site.address_v6],
                "external": {site.address: site.public, SECOND: SECOND_PUBLIC, site.address_v6: PUBLIC_V6},
            },
            "peers": {
                "allow": [
                    f"{site.address}:10000-10002",
                    f"{SECOND_PUBLIC}:{NAMED}",
                    f"[{site.address_v6}]:{NAMED}",
                    "10.0.0.0/8",
                    "0.0.0.0/0",
                    "::/0",
                ]
            },
            "pump": {"kind": request.param},
        }
        stack.enter_context(turnsvr(site.client, directory, settings))
        yield Cloud(site, directory / "turnsvr.app.log")


class Service(asyncio.DatagramProtocol):
    """Sends everything back, and remembers from whom it was."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append(data)
        self._transport.sendto(data.upper(), addr)


@asynccontextmanager
async def service(port: int, host: str = "::") -> AsyncIterator[Service]:
    """At every address of the namespace that it is opened in, or at one."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, port))
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Service, sock=sock)
    try:
        yield protocol
    finally:
        transport.close()


@asynccontextmanager
async def client_of(
    cloud: Cloud, family: Family = Family.IPV4, transport: Transport = Transport.UDP
) -> AsyncIterator[TurnClient]:
    server = Address(cloud.site.address, OURS.port)
    client = TurnClient(await open_link(transport, server, timers=Timers.within(PATIENCE)), LOGIN)
    await client.allocate(AllocateOptions(family=family))
    try:
        yield client
    finally:
        await client.refresh(0)
        await client.close()


async def answer(client: TurnClient) -> PeerData:
    async with asyncio.timeout(PATIENCE):
        got = await client.receive()
    assert isinstance(got, PeerData)
    return got


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
@pytest.mark.parametrize("family", [Family.IPV4, Family.IPV6])
def test_the_named_port_answers_under_both_names(cloud: Cloud, family: Family, transport: Transport) -> None:
    async def meet() -> None:
        async with service(NAMED) as media, client_of(cloud, family, transport) as client:
            for name in cloud.names(family):
                peer = Address(name, NAMED)
                await client.permit(peer)
                client.send(peer, b"by an indication")
                assert await answer(client) == PeerData(peer, b"BY AN INDICATION")
                channel = await client.bind_channel(peer)
                client.send_channel(channel, b"by a channel")
                got = await answer(client)
                assert (got.peer, got.data, got.channel) == (peer, b"BY A CHANNEL", channel)
            assert len(media.heard) == 4

    cloud.host.run(meet)
    assert cloud.host.output("nft", "list", "ruleset").count("counter packets 0") == 2, "it left on the wire"


@pytest.mark.parametrize("family", [Family.IPV4, Family.IPV6])
def test_other_ports_of_the_host_are_closed(cloud: Cloud, family: Family) -> None:
    async def meet() -> None:
        async with service(CLOSED) as closed, service(NAMED) as media, client_of(cloud, family) as client:
            for name in cloud.names(family):
                await client.permit(Address(name, CLOSED))
                for _ in range(3):
                    client.send(Address(name, CLOSED), b"x")
                with pytest.raises(TransactionFailed, match="403"):
                    await client.bind_channel(Address(name, CLOSED))
                client.send(Address(name, NAMED), b"y")
                await answer(client)
            assert (closed.heard, media.heard) == ([], [b"y", b"y"])

    before = _refused(cloud, CLOSED)
    cloud.host.run(meet)
    # One for the ChannelBind and one for all that was sent, of each name.
    _until(lambda: len(_refused(cloud, CLOSED)) == len(before) + 4)


def test_ranges_open_nothing_of_the_host(cloud: Cloud) -> None:
    async def meet() -> None:
        async with client_of(cloud) as client:
            for host in ("127.0.0.1", "127.0.0.2", "0.0.0.0"):
                with pytest.raises(TransactionFailed, match="403"):
                    await client.permit(Address(host, CLOSED))
            await client.permit(Address("10.123.0.1", CLOSED))

    cloud.host.run(meet)


def test_a_service_at_another_relay_address_is_reached_from_any(cloud: Cloud) -> None:
    async def meet() -> None:
        async with service(NAMED, f"::ffff:{SECOND}"):
            relays = set()
            for _ in range(6):
                async with client_of(cloud) as client:
                    relays.add(client.relayed[0].host)
                    for name in (SECOND, SECOND_PUBLIC):
                        await client.permit(Address(name, NAMED))
                        client.send(Address(name, NAMED), b"x")
                        assert await answer(client) == PeerData(Address(name, NAMED), b"X")
            assert relays, "at least one"

    cloud.host.run(meet)


def test_relays_meet_without_being_named(cloud: Cloud) -> None:
    async def meet() -> None:
        async with client_of(cloud) as one, client_of(cloud, transport=Transport.TCP) as other:
            await one.permit(other.relayed[0])
            await other.permit(one.relayed[0])
            one.send(other.relayed[0], b"hello")
            assert await answer(other) == PeerData(one.relayed[0], b"hello")
            channel = await other.bind_channel(one.relayed[0])
            other.send_channel(channel, b"and back")
            assert await answer(one) == PeerData(other.relayed[0], b"and back")

    cloud.host.run(meet)


def test_a_route_that_delivers_here_closes_what_it_delivers_at_once(cloud: Cloud) -> None:
    """As cloud agents add for load balancers: `ip route add local PREFIX dev lo`."""
    peer = Address("10.9.1.1", NAMED)

    async def meet() -> None:
        async with service(NAMED) as media, client_of(cloud) as client:
            await client.permit(peer)
            cloud.host.ip(f"route add local {LOCAL} dev lo")
            try:
                deadline = time.monotonic() + A_MOMENT
                while (code := await _permitted(client, peer)) == 0:
                    assert time.monotonic() < deadline
                assert code == 403
                client.send(peer, b"x")
                client.send(Address(cloud.site.address, NAMED), b"no permission")
                await client.permit(Address(cloud.site.address, NAMED))
                client.send(Address(cloud.site.address, NAMED), b"after it")
                await answer(client)
                assert media.heard == [b"after it"]
            finally:
                cloud.host.ip(f"route del local {LOCAL} dev lo")
            deadline = time.monotonic() + A_MOMENT
            while await _permitted(client, peer) != 0:
                assert time.monotonic() < deadline

    cloud.host.run(meet)


def test_an_address_that_is_added_is_closed_at_once(cloud: Cloud) -> None:
    peer = Address("10.88.0.1", NAMED)

    async def meet() -> None:
        async with client_of(cloud) as client:
            await client.permit(peer)
            cloud.host.ip(f"addr add {peer.host}/32 dev lo")
            try:
                deadline = time.monotonic() + A_MOMENT
                while await _permitted(client, peer) == 0:
                    assert time.monotonic() < deadline
            finally:
                cloud.host.ip(f"addr del {peer.host}/32 dev lo")

    cloud.host.run(meet)


async def _permitted(client: TurnClient, peer: Address) -> int:
    try:
        await client.permit(peer)
    except TransactionFailed as failed:
        return failed.code
    return 0


def _refused(cloud: Cloud, port: int) -> list[str]:
    lines = cloud.log.read_text().splitlines()
    return [line for line in lines if "peer refused" in line and f"peer_port={port}" in line]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
