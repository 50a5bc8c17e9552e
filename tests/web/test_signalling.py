"""Signalling as clients speak it: Socket.IO over both transports, and a plain WebSocket; in the same rooms."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, Self
from urllib.parse import urlencode

import httpx
import pytest
import socketio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import PATIENCE
from tests.net.test_streams import Streams, hang_up
from tests.web.conftest import Site, StartWeb

ROOM = "b5c1e0d2a9f84736b5c1e0d2a9f84736"
OFFER = {"description": {"type": "offer", "sdp": "v=0\r\n" + "a=x\r\n" * 2000}}


class Peer(Protocol):
    async def say(self, kind: str, **message: Any) -> None: ...

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message, which is to be of this kind."""


class SocketIoPeer:
    def __init__(self) -> None:
        self.client = socketio.AsyncClient(reconnection=False)
        self._heard: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        for kind in ("joined", "left", "peer-joined", "peer-left", "offer", "answer", "candidate", "error"):
            self.client.on(kind, lambda message, kind=kind: self._heard.put_nowait((kind, message)))

    async def say(self, kind: str, **message: Any) -> None:
        await self.client.emit(kind, message)

    async def hear(self, kind: str) -> dict[str, Any]:
        heard, message = await asyncio.wait_for(self._heard.get(), PATIENCE)
        assert heard == kind, message
        return message


class PlainPeer:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, kind: str, **message: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **message}))

    async def hear(self, kind: str) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), PATIENCE))
        assert message.pop("type") == kind, message
        return message


@asynccontextmanager
async def peer(site: Site, way: str) -> AsyncIterator[Peer]:
    if way == "plain":
        async with connect(plain_url(site), proxy=None) as connection:
            yield PlainPeer(connection)
        return
    speaker = SocketIoPeer()
    await speaker.client.connect(site.url, transports=None if way == "upgraded" else [way])
    assert speaker.client.transport() == ("websocket" if way == "upgraded" else way)
    websocket = speaker.client.eio.ws
    try:
        yield speaker
    finally:
        await speaker.client.disconnect()
        if (writer := speaker.client.eio.write_loop_task) is not None:
            writer.cancel()  # where the server hung up, it would wait for its time-out
        await speaker.client.eio.wait()
        if websocket is not None:  # the client forgets it when the server hangs up
            await websocket.close()
        with warnings.catch_warnings():  # nor does it release every response of long polling
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def plain_url(site: Site) -> str:
    return f"{site.url.replace('http', 'ws', 1)}/signalling"


WAYS = ["websocket", "polling", "plain"]
POLLING = {"EIO": "4", "transport": "polling"}
WEBSOCKET = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize("one", WAYS)
@pytest.mark.parametrize("other", WAYS)
async def test_two_meet_whatever_way_they_come(site: Site, one: str, other: str) -> None:
    async with peer(site, one) as alice:
        await alice.say("join", room=ROOM)
        joined = await alice.hear("joined")
        assert (joined["room"], joined["members"]) == (ROOM, [])
        async with peer(site, other) as bob:
            await bob.say("join", room=ROOM)
            his = await bob.hear("joined")
            assert his["members"] == [joined["id"]]
            assert await alice.hear("peer-joined") == {"id": his["id"]}
            await bob.say("offer", to=joined["id"], **OFFER)
            assert await alice.hear("offer") == {"from": his["id"], **OFFER}
            await alice.say("answer", description={"type": "answer"})
            for number in range(10):
                await alice.say("candidate", candidate={"candidate": str(number)})
            assert await bob.hear("answer") == {"from": joined["id"], "description": {"type": "answer"}}
            heard = [await bob.hear("candidate") for _ in range(10)]
            assert [each["candidate"]["candidate"] for each in heard] == [str(number) for number in range(10)]
        assert await alice.hear("peer-left") == {"id": his["id"]}


async def test_a_client_that_begins_with_polling_is_upgraded(site: Site) -> None:
    async with peer(site, "upgraded") as speaker:
        await speaker.say("join")
        assert len((await speaker.hear("joined"))["room"]) == 32


