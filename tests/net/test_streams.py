"""TCP and TLS as clients meet them, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of
from turnsvr import relay
from turnsvr.app.application import Application
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.compiled import tls as pump_tls
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address
from turnsvr.stun.framing import StreamSplitter, unpack_channel_data
from turnsvr.stun.message import Class, Message, Method

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=["plain on tcp", "plain on tls", "TLS on tcp", "TLS on tls"])
def way(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """A listener, and whether to speak TLS to it: both work on both."""
    speech, _, listener = request.param.partition(" on ")
    return listener, speech == "TLS"


@pytest.fixture(params=["portable", "compiled", "compiled, but for TLS"])
def serve(serve: Serve, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A server with each pump: the compiled one takes over connections, the portable one leaves them to asyncio.

    So does the compiled one with TLS where OpenSSL is out of its reach.
    """
    kind, _, but = request.param.partition(", ")
    if kind == "compiled" and relay.describe().startswith("portable"):
        if os.environ.get("TURNSVR_REQUIRE_PUMP") == "1":
            pytest.fail(relay.describe())
        pytest.skip(relay.describe())
    if but:
        monkeypatch.setattr(pump_tls, "missing", lambda: "OpenSSL is out of reach")
    elif kind == "compiled":
        assert not pump_tls.missing()
    return partial(serve, pump={"kind": kind})


