"""coturn's status of sessions in Redis: what is said, beside coturn itself, and what happens while Redis is away."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.client.coturn import coturn
from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of
from tests.stores import servers
from turnsvr.app.errors import StartError
from turnsvr.app.snapshot import figures
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link, tls_context
from turnsvr.client.turn import AllocateOptions, TurnClient
from turnsvr.config.locations import StoreUrl
from turnsvr.net.tls import TlsFiles
from turnsvr.stores import status
from turnsvr.stores.status import Names, StatusMessage, StatusWriter
from turnsvr.stun.address import Address, Transport

_DIGITS = re.compile(r"/allocation/\d{18}/")


@pytest.fixture
def redis_server() -> Iterator[servers.RedisServer]:
    """One that a test may end, and start again."""
    server = servers.RedisServer()
    try:
        server.set_up()
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
async def client(redis_server: servers.RedisServer) -> AsyncIterator[Redis]:
    async with Redis(port=redis_server.port, password=servers.PASSWORD, decode_responses=True) as opened:
        yield opened


def url_of(server: servers.RedisServer, password: str = servers.PASSWORD) -> str:
    return f"redis://:{quote(password, safe='')}@127.0.0.1:{server.port}/0"


@asynccontextmanager
async def heard(client: Redis, pattern: str = "turn/*") -> AsyncIterator[list[tuple[str, str]]]:
    """What is published from now on, as it comes: channel and text."""
    found: list[tuple[str, str]] = []

    async def listen() -> None:
        while True:
            message = await watch.get_message(ignore_subscribe_messages=True, timeout=PATIENCE)
            if message is not None:
                found.append((message["channel"], message["data"]))

    watch = client.pubsub()
    await watch.psubscribe(pattern)
    task = asyncio.create_task(listen())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await watch.aclose()  # type: ignore[no-untyped-call]


async def until(look: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await look():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def turn_client(server: Address, transport: Transport = Transport.UDP) -> AsyncIterator[TurnClient]:
    tls = tls_context(insecure=True) if transport is Transport.TLS else None
    opened = TurnClient(await open_link(transport, server, tls=tls), Login(USER, PASSWORD))
    try:
        yield opened
    finally:
        await opened.close()


# Beside coturn


async def one_session(server: Address, transport: Transport, client: Redis) -> list[tuple[str, str]]:
    """What is published of one session in which all things happen; the key is looked at meanwhile."""
    async with heard(client, f"turn/*/user/{USER}/*") as messages, turn_client(server, transport) as turn:
        await turn.allocate(AllocateOptions(lifetime=700))
        await until(lambda: _has(client, "new lifetime=700, "), "the new session")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.setblocking(False)
            address = Address(*peer.getsockname())
            channel = await turn.bind_channel(address)
            for _ in range(20):
                turn.send_channel(channel, b"x" * 100)
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 200), PATIENCE)
            peer.sendto(b"y" * 40, turn.relayed[0])
            await asyncio.wait_for(turn.receive(), PATIENCE)
        await turn.refresh(650)
        await until(lambda: _has(client, "refreshed lifetime=650, "), "the refreshed session")
        await turn.refresh(0)
        await until(lambda: _is_told(messages, "/total_traffic/peer"), "the end")
    assert await client.keys("turn/*") == []
    return messages


async def _has(client: Redis, start: str) -> bool:
    keys = await client.keys("turn/*")
    return len(keys) == 1 and str(await client.get(keys[0])).startswith(start)


async def _is_told(messages: list[tuple[str, str]], end: str) -> bool:
    return any(channel.endswith(end) for channel, _ in messages)


async def _is_logged(lines: list[EventDict], event: str) -> bool:
    return any(line["event"] == event for line in lines)


@dataclass(frozen=True)
class Shape:
    """A message without what differs from server to server and from run to run."""

    channel: str
    text: str


def shape(channel: str, text: str) -> Shape:
    digits, where = _DIGITS.subn("/allocation/…/", channel)[0], re.sub(r"\d+\.\d+\.\d+\.\d+:\d+", "ADDRESS", text)
    where = re.sub(r"(ssl|cipher)=(?!NONE)[^,]+", r"\1=…", where)
    # The client's side has TURN's headers and requests in coturn's counts.
    counts = where if channel.endswith("/peer") else re.sub(r"(rcv|sent)([pb])=\d+", r"\1\2=…", where)
    return Shape(digits, counts)


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP, Transport.TLS])
async def test_a_session_is_told_as_coturn_tells_it(
    serve: Serve,
    transport: Transport,
    redis_server: servers.RedisServer,
    client: Redis,
    certificate: TlsFiles,
    tmp_path: Path,
) -> None:
    statsdb = f"ip=127.0.0.1 dbname=0 password={servers.PASSWORD} port={redis_server.port} connect_timeout=30"
    with coturn(tmp_path, certificate, f"--redis-statsdb={statsdb}") as theirs:
        address = theirs.tls if transport is Transport.TLS else theirs.plain
        expected = [shape(*each) for each in await one_session(address, transport, client)]
    application = await serve(status={"redis": url_of(redis_server), "interval": "1h"})
    told = await one_session(address_of(application, transport.value), transport, client)
    assert [shape(*each) for each in told] == expected
    assert [each.channel.rpartition("…/")[2] for each in expected] == [
        *("status", "status", "status", "traffic", "traffic/peer", "status", "total_traffic", "total_traffic/peer")
    ]
    assert expected[-1].text == "rcvp=1, rcvb=40, sentp=20, sentb=2000"


# Keys


def test_names_that_coturn_takes_are_the_same_here() -> None:
    names = Names(run=7)
    assert names.session("example.org", "1790000000:alice@b.c+d", 3) == (
        "turn/realm/example.org/user/1790000000:alice@b.c+d/allocation/000000007000000003"
    )
    assert "/user/bjørn/" in names.session("north.gov", "bjørn", 1)


@pytest.mark.parametrize(
    "hostile", ["a/user/b", "a b", "a\r\nPUBLISH x y", "a%2Fb", "*", "a\x00", 'a"b', "a\\", "[a]?"]
)
def test_a_hostile_name_stays_one_part_of_its_key(hostile: str) -> None:
    name = Names(run=0).session("r", hostile, 1)
    assert re.fullmatch(r"turn/realm/r/user/[^/\s*?\[\]\\'\"]+/allocation/0{17}1", name)
    assert name.isprintable()
    assert Names(run=0).session("r", hostile.replace("/", "%2F") + "x", 1) != name


async def test_keys_end_by_themselves(serve: Serve, redis_server: servers.RedisServer, client: Redis) -> None:
    application = await serve(status={"redis": url_of(redis_server)})
    async with turn_client(address_of(application, "udp")) as turn:
        await turn.allocate(AllocateOptions(lifetime=700))
        await until(lambda: _has(client, "new lifetime=700, "), "the key")
        (key,) = await client.keys("turn/*")
        assert 700 < await client.ttl(key) <= 730


async def test_traffic_is_told_at_intervals_and_only_what_came_since(
    serve: Serve, redis_server: servers.RedisServer, client: Redis
) -> None:
    application = await serve(status={"redis": url_of(redis_server), "interval": "1s"})
    async with heard(client) as messages, turn_client(address_of(application, "udp")) as turn:
        await turn.allocate()
        peer = Address("127.0.0.1", 9)
        await turn.permit(peer)
        for number in (2, 3):
            for _ in range(number):
                turn.send(peer, b"x" * 10)
            expected = f"rcvp={number}, rcvb={10 * number}, sentp=0, sentb=0"

            async def told(text: str = expected) -> bool:
                return any(channel.endswith("/traffic") and found == text for channel, found in messages)

            await until(told, expected)


async def test_the_last_messages_leave_before_the_server_does(
    serve: Serve, redis_server: servers.RedisServer, client: Redis
) -> None:
    application = await serve(status={"redis": url_of(redis_server)})
    async with heard(client) as messages, turn_client(address_of(application, "udp")) as turn:
        await turn.allocate()
        await application.stop()
        await until(lambda: _is_told(messages, "/total_traffic/peer"), "the last message")
        assert [text for channel, text in messages if channel.endswith("/status")][-1] == "deleted"
        assert await client.keys("turn/*") == []


# Away


async def test_what_lives_is_told_again_after_redis_was_away(
    serve: Serve, redis_server: servers.RedisServer, client: Redis
) -> None:
    redis_server.kill()
    with capture_logs() as lines:
        application = await serve(status={"redis": url_of(redis_server)})
        async with turn_client(address_of(application, "udp")) as turn:
            await turn.allocate(AllocateOptions(lifetime=700))
            await until(lambda: _is_logged(lines, "status not in Redis"), "the log line")
            await asyncio.to_thread(redis_server.start)
            await until(lambda: _has(client, "refreshed lifetime="), "the session")
            assert figures(application.rooms).status_messages_dropped == 0
    assert [line["event"] for line in lines] == ["status not in Redis", "status in Redis again"]
    assert servers.PASSWORD not in str(lines)


async def test_what_lives_is_told_to_a_redis_that_forgot_it(
    serve: Serve, redis_server: servers.RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_QUIET", 0.1)
    application = await serve(status={"redis": url_of(redis_server)})
    async with turn_client(address_of(application, "udp")) as turn, heard(client) as messages:
        await turn.allocate(AllocateOptions(lifetime=700))
        await until(lambda: _has(client, "new lifetime=700, "), "the session")
        await client.flushall()
        await client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: _has(client, "refreshed lifetime="), "the session again")
        assert [text[:4] for _, text in messages] == ["new "]


async def test_a_wrong_password_is_told_once_and_never_shown(serve: Serve, redis_server: servers.RedisServer) -> None:
    with capture_logs() as lines:
        application = await serve(status={"redis": url_of(redis_server, "not the one")})
        async with turn_client(address_of(application, "udp")) as turn:
            await turn.allocate()
            await asyncio.sleep(0.5)
    (line,) = [line for line in lines if line["event"] == "status not in Redis"]
    assert line["reason"] == "refuses this user name or password"
    assert "not the one" not in str(lines)


async def test_a_redis_that_hangs_holds_up_nobody(serve: Serve, redis_server: servers.RedisServer) -> None:
    application = await serve(status={"redis": url_of(redis_server), "interval": "1s"})
    redis_server.signal(signal.SIGSTOP)
    try:
        async with turn_client(address_of(application, "udp")) as turn:
            for _ in range(20):
                started = time.monotonic()
                await turn.allocate()
                await turn.refresh(0)
                assert time.monotonic() - started < 0.9 * status._TIMEOUT
        assert figures(application.rooms).queues["status"] > 0
        started = time.monotonic()
        await application.stop()
        assert time.monotonic() - started < PATIENCE
    finally:
        redis_server.signal(signal.SIGCONT)


async def test_the_oldest_messages_go_and_are_counted(
    redis_server: servers.RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "MAX_WAITING", 10)
    writer = StatusWriter(StoreUrl.parse(url_of(redis_server)), tuple)
    for number in range(25):
        writer.put(StatusMessage(f"turn/{number}", "text"))
    assert (len(writer), writer.dropped) == (10, 15)
    async with heard(client) as messages:
        writer.start()
        await until(lambda: _is_told(messages, "turn/24"), "the last message")
        await writer.stop(PATIENCE)
    assert [channel for channel, _ in messages] == [f"turn/{number}" for number in range(15, 25)]
    assert writer.dropped == 15


async def test_what_is_never_sent_is_counted_once(
    redis_server: servers.RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "MAX_WAITING", 10)
    monkeypatch.setattr(status, "_FIRST_PAUSE", 0.001)
    redis_server.kill()
    writer = StatusWriter(StoreUrl.parse(url_of(redis_server)), tuple)
    writer.start()
    for number in range(25):
        writer.put(StatusMessage(f"turn/{number}", "text"), StatusMessage(f"turn/{number}/peer", "text"))
        await asyncio.sleep(0.01)
        assert len(writer) <= 10
    await writer.stop(0.1)
    assert writer.dropped == 50


async def attempts(port: int, seconds: float) -> int:
    """Connections that somebody opens there within so many seconds; each is closed at once."""
    count = 0

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        writer.transport.abort()

    async with await asyncio.start_server(accepted, "127.0.0.1", port):
        await asyncio.sleep(seconds)
    return count


async def test_redis_is_not_pestered(redis_server: servers.RedisServer) -> None:
    redis_server.kill()
    writer = StatusWriter(StoreUrl.parse(url_of(redis_server)), tuple)
    writer.put(StatusMessage("turn/x", "text"))
    writer.start()
    assert 2 <= await attempts(redis_server.port, 2.0) <= 20
    await writer.stop(0.1)
    assert writer.dropped == 1


@pytest.mark.parametrize("url", ["redis://127.0.0.1/zero", "redis://127.0.0.1/0?sslmode=verify-ful"])
async def test_a_url_that_means_nothing_is_told_at_the_start(serve: Serve, url: str) -> None:
    with pytest.raises(StartError, match=r"^status\.redis: has "):
        await serve(status={"redis": url})


async def test_another_redis_needs_a_restart(serve: Serve, redis_server: servers.RedisServer) -> None:
    application = await serve(status={"redis": url_of(redis_server)})
    other = application.settings.model_copy(update={"status": None})
    assert application.reload(other) == ["status"]
    assert application.settings.status is not None