async def test_an_acknowledgement_says_the_same(site: Site) -> None:
    async with peer(site, "websocket") as speaker:
        assert isinstance(speaker, SocketIoPeer)
        joined = await speaker.client.call("join", {"room": ROOM}, timeout=PATIENCE)
        assert joined["room"] == ROOM
        refused = await speaker.client.call("join", {"room": "lobby"}, timeout=PATIENCE)
        assert refused["code"] == "bad-room"


@pytest.mark.parametrize("way", WAYS)
async def test_members_are_bounded_over_every_way(start_web: StartWeb, way: str) -> None:
    site = await start_web(signalling={"members": 2})
    async with peer(site, "plain") as one, peer(site, "plain") as two, peer(site, way) as three:
        for each in (one, two, three):
            await each.say("join", room=ROOM)
        assert (await three.hear("error"))["code"] == "room-full"


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"type": 7}', '{"type": "shout"}', "[" * 3000, "null"])
async def test_nonsense_is_answered_and_forgiven(site: Site, text: str) -> None:
    async with connect(plain_url(site), proxy=None) as connection:
        await connection.send(text)
        assert json.loads(await connection.recv())["code"] == "bad-message"
        await connection.send(json.dumps({"type": "join", "room": ROOM}))
        assert json.loads(await connection.recv())["type"] == "joined"


async def test_large_messages_end_the_connection(start_web: StartWeb) -> None:
    site = await start_web(signalling={"message_size": "4 KiB"})
    async with connect(plain_url(site), proxy=None) as connection:
        await connection.send(json.dumps({"type": "join", "room": "x" * 5000}))
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    async with peer(site, "websocket") as speaker:
        assert isinstance(speaker, SocketIoPeer)
        await speaker.say("join", room="x" * 5000)
        await asyncio.wait_for(speaker.client.wait(), PATIENCE)
        assert not speaker.client.connected


async def test_binary_messages_are_not_taken(site: Site) -> None:
    async with peer(site, "websocket") as speaker, peer(site, "plain") as other:
        assert isinstance(speaker, SocketIoPeer)
        await speaker.say("join", room=ROOM, attachment=b"\0" * 100)
        await other.say("join", room=ROOM)
        assert (await other.hear("joined"))["members"] == []


async def test_flooding_is_answered_with_an_error_and_goes_no_further(start_web: StartWeb) -> None:
    site = await start_web(signalling={"messages": "1/min"})
    async with peer(site, "plain") as speaker:
        await speaker.say("join", room=ROOM)
        assert (await speaker.hear("error"))["code"] == "too-fast"


async def test_sessions_of_one_address_are_bounded_by_rate(start_web: StartWeb) -> None:
    site = await start_web(requests_per_address="1/h")
    async with peer(site, "plain"):
        with pytest.raises(InvalidStatus):
            await connect(plain_url(site), proxy=None)
        answer = await site.get("/socket.io/", params={"EIO": "4", "transport": "polling"})
        assert answer.status_code == 429


async def test_sessions_are_bounded_in_number(start_web: StartWeb) -> None:
    """Where all are in company, and no source has more than the newcomer's would have, it is refused."""
    site = await start_web(connections=3)
    async with peer(site, "plain") as one, peer(site, "plain") as other:
        for each in (one, other):
            await each.say("join", room=ROOM)
            await each.hear("joined")
        with pytest.raises(InvalidStatus):
            await connect(plain_url(site), proxy=None)
        assert (await site.get("/socket.io/", params=POLLING)).status_code == 429
        await one.hear("peer-joined")
        await other.say("offer", **OFFER)
        await one.hear("offer")


@pytest.mark.parametrize("way", WAYS)
async def test_one_who_is_alone_ends_for_a_newcomer(start_web: StartWeb, way: str) -> None:
    site = await start_web(connections=4)
    async with peer(site, "plain") as one, peer(site, "plain") as other, AsyncExitStack() as stack:
        for each in (one, other):
            await each.say("join", room=ROOM)
            await each.hear("joined")
        await stack.enter_async_context(peer(site, way))
        async with peer(site, "plain") as newcomer:
            await newcomer.say("join", room=ROOM)
            assert len((await newcomer.hear("joined"))["members"]) == 2
            for _ in range(2):
                await one.hear("peer-joined")
            await other.say("offer", **OFFER)
            await one.hear("offer")


