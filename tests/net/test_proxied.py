"""Listeners behind a balancer: whose headers are believed, and that the client's address in them counts everywhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of
from tests.net.test_streams import Streams, binding, connect, ends, hang_up, insecure, read_message, until, way
from tests.net.test_streams import serve as serve  # noqa: PLC0414 - with each pump
from turnsvr.app.application import Application
from turnsvr.app.sessionlog import SessionLog
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink
from turnsvr.client.transaction import Timers
from turnsvr.client.turn import TurnClient
from turnsvr.config.settings import ProxySettings
from turnsvr.net import proxied
from turnsvr.net.proxyheader import HeaderRefusal, write_header
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Transport

__all__ = ["serve", "way"]

HERE = {"trusted": "127.0.0.1"}
CLIENT = Address("192.0.2.7", 4711)
CLIENT6 = Address("2001:db8::7", 4711)
SERVER = Address("198.51.100.1", 443)


def version_1(client: Address) -> bytes:
    server = "2001:db8::1" if ":" in client.host else "198.51.100.1"
    return f"PROXY TCP{6 if ':' in client.host else 4} {client.host} {server} {client.port} 443\r\n".encode()


def version_2(client: Address) -> bytes:
    return write_header(client, SERVER if "." in client.host else Address("2001:db8::1", 443))


OWN = {"1": b"PROXY UNKNOWN\r\n", "2": b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"}


async def told(application: Application, listener: str, header: bytes, *, tls: bool = False) -> Streams:
    """A connection that a balancer has made, with TLS inside where it is asked for."""
    streams = await connect(address_of(application, listener))
    streams[1].write(header)
    if tls:
        await asyncio.wait_for(streams[1].start_tls(insecure()), PATIENCE)
    return streams


async def link(application: Application, listener: str, header: bytes, *, tls: bool) -> StreamLink:
    """The same for a TURN client."""
    loop = asyncio.get_running_loop()
    made = StreamLink(Transport.TLS if tls else Transport.TCP, Timers())
    transport, _ = await loop.create_connection(asyncio.Protocol, *address_of(application, listener))
    transport.write(header)
    if tls:
        secured = await loop.start_tls(transport, made, insecure())
        assert secured is not None
        transport = secured
    else:
        transport.set_protocol(made)
    made.connection_made(transport)
    return made


async def ask(streams: Streams) -> Address | None:
    streams[1].write(binding())
    return (await read_message(streams[0])).get(a.XOR_MAPPED_ADDRESS)


def refusals(application: Application) -> dict[HeaderRefusal, int]:
    return dict(application.rooms.streams.header_refusals)


@pytest.mark.parametrize("header", [version_1, version_2], ids=["version 1", "version 2"])
@pytest.mark.parametrize("client", [CLIENT, CLIENT6], ids=["IPv4", "IPv6"])
async def test_the_client_in_the_header_is_the_client(
    serve: Serve, way: tuple[str, bool], header: Any, client: Address
) -> None:
    listener, tls = way
    application = await serve(proxy=HERE)
    streams = await told(application, listener, header(client), tls=tls)
    assert await ask(streams) == client
    assert await ask(streams) == client
    await hang_up(streams)
    await until(lambda: application.connections == 0)
    assert refusals(application) == {}


async def test_a_session_is_the_clients(serve: Serve, way: tuple[str, bool]) -> None:
    """Allocate with a nonce that was made for this client; five-tuple, log and lists have its address."""
    listener, tls = way
    application = await serve(proxy=HERE, sinks=(SessionLog(),))
    with capture_logs() as logs:
        client = TurnClient(await link(application, listener, version_2(CLIENT), tls=tls), Login(USER, PASSWORD))
        await client.allocate()
        assert client.mapped == CLIENT
        session = next(application.server.allocations())
        assert session.five_tuple.client == CLIENT
        assert session.five_tuple.transport is (Transport.TLS if tls else Transport.TCP)
        await client.close()
    started = next(entry for entry in logs if entry["event"] == "session started")
    assert started["client"] == str(CLIENT)


@pytest.mark.parametrize("version", ["1", "2"])
async def test_the_balancers_own_connections_have_its_address(
    serve: Serve, way: tuple[str, bool], version: str
) -> None:
    listener, tls = way
    application = await serve(proxy=HERE)
    streams = await told(application, listener, OWN[version], tls=tls)
    assert await ask(streams) == streams[1].get_extra_info("sockname")
    await hang_up(streams)


async def test_others_are_refused_at_once(serve: Serve) -> None:
    application = await serve(proxy={"trusted": "192.0.2.0/24"})
    with capture_logs() as logs:
        streams = await told(application, "tcp", version_2(CLIENT))
        assert await ends(streams[0])
    assert refusals(application) == {HeaderRefusal.UNTRUSTED: 1}
    assert [entry["client"] for entry in logs if entry["event"] == "PROXY header refused"] == ["127.0.0.1"]
    await hang_up(streams)


async def test_a_header_is_no_stun_where_none_is_asked_for(serve: Serve) -> None:
    """A client that writes one cannot say who it is."""
    application = await serve()
    streams = await told(application, "tcp", version_1(CLIENT))
    assert await ends(streams[0])
    await hang_up(streams)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (binding(), HeaderRefusal.MALFORMED),
        (b"\x16\x03\x01\x00\x10", HeaderRefusal.MALFORMED),
        (b"PROXY TCP4 192.0.2.1\r\n", HeaderRefusal.MALFORMED),
        (b"PROXY UNKNOWN " + b"x" * 200, HeaderRefusal.TOO_LONG),
        (OWN["2"][:14] + b"\xff\xff", HeaderRefusal.TOO_LONG),
    ],
    ids=["STUN", "TLS", "half a header", "a long line", "long TLVs"],
)
async def test_what_is_no_header_is_closed_and_counted(serve: Serve, said: bytes, why: HeaderRefusal) -> None:
    application = await serve(proxy=HERE)
    streams = await told(application, "tcp", said)
    assert await ends(streams[0])
    assert refusals(application) == {why: 1}
    await until(lambda: application.connections == 0)
    await hang_up(streams)


@pytest.mark.parametrize("said", [b"", b"PROXY TCP4 1", OWN["2"][:13]], ids=["nothing", "half of 1", "half of 2"])
async def test_a_header_has_a_deadline(serve: Serve, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxied, "HEADER_SECONDS", 0.2)
    application = await serve(proxy=HERE)
    streams = await told(application, "tcp", said)
    assert await ends(streams[0])
    assert refusals(application) == {HeaderRefusal.LATE: 1}
    await until(lambda: application.connections == 0)
    await hang_up(streams)


async def test_a_check_that_says_nothing_is_no_refusal(serve: Serve) -> None:
    """Balancers look whether the port is open, every few seconds."""
    application = await serve(proxy=HERE)
    with capture_logs() as logs:
        for said in (b"", b"PROXY "):
            streams = await told(application, "tcp", said)
            streams[1].close()
            await until(lambda: application.connections == 0)
            assert await ends(streams[0])
    assert refusals(application) == {HeaderRefusal.ENDED: 1}
    assert len([entry for entry in logs if entry["event"] == "PROXY header refused"]) == 1


@pytest.mark.parametrize("header", [version_1(CLIENT), version_2(CLIENT)], ids=["version 1", "version 2"])
@pytest.mark.parametrize("step", [1, 1000], ids=["byte by byte", "in one segment"])
async def test_what_follows_a_header_is_judged(serve: Serve, header: bytes, step: int) -> None:
    """STUN and TLS right behind it, and what is neither."""
    application = await serve(proxy=HERE)
    for behind, answers in ((binding(), True), (b"SSH-2.0-x\r\n", False)):
        streams = await connect(address_of(application, "tcp"))
        said = header + behind
        for at in range(0, len(said), step):
            streams[1].write(said[at : at + step])
            await asyncio.sleep(0.002 if step == 1 else 0)
        if answers:
            assert (await read_message(streams[0])).get(a.XOR_MAPPED_ADDRESS) == CLIENT
        else:
            assert await ends(streams[0])
        await hang_up(streams)


async def test_a_client_has_the_limit_of_its_own_address(serve: Serve, way: tuple[str, bool]) -> None:
    """Not that of the balancer, through which thousands come; one more of a client ends its oldest."""
    listener, tls = way
    application = await serve(proxy=HERE, limits={"connections_per_address": 2})
    others = [await told(application, listener, version_2(Address(f"192.0.2.{100 + n}", 1)), tls=tls) for n in range(9)]
    for other in others:
        assert await ask(other) is not None
    mine = [await told(application, listener, version_1(CLIENT._replace(port=n)), tls=tls) for n in range(1, 4)]
    await until(mine[0][0].at_eof)
    assert application.rooms.streams.evicted == 1
    assert application.connections == 11
    for each in (*others, *mine):
        await hang_up(each)


async def test_two_balancers_may_have_a_client_of_the_same_address(serve: Serve) -> None:
    """It may have connected to two of their addresses from one port."""
    application = await serve(proxy=HERE)
    both = [await told(application, "tcp", version_2(CLIENT)) for _ in range(2)]
    assert [await ask(each) for each in both] == [CLIENT, CLIENT]
    for each in both:
        await hang_up(each)


async def test_what_waits_for_headers_is_bounded_in_total(serve: Serve) -> None:
    application = await serve(proxy=HERE, limits={"connections": 5})
    silent = [await connect(address_of(application, "tcp")) for _ in range(8)]
    await until(lambda: application.rooms.streams.evicted == 3)
    assert application.connections == 5
    for each in silent:
        await hang_up(each)


async def test_a_reload_changes_who_is_asked(serve: Serve) -> None:
    application = await serve()
    settings = application.settings
    direct = await connect(address_of(application, "tcp"))
    proxy = ProxySettings.model_validate(HERE)
    assert application.reload(settings.model_copy(update={"proxy": proxy})) == []
    assert await ask(direct) == direct[1].get_extra_info("sockname")  # who is in stays
    behind = await told(application, "tcp", version_2(CLIENT))
    assert await ask(behind) == CLIENT
    application.reload(settings)
    assert await ask(behind) == CLIENT
    again = await connect(address_of(application, "tcp"))
    assert await ask(again) == again[1].get_extra_info("sockname")
    for each in (direct, behind, again):
        await hang_up(each)


async def test_a_listener_alone(serve: Serve) -> None:
    """tcp:// stands for TLS as well, but not for another listener."""
    application = await serve(proxy={**HERE, "listen": ["tls://127.0.0.1:0"]})
    direct = await connect(address_of(application, "tcp"))
    assert await ask(direct) == direct[1].get_extra_info("sockname")
    behind = await told(application, "tls", version_2(CLIENT), tls=True)
    assert await ask(behind) == CLIENT
    for each in (direct, behind):
        await hang_up(each)


async def test_stop_while_a_header_is_awaited(serve: Serve) -> None:
    application = await serve(proxy=HERE)
    streams = await told(application, "tcp", b"PROXY ")
    await until(lambda: application.connections == 1)
    await application.stop()
    assert await ends(streams[0])
    await hang_up(streams)