def insecure(minimum: ssl.TLSVersion | None = None, maximum: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if minimum is not None:
        context.minimum_version = minimum
    if maximum is not None:
        context.maximum_version = maximum
    return context


def binding() -> bytes:
    return Message(Method.BINDING, Class.REQUEST, secrets.token_bytes(12)).encode()


async def connect(address: Address, tls: ssl.SSLContext | None = None) -> Streams:
    return await asyncio.wait_for(asyncio.open_connection(*address, ssl=tls), PATIENCE)


async def hang_up(streams: Streams) -> None:
    streams[1].transport.abort()
    await asyncio.sleep(0)


async def read_message(reader: asyncio.StreamReader) -> Message:
    header = await asyncio.wait_for(reader.readexactly(20), PATIENCE)
    return Message.parse(header + await reader.readexactly(int.from_bytes(header[2:4], "big")))


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection without another byte."""
    try:
        return await asyncio.wait_for(reader.read(1), PATIENCE) == b""
    except ConnectionError:
        return True


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(round(PATIENCE / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("waited in vain")


async def allocated(address: Address, tls: ssl.SSLContext | None = None) -> TurnClient:
    client = TurnClient(await StreamLink.open(address, tls=tls), Login(USER, PASSWORD))
    await client.allocate()
    return client


async def test_plain_and_tls_are_served_on_every_stream_listener(serve: Serve, way: tuple[str, bool]) -> None:
    listener, tls = way
    application = await serve()
    streams = await connect(address_of(application, listener), insecure() if tls else None)
    streams[1].write(binding())
    answer = await read_message(streams[0])
    assert answer.get(a.XOR_MAPPED_ADDRESS) == streams[1].get_extra_info("sockname")
    await hang_up(streams)


@pytest.mark.parametrize("behind_balancer", [False, True])
async def test_a_tls_listener_may_take_tls_alone(
    serve: Serve, certificate: TlsFiles, way: tuple[str, bool], behind_balancer: bool
) -> None:
    """It turns away who speaks in the open; the listener for TCP takes both as ever. A reload changes that."""
    listener, tls = way
    files = {"certificate": certificate.certificate, "key": certificate.key}
    sections: dict[str, Any] = {"proxy": {"trusted": "127.0.0.1"}} if behind_balancer else {}
    application = await serve(tls=files | {"only": True}, **sections)

    async def is_served() -> bool:
        reader, writer = await asyncio.open_connection(*address_of(application, listener))
        if behind_balancer:
            writer.write(b"PROXY TCP4 192.0.2.9 127.0.0.1 4000 3478\r\n")
        if tls:
            await writer.start_tls(insecure())
        writer.write(binding())
        try:
            return a.XOR_MAPPED_ADDRESS in await read_message(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        finally:
            await hang_up((reader, writer))

    assert await is_served() is (tls or listener == "tcp")
    assert application.settings.tls is not None
    changed = application.settings.tls.model_copy(update={"only": False})
    assert application.reload(application.settings.model_copy(update={"tls": changed})) == []
    assert await is_served()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_versions(serve: Serve, version: ssl.TLSVersion) -> None:
    application = await serve()
    streams = await connect(address_of(application, "tls"), insecure(version, version))
    assert streams[1].get_extra_info("ssl_object").version() == version.name.replace("_", ".")
    await hang_up(streams)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_tls_1_1_is_refused(serve: Serve) -> None:
    application = await serve()
    context = insecure(ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(address_of(application, "tls"), context)
    await until(lambda: application.connections == 0)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["stun.turn"], "stun.turn"), (["stun.nat-discovery"], "stun.nat-discovery"), (["h2"], None), ([], None)],
)
async def test_alpn(serve: Serve, offered: list[str], chosen: str | None) -> None:
    application = await serve()
    context = insecure()
    if offered:
        context.set_alpn_protocols(offered)
    streams = await connect(address_of(application, "tls"), context)
    assert streams[1].get_extra_info("ssl_object").selected_alpn_protocol() == chosen
    await hang_up(streams)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_stream_may_come_byte_by_byte(serve: Serve, tls: bool) -> None:
    application = await serve()
    streams = await connect(address_of(application, "tcp"), insecure() if tls else None)
    for byte in binding() + binding()[:7]:
        streams[1].write(bytes((byte,)))
        await streams[1].drain()
        await asyncio.sleep(0)
    assert (await read_message(streams[0])).message_class is Class.SUCCESS
    await hang_up(streams)


async def test_many_requests_in_one_write_are_all_answered_in_order(serve: Serve) -> None:
    application = await serve()
    streams = await connect(address_of(application, "tcp"))
    requests = [binding() for _ in range(50)]
    streams[1].write(b"".join(requests))
    answers = [await read_message(streams[0]) for _ in requests]
    assert [answer.transaction_id for answer in answers] == [request[8:20] for request in requests]
    await hang_up(streams)


class RawTls:
    """TLS over a plain connection, by hand: for what is told by segments and records."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = insecure().wrap_bio(self._incoming, self._outgoing)

    async def shake_hands(self) -> None:
        while self.tls.version() is None or self._outgoing.pending:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            self.flush()
            if self.tls.version() is None:
                await self.fill()

    def flush(self) -> None:
        """Send all records that were written, in one segment."""
        self.streams[1].write(self._outgoing.read())

    async def fill(self) -> None:
        data = await asyncio.wait_for(self.streams[0].read(65_536), PATIENCE)
        assert data, "the server has closed the connection"
        self._incoming.write(data)

    async def record(self) -> bytes:
        """The contents of one record: no read of TLS joins two."""
        while True:
            try:
                return self.tls.read(65_536)
            except ssl.SSLWantReadError:
                await self.fill()


async def test_what_came_along_with_the_end_of_tls_is_answered(serve: Serve) -> None:
    """A request and the close_notify behind it, in one segment."""
    application = await serve()
    raw = RawTls(await connect(address_of(application, "tls")))
    await raw.shake_hands()
    raw.tls.write(binding())
    with contextlib.suppress(ssl.SSLWantReadError):
        raw.tls.unwrap()
    raw.flush()
    assert Message.parse(await raw.record()).message_class is Class.SUCCESS
    await hang_up(raw.streams)


async def test_each_frame_is_a_tls_record_of_its_own(serve: Serve) -> None:
    """Also of frames that leave together: coturn's client takes what a read of TLS brings for one message."""
    application = await serve()
    raw = RawTls(await connect(address_of(application, "tls")))
    await raw.shake_hands()
    requests = [binding() for _ in range(50)]
    raw.tls.write(b"".join(requests))
    raw.flush()
    answers = [Message.parse(await raw.record()) for _ in requests]
    assert [answer.transaction_id for answer in answers] == [request[8:20] for request in requests]
    await hang_up(raw.streams)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"\x80\x00", id="neither"),
        pytest.param(b"\x00\x01\x00\x03" + bytes(40), id="length not a multiple of four"),
        pytest.param(b"\x00\x01\x00\x00" + bytes(16), id="no magic cookie"),
    ],
)
async def test_a_broken_frame_closes_the_connection(serve: Serve, first: bytes) -> None:
    application = await serve(limits={"idle_timeout": 2.0})
    streams = await connect(address_of(application, "tcp"))
    streams[1].write(first)
    assert await ends(streams[0])
    await hang_up(streams)


async def test_a_tls_hello_without_a_certificate_closes(serve: Serve) -> None:
    application = await serve(listen=["tcp://127.0.0.1:0"], tls=None)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(address_of(application, "tcp"), insecure())