async def test_whoever_holds_most_ends_for_others(start_web: StartWeb) -> None:
    """Also where he has his own for company."""
    site = await start_web(connections=12, trusted_proxies="127.0.0.1")
    async with AsyncExitStack() as stack:
        hostile = [await stack.enter_async_context(stranger(site, f"198.51.100.{n % 3}")) for n in range(9)]
        for number, each in enumerate(hostile):
            await each.say("join", room=f"{ROOM}{number // 3}")
            await each.hear("joined")
        calls = [await stack.enter_async_context(stranger(site, f"203.0.113.{n}")) for n in range(4)]
        for each in calls:
            await each.say("join", room=ROOM)
            await each.hear("joined")
        await calls[0].say("offer", **OFFER)
        for number, each in enumerate(calls[1:], 1):
            for _ in range(len(calls) - 1 - number):
                await each.hear("peer-joined")
            await each.hear("offer")


@asynccontextmanager
async def stranger(site: Site, address: str) -> AsyncIterator[Peer]:
    headers = {"X-Forwarded-For": address}
    async with connect(plain_url(site), proxy=None, additional_headers=headers) as connection:
        yield PlainPeer(connection)


@pytest.mark.parametrize("way", ["websocket", "plain"])
async def test_sessions_of_one_address_are_bounded_in_number(start_web: StartWeb, way: str) -> None:
    """Over every way together; whoever comes from another address is let in, and so is the next once one has left."""
    site = await start_web(signalling={"sessions_per_address": 2}, trusted_proxies="127.0.0.1")

    async def opens(client: str, **query: str) -> int:
        headers = {"X-Forwarded-For": client}
        return (await site.get("/socket.io/", params=POLLING | query, headers=headers)).status_code

    async with peer(site, "plain"):
        async with peer(site, way):
            with pytest.raises(InvalidStatus):
                await connect(plain_url(site), proxy=None)
            assert await opens("127.0.0.1") == 429
            assert await opens("127.0.0.1", t="sid=1") == 429
            assert await opens("198.51.100.7") == 200
            assert [await opens(f"2001:db8::{number}") for number in range(1, 4)] == [200, 200, 429]
            assert await opens("2001:db8:0:1::1") == 200
        for _ in range(200):
            try:
                async with connect(plain_url(site), proxy=None):
                    return
            except InvalidStatus:
                await asyncio.sleep(0.05)
        pytest.fail("a session that has ended still counts")


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_pages_elsewhere_may_not_connect(site: Site, origin: str) -> None:
    with pytest.raises(InvalidStatus):
        await connect(plain_url(site), origin=origin, proxy=None)  # type: ignore[arg-type]
    asked = {"EIO": "4", "transport": "polling"}
    assert (await site.get("/socket.io/", params=asked, headers={"Origin": origin})).status_code == 400


async def test_pages_of_configured_origins_and_our_own_may(start_web: StartWeb) -> None:
    site = await start_web(origins="https://app.example.org")
    for origin in ("https://app.example.org", "https://shop.example.org", site.url):
        async with connect(plain_url(site), origin=origin, proxy=None):  # type: ignore[arg-type]
            pass
        answer = await site.get("/socket.io/", params={"EIO": "4", "transport": "polling"}, headers={"Origin": origin})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin


async def test_it_can_be_switched_off(start_web: StartWeb) -> None:
    site = await start_web(signalling=None)
    assert (await site.get("/socket.io/", params={"EIO": "4", "transport": "polling"})).status_code == 404
    with pytest.raises(InvalidStatus):
        await connect(plain_url(site), proxy=None)
    assert (await site.get("/page.json")).json()["signalling"] is False


