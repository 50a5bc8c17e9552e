"""One port for TURN and HTTP: what comes first decides, in the open and inside TLS, and nobody loses a byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.conftest import PATIENCE, Serve, accepting, address_of, free_port
from tests.net.test_proxied import CLIENT, HERE, version_2
from tests.net.test_streams import (
    Peer,
    Streams,
    allocated,
    binding,
    connect,
    ends,
    hang_up,
    insecure,
    read_message,
    until,
)
from tests.net.test_streams import serve as serve  # noqa: PLC0414 - with each pump
from turnsvr.app.application import Application
from turnsvr.client.turn import PeerData
from turnsvr.config.settings import ShareSettings
from turnsvr.net import splice
from turnsvr.net.arrival import BAD_REQUEST
from turnsvr.net.proxyheader import HeaderReader
from turnsvr.net.splice import BAD_GATEWAY
from turnsvr.stun.message import Class

__all__ = ["serve"]

WEB: dict[str, Any] = {"share": "web", "web": {"listen": "http://127.0.0.1:0", "page": True}}


def request(path: str = "/healthz", method: str = "GET", body: bytes = b"", close: bool = True) -> bytes:
    fields = f"Host: x\r\nContent-Length: {len(body)}\r\n" + ("Connection: close\r\n" if close else "")
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + body


async def everything(reader: asyncio.StreamReader) -> bytes:
    got = b""
    async with asyncio.timeout(PATIENCE):
        try:
            while data := await reader.read(65_536):
                got += data
        except OSError:
            pass
    return got


@pytest.fixture(params=["plain", "TLS", "TLS with ALPN"])
def speech(request: pytest.FixtureRequest) -> tuple[str, Callable[[], ssl.SSLContext] | None]:
    """A listener, and what TLS context to speak to it with."""

    def context() -> ssl.SSLContext:
        made = insecure()
        if request.param == "TLS with ALPN":
            made.set_alpn_protocols(["h2", "http/1.1"])
        return made

    return ("tcp", None) if request.param == "plain" else ("tls", context)


Speech = tuple[str, Callable[[], ssl.SSLContext] | None]


async def reach(application: Application, speech: Speech) -> Streams:
    listener, context = speech
    return await connect(address_of(application, listener), context() if context else None)


@contextlib.asynccontextmanager
async def backend(
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", *, always: bool = False
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that notes what each client says, answers once or always, and closes when the client does."""
    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(b"")
        number = len(told) - 1
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if always or not told[number]:
                    writer.write(answer)
                told[number] += data

    async with accepting(serve) as port:
        yield port, told


async def test_our_own_pages_and_stun_on_one_port(serve: Serve, speech: Speech) -> None:
    application = await serve(**WEB)
    page = await reach(application, speech)
    page[1].write(request())
    assert (await everything(page[0])).startswith(b"HTTP/1.1 200 OK\r\n")
    client = await connect(address_of(application, speech[0]), insecure() if speech[1] else None)
    client[1].write(binding())
    assert (await read_message(client[0])).message_class is Class.SUCCESS
    for each in (page, client):
        await hang_up(each)
    await until(lambda: application.connections == 0)


async def test_a_session_lives_beside_requests(serve: Serve) -> None:
    """The relay's client is adopted where the pump can, and stays whatever HTTP does."""
    application = await serve(**WEB)
    address = address_of(application, "tls")
    client = await allocated(address, insecure())
    for _ in range(5):
        page = await connect(address, insecure())
        page[1].write(request("/"))
        assert (await everything(page[0])).startswith(b"HTTP/1.1 200 OK\r\n")
        await hang_up(page)
    assert (await client.binding()).message.message_class is Class.SUCCESS
    session = next(application.server.allocations())
    assert application.rooms.streams.is_adopted(session.five_tuple) is (
        application.rooms.streams.pump_context is not None
    )
    await client.close()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "http/1.1"),
        (["stun.turn"], "stun.turn"),
        (["http/1.1", "stun.turn"], "stun.turn"),
        (["h2"], None),
        ([], None),
    ],
)
async def test_alpn(serve: Serve, offered: list[str], chosen: str | None) -> None:
    application = await serve(**WEB)
    context = insecure()
    if offered:
        context.set_alpn_protocols(offered)
    streams = await connect(address_of(application, "tls"), context)
    assert streams[1].get_extra_info("ssl_object").selected_alpn_protocol() == chosen
    await hang_up(streams)