@pytest.mark.parametrize(
    "spoken",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00", id="one byte"),
        pytest.param(b"\x16\x03\x01", id="the beginning of TLS"),
        pytest.param(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12), id="a Binding request"),
    ],
)
async def test_a_connection_without_an_allocation_is_dropped(serve: Serve, spoken: bytes) -> None:
    application = await serve(limits={"idle_timeout": 1.0})
    streams = await connect(address_of(application, "tls"))
    streams[1].write(spoken)
    if len(spoken) == 20:
        await read_message(streams[0])
    assert await ends(streams[0])
    assert application.connections == 0
    await hang_up(streams)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_with_an_allocation_stays_and_goes_after_it(serve: Serve, tls: bool) -> None:
    application = await serve(limits={"idle_timeout": 1.0})
    client = await allocated(address_of(application, "tcp"), insecure() if tls else None)
    await asyncio.sleep(2.5)
    assert application.connections == 1
    await client.refresh(0)
    await asyncio.wait_for(client.link.closed, PATIENCE)
    assert application.connections == 0


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("abrupt", [False, True])
async def test_the_end_of_a_connection_ends_its_allocation(serve: Serve, tls: bool, abrupt: bool) -> None:
    application = await serve()
    client = await allocated(address_of(application, "tcp"), insecure() if tls else None)
    assert len(application.server) == 1
    assert isinstance(client.link, StreamLink)
    if abrupt:
        client.link.abort()
    else:
        await client.link.close()
    await until(lambda: len(application.server) == 0 and application.connections == 0)


class Peer(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)

    @property
    def address(self) -> Address:
        return Address(*self.transport.get_extra_info("sockname"))

    @classmethod
    async def start(cls) -> Peer:
        _, peer = await asyncio.get_running_loop().create_datagram_endpoint(cls, local_addr=("127.0.0.1", 0))
        return peer


@pytest.mark.parametrize("tls", [False, True])
async def test_data_goes_both_ways_by_channel_and_by_indication(serve: Serve, tls: bool) -> None:
    application = await serve()
    peer = await Peer.start()
    client = await allocated(address_of(application, "tls"), insecure() if tls else None)
    await client.permit(peer.address)
    for size in (1, 3, 4, 5, 1400, 9000):
        client.send(peer.address, bytes(size))
        got = await asyncio.wait_for(client.receive(), PATIENCE)
        assert got == PeerData(peer.address, bytes(size))
    channel = await client.bind_channel(peer.address)
    for size in (1, 3, 4, 5, 1400, 9000):
        client.send_channel(channel, bytes(size))
        assert await asyncio.wait_for(client.receive(), PATIENCE) == PeerData(peer.address, bytes(size), channel)
    await client.close()
    peer.transport.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_slow_reader_loses_whole_frames_only(serve: Serve, tls: bool) -> None:
    """Its buffers are filled until frames are dropped; then everything that it reads is a whole frame."""
    application = await serve(limits={"stream_buffer": 32_768})
    peer = await Peer.start()
    client = await allocated(address_of(application, "tcp"), insecure() if tls else None)
    channel = await client.bind_channel(peer.address)
    link = client.link
    assert isinstance(link, StreamLink)
    link._socket.pause_reading()
    sent = 0
    while dropped(application) == 0:
        assert sent < 20_000, "nothing is ever dropped: the buffer has no bound"
        for _ in range(20):
            peer.transport.sendto(sent.to_bytes(4, "big") * 250, client.relayed[0])
            sent += 1
        await asyncio.sleep(0.005)
    in_pump = application.pump.takes_tls if tls else application.pump.name == "compiled"
    assert application.rooms.streams.lagging == (0 if in_pump else 1)
    got: list[int] = []

    def take(data: bytes) -> None:
        for frame in splitter.feed(data):
            number, payload = unpack_channel_data(frame)
            assert number == channel
            assert payload == payload[:4] * 250
            got.append(int.from_bytes(payload[:4], "big"))

    splitter = StreamSplitter()
    link.data_received = take  # type: ignore[method-assign]
    link._socket.resume_reading()
    await until(lambda: len(got) >= sent - dropped(application))
    assert got == sorted(set(got))
    assert splitter.pending == 0
    assert len(got) == sent - dropped(application)
    await until(lambda: application.rooms.streams.lagging == 0)
    link.abort()
    peer.transport.close()


def dropped(application: Application) -> int:
    return sum(application.pump.totals().drops.values())