class Poller:
    """A member with a long poll under way, on connections of its own address."""

    def __init__(self, site: Site, host: str) -> None:
        self.session: dict[str, str] = {}
        self._site = site
        self._host = host
        self._connections: list[Streams] = []

    async def __aenter__(self) -> Self:
        await self._connect()
        opened = await self._says(b"GET", b"", until=b"}")
        self.session = {**POLLING, "sid": json.loads(b"{" + opened.partition(b"{")[2])["sid"]}
        await self._says(b"POST", b"40", until=b"OK")
        await self._says(b"GET", b"", until=b"}")
        await self._says(b"GET", b"")
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._connections:
            await hang_up(each)

    async def upgrade(self) -> bytes:
        """The status of a WebSocket that is opened for the session, and says nothing."""
        await self._connect()
        return (await self._says(b"GET", b"", WEBSOCKET, until=b"\r\n")).split()[1]

    async def hears(self) -> bytes:
        """What its long poll ends with."""
        return await asyncio.wait_for(self._connections[0][0].readuntil(b"}"), PATIENCE)

    async def _connect(self) -> None:
        url = self._site.client.base_url
        self._connections.append(await asyncio.open_connection(url.host, url.port, local_addr=(self._host, 0)))

    async def _says(self, method: bytes, body: bytes, more: bytes = b"", *, until: bytes = b"") -> bytes:
        reader, writer = self._connections[-1]
        query = urlencode(self.session or POLLING).encode()
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        writer.write(b"%s /socket.io/?%s HTTP/1.1\r\nHost: a\r\n%s\r\n%s" % (method, query, more + length, body))
        return await asyncio.wait_for(reader.readuntil(until), PATIENCE) if until else b""


async def test_sessions_with_two_connections_each_leave_room_for_others(start_web: StartWeb) -> None:
    """A long poll, and an upgrade that is never finished. Whose upgrade is refused goes on with long polls."""
    site = await start_web(connections=16, connections_per_address=16)
    async with AsyncExitStack() as stack:
        pollers = [await stack.enter_async_context(Poller(site, f"127.0.1.{number + 1}")) for number in range(12)]
        assert [await each.upgrade() for each in pollers] == [b"101"] * 2 + [b"403"] * 10
        assert (await site.get("/healthz")).status_code == 200
        assert (await site.post("/socket.io/", params=pollers[0].session, content="1")).status_code == 200
        assert await pollers[2].upgrade() == b"403", "that WebSocket outlives its session"
        for each in pollers[2:]:
            joined = f'42["join",{{"room":"{ROOM}-{id(each)}"}}]'
            assert (await site.post("/socket.io/", params=each.session, content=joined)).status_code == 200
            assert b'"joined"' in await each.hears()


@pytest.mark.parametrize("way", WAYS)
async def test_the_server_stops_with_clients_connected(site: Site, way: str) -> None:
    async with peer(site, way) as speaker:
        await speaker.say("join", room=ROOM)
        await speaker.hear("joined")
        await asyncio.wait_for(site.application.stop(), PATIENCE)


async def test_a_long_poll_ends_with_its_session(site: Site) -> None:
    """Not with the next ping."""
    opened = await site.get("/socket.io/", params=POLLING)
    session = {**POLLING, "sid": json.loads(opened.text[1:])["sid"]}
    poll = asyncio.ensure_future(site.get("/socket.io/", params=session))
    await asyncio.sleep(0.1)
    assert (await site.post("/socket.io/", params=session, content="1")).status_code == 200
    assert (await asyncio.wait_for(poll, PATIENCE / 2)).text == ""


async def test_rooms_are_counted(site: Site) -> None:
    async with peer(site, "plain") as speaker:
        await speaker.say("join", room=ROOM)
        await speaker.hear("joined")
        text = (await site.get("/metrics")).text
        assert "turnsvr_signalling_rooms 1.0" in text
        assert "turnsvr_signalling_members 1.0" in text
        assert ROOM not in text


async def test_a_hostile_poller_gets_errors_not_a_fault(site: Site) -> None:
    answer = await site.get("/socket.io/", params={"EIO": "4", "transport": "polling"})
    sid = json.loads(answer.text[1:])["sid"]
    session = {"EIO": "4", "transport": "polling", "sid": sid}
    for body in (b"\x1e" * 100, b"4" * 1000, b"\xff\xfe", b"459999999999-[]", b'42["join"', b"47", b"4" + b"[" * 5000):
        response: httpx.Response = await site.post("/socket.io/", params=session, content=body)
        assert response.status_code in (200, 400)
    assert (await site.get("/healthz")).status_code == 200