async def test_who_chooses_turn_gets_no_http(serve: Serve) -> None:
    application = await serve(**WEB)
    context = insecure()
    context.set_alpn_protocols(["stun.turn"])
    streams = await connect(address_of(application, "tls"), context)
    streams[1].write(request())
    assert await everything(streams[0]) == BAD_REQUEST
    await hang_up(streams)


async def test_who_chooses_http_may_use_any_method(serve: Serve) -> None:
    """And gets no TURN: what it says is the server's to judge."""
    async with backend() as (port, told):
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        context = insecure()
        context.set_alpn_protocols(["http/1.1"])
        for said in (b"X" * 3, binding()):
            streams = await connect(address_of(application, "tls"), context)
            streams[1].write(said)
            await until(lambda said=said: told[-1:] == [said])  # type: ignore[misc]
            await hang_up(streams)


async def test_http2_is_offered_for_a_backend_that_speaks_it(serve: Serve) -> None:
    async with backend() as (port, told):
        application = await serve(share={"http": f"tcp://127.0.0.1:{port}", "http2": True})
        context = insecure()
        context.set_alpn_protocols(["h2", "http/1.1"])
        streams = await connect(address_of(application, "tls"), context)
        assert streams[1].get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        streams[1].write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await until(lambda: told == [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
        await hang_up(streams)


async def test_who_does_not_share_refuses_http(serve: Serve) -> None:
    application = await serve(share={"http": "web", "listen": ["tls://127.0.0.1:0"]}, web=WEB["web"])
    plain = await connect(address_of(application, "tcp"))
    plain[1].write(request())
    assert await everything(plain[0]) == BAD_REQUEST
    await hang_up(plain)


async def test_plain_http_on_a_tls_listener_is_refused(serve: Serve) -> None:
    application = await serve(**WEB)
    plain = await connect(address_of(application, "tls"))
    plain[1].write(request())
    assert await everything(plain[0]) == BAD_REQUEST
    await hang_up(plain)


HOSTILE = {
    "nothing": b"",
    "ChannelData of an odd number": b"\x7f\xfe\xff\xff",
    "zero bytes": bytes(40),
    "a TLS record inside": b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    "version 2 of PROXY": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + request(),
    "version 1 of PROXY": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + request(),
    "high bytes": b"\xff\xfe\xfd",
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_what_is_neither_reaches_no_backend(serve: Serve, tls: bool, said: bytes) -> None:
    async with backend() as (port, told):
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        streams = await connect(address_of(application, "tls" if tls else "tcp"), insecure() if tls else None)
        streams[1].write(said)
        if not said:
            streams[1].close()
        assert (await everything(streams[0]))[:1] in (b"", b"\x15")  # nothing, or TLS's alert
        assert told == []
        await hang_up(streams)
        await until(lambda: application.connections == 0)


@pytest.mark.parametrize("step", [1, 7])
async def test_stun_and_http_split_over_segments(serve: Serve, speech: Speech, step: int) -> None:
    async with backend() as (port, told):
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        stun = await connect(address_of(application, speech[0]), insecure() if speech[1] else None)
        said = binding()
        for at in range(0, len(said), step):
            stun[1].write(said[at : at + step])
            await asyncio.sleep(0.002)
        assert (await read_message(stun[0])).message_class is Class.SUCCESS
        await hang_up(stun)
        http = await reach(application, speech)
        said = request("/a/path")
        for at in range(0, len(said), step):
            http[1].write(said[at : at + step])
            await asyncio.sleep(0.002)
        await until(lambda: told == [said])
        await hang_up(http)


async def test_a_backend_gets_every_byte_and_its_answer_comes_whole(serve: Serve, speech: Speech) -> None:
    """Large both ways: more than any buffer has."""
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(range(256)) * 16_384
    async with backend(answer) as (port, told):
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        streams = await reach(application, speech)
        said = request("/upload", "POST", bytes(range(255)) * 16_384)
        streams[1].write(said)
        assert await asyncio.wait_for(streams[0].readexactly(len(answer)), PATIENCE) == answer
        await until(lambda: len(told[0]) == len(said))
        assert told == [said]
        await hang_up(streams)
        await until(lambda: len(application.rooms.streams.splices) == 0)


async def test_a_backend_is_told_the_client(serve: Serve, speech: Speech) -> None:
    """With the client's address from a balancer, through PROXY to PROXY."""
    async with backend() as (port, told):
        application = await serve(share=f"proxy+tcp://127.0.0.1:{port}", proxy=HERE)
        listener, context = speech
        streams = await connect(address_of(application, listener))
        streams[1].write(version_2(CLIENT))
        if context:
            await asyncio.wait_for(streams[1].start_tls(context()), PATIENCE)
        streams[1].write(request())
        await until(lambda: bool(told) and told[0].endswith(request()))
        header = HeaderReader()
        assert header.feed(told[0]) == len(told[0]) - len(request())
        assert header.client == CLIENT
        await hang_up(streams)


async def test_a_backend_on_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    path = tmp_path / "app.sock"
    async with await asyncio.start_unix_server(answer, path):
        application = await serve(share=f"unix:{path}")
        streams = await connect(address_of(application, "tls"), insecure())
        streams[1].write(request())
        assert await everything(streams[0]) == b"HTTP/1.1 204 No Content\r\n\r\n"
        await hang_up(streams)
        await until(lambda: len(application.rooms.streams.splices) == 0)


async def test_a_backend_that_is_down(serve: Serve, speech: Speech) -> None:
    """Clients are told so, also in the middle of a large request, and the log once."""
    port = free_port()
    application = await serve(share=f"tcp://127.0.0.1:{port}")
    with capture_logs() as logs:
        for said in (request(), request("/upload", "POST", bytes(300_000)), request()):
            streams = await reach(application, speech)
            streams[1].write(said)
            assert await everything(streams[0]) == BAD_GATEWAY
            await hang_up(streams)
    lines = [entry for entry in logs if entry["event"] == "another server cannot be reached"]
    assert [entry["server"] for entry in lines] == [f"127.0.0.1:{port}"]
    await until(lambda: len(application.rooms.streams.splices) == 0)


@contextlib.contextmanager
def busy_backend(address: str | tuple[str, int]) -> Iterator[socket.socket]:
    """A server whose queue of connections is full, in which one waits."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as listener, contextlib.ExitStack() as waiting:
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(0)
        for _ in range(3):
            filling = waiting.enter_context(socket.socket(family))
            filling.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filling.connect(listener.getsockname())
        yield listener


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_backend_that_takes_no_connection(
    serve: Serve, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splice, "CONNECT_SECONDS", 0.3)
    path = str(tmp_path / "app.sock")
    with busy_backend(path if kind == "unix" else ("127.0.0.1", 0)) as listener:
        share = f"unix:{path}" if kind == "unix" else f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        application = await serve(share=share)
        with capture_logs() as logs:
            streams = await connect(address_of(application, "tcp"))
            streams[1].write(request())
            assert await everything(streams[0]) == BAD_GATEWAY
            await hang_up(streams)
        (line,) = [entry for entry in logs if entry["event"] == "another server cannot be reached"]
        assert line["reason"] == "it does not answer"
        await until(lambda: len(application.rooms.streams.splices) == 0)


async def test_a_busy_backend_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    path, loop = str(tmp_path / "app.sock"), asyncio.get_running_loop()
    with busy_backend(path) as listener:
        application = await serve(share=f"unix:{path}")
        streams = await connect(address_of(application, "tcp"))
        streams[1].write(request())
        await until(lambda: len(application.rooms.streams.splices) == 1)
        said = b""
        while said != request():  # who filled the queue says nothing
            accepted, _ = await asyncio.wait_for(loop.sock_accept(listener), PATIENCE)
            with accepted, contextlib.suppress(TimeoutError):
                said = await asyncio.wait_for(loop.sock_recv(accepted, 65_536), 0.3)
                await loop.sock_sendall(accepted, b"at last")
        assert await everything(streams[0]) == b"at last"
        await hang_up(streams)
        await until(lambda: len(application.rooms.streams.splices) == 0)


async def test_a_backend_that_reads_slowly_holds_the_client_back(serve: Serve, speech: Speech) -> None:
    """Little of an upload waits here, and all of it arrives."""
    sent, got = 0, 0
    reads = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        await reads.wait()
        transport.resume_reading()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 20):
                got += len(data)

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(start := request("/upload", "POST", b""))
        sent += len(start)
        while not reads.is_set():
            writer.write(bytes(65_536))
            sent += 65_536
            await writer.drain()

    async with accepting(take) as port:
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        streams = await reach(application, speech)
        pouring = asyncio.create_task(pour(streams[1]))
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 32 * 1024 * 1024  # what the system's buffers of four sockets take
        reads.set()
        await asyncio.wait_for(pouring, PATIENCE)
        await until(lambda: got == sent)
        await hang_up(streams)
        await until(lambda: len(application.rooms.streams.splices) == 0)


async def test_our_own_pages_are_no_http2(serve: Serve) -> None:
    """Who begins with it, unasked, is answered as one who asks for nothing that is there."""
    application = await serve(**WEB)
    streams = await connect(address_of(application, "tcp"))
    streams[1].write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (await everything(streams[0])).startswith(b"HTTP/1.1 404 ")
    await hang_up(streams)


async def test_one_end_may_close_before_the_other(serve: Serve) -> None:
    """In the open; inside TLS the end of one way ends both."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.write(b"after the end: " + said)

    async with accepting(answer) as port:
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        streams = await connect(address_of(application, "tcp"))
        streams[1].write(b"GET me")
        streams[1].write_eof()
        assert await everything(streams[0]) == b"after the end: GET me"
        await hang_up(streams)
        await until(lambda: len(application.rooms.streams.splices) == 0)


async def test_who_reads_slowly_holds_the_backend_back(serve: Serve, speech: Speech) -> None:
    """Little of what it sends waits here."""
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
                sent += 65_536

    async with accepting(pour) as port:
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        streams = await reach(application, speech)
        transport = streams[1].transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        streams[1].write(request())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 32 * 1024 * 1024  # what the system's buffers of four sockets take
        await hang_up(streams)
        await until(lambda: len(application.rooms.streams.splices) == 0)


async def test_what_carries_nothing_ends(serve: Serve, speech: Speech) -> None:
    async with backend() as (port, _):
        application = await serve(share={"http": f"tcp://127.0.0.1:{port}", "idle_timeout": 1})
        streams = await reach(application, speech)
        streams[1].write(request(close=False))
        await asyncio.wait_for(streams[0].readuntil(b"hi"), PATIENCE)
        assert await ends(streams[0])
        await hang_up(streams)
        assert len(application.rooms.streams.splices) == 0


async def test_a_client_has_its_share_of_a_backend(serve: Serve, speech: Speech) -> None:
    async with backend() as (port, _):
        share = {"http": f"tcp://127.0.0.1:{port}", "connections_per_address": 3}
        application = await serve(share=share)
        clients = []
        for number in range(5):
            clients.append(await reach(application, speech))
            clients[-1][1].write(request(f"/{number}", close=False))
            await asyncio.wait_for(clients[-1][0].readuntil(b"hi"), PATIENCE)
        await until(lambda: clients[0][0].at_eof() and clients[1][0].at_eof())
        assert len(application.rooms.streams.splices) == 3
        for each in clients:
            await hang_up(each)


async def test_stop_does_not_wait_for_backends(serve: Serve, speech: Speech) -> None:
    async with backend() as (port, told):
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        streams = [await reach(application, speech) for _ in range(5)]
        for each in streams:
            each[1].write(request(close=False))
        await until(lambda: len(told) == 5)
        async with asyncio.timeout(2):
            await application.stop()
        for each in streams:
            await hang_up(each)


async def test_a_reload_changes_who_serves_http(serve: Serve) -> None:
    async with backend() as (port, told):
        application = await serve(web=WEB["web"])
        settings = application.settings

        async def answer() -> bytes:
            streams = await connect(address_of(application, "tls"), insecure())
            streams[1].write(request("/docs"))
            got = await asyncio.wait_for(streams[0].readuntil(b"\r\n"), PATIENCE)
            await hang_up(streams)
            return got

        assert b"400" in await answer()
        for share, wanted in (("web", b"200 OK"), (f"tcp://127.0.0.1:{port}", b"200 OK"), (None, b"400")):
            made = None if share is None else ShareSettings.model_validate(share)
            assert application.reload(settings.model_copy(update={"share": made})) == []
            assert wanted in await answer()
        assert len(told) == 1


async def test_limits_of_strangers_hold_before_anything_is_said(serve: Serve) -> None:
    application = await serve(**WEB, limits={"connections_per_address": 3, "idle_timeout": "1s"})
    silent = [await connect(address_of(application, "tls"), insecure()) for _ in range(5)]
    assert application.rooms.streams.evicted == 2
    for each in silent:
        assert await ends(each[0])
        await hang_up(each)


async def test_our_own_limits_of_http_hold_on_the_shared_port(serve: Serve, speech: Speech) -> None:
    application = await serve(share="web", web={"listen": "http://127.0.0.1:0", "connections_per_address": 3})
    held = []
    for _ in range(5):
        held.append(await reach(application, speech))
        held[-1][1].write(b"GET /healthz HTTP/1.1\r\nHost: ")
        await asyncio.sleep(0.05)
    await until(lambda: held[0][0].at_eof() and held[1][0].at_eof())
    assert not any(reader.at_eof() for reader, _ in held[2:])
    for each in held:
        await hang_up(each)


async def test_a_call_beside_many_downloads(serve: Serve) -> None:
    """Of what a client sends to its peer on the same port, all comes back, with or without the pump."""
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n" + bytes(4 * 1024 * 1024)
    async with backend(body) as (port, _):
        application = await serve(share=f"tcp://127.0.0.1:{port}")
        address = address_of(application, "tls")
        peer = await Peer.start()
        client = await allocated(address, insecure())
        channel = await client.bind_channel(peer.address)

        async def download() -> int:
            streams = await connect(address, insecure())
            streams[1].write(request("/large", close=False))
            got = await asyncio.wait_for(streams[0].readexactly(len(body)), 2 * PATIENCE)
            await hang_up(streams)
            return len(got)

        downloads = asyncio.gather(*(download() for _ in range(8)))
        for number in range(100):
            client.send_channel(channel, number.to_bytes(2, "big") * 100)
            answer = await asyncio.wait_for(client.receive(), PATIENCE)
            assert answer == PeerData(peer.address, number.to_bytes(2, "big") * 100, channel)
        assert await downloads == [len(body)] * 8
        await client.close()
        peer.transport.close()


async def test_a_page_beside_silent_connections(serve: Serve) -> None:
    """Strangers that hold all that one address may, in handshakes and without a word, keep no other from the page."""
    application = await serve(**WEB, limits={"connections": 30, "connections_per_address": 30})
    address = address_of(application, "tls")
    silent = [await connect(address) for _ in range(60)]
    for _, writer in silent:
        writer.write(b"\x16\x03\x01")
    page = await connect(address, insecure())
    page[1].write(request())
    assert (await everything(page[0])).startswith(b"HTTP/1.1 200 OK")
    for each in (*silent, page):
        await hang_up(each)
