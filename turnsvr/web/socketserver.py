"""Socket.IO, held to bounds that python-socketio does not have.

What waits for a client is bounded in bytes. What a client sends that means nothing ends its session without a
trace-back. A query is read once, here, and Engine.IO sees nothing else of it; there is no JSONP. A session may have one
long poll and one upgrade to WebSocket under way; of such sessions, which take two connections, there are few at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from turnsvr.web.backlog import Backlog, Backlogs
from turnsvr.web.middleware import AsgiApp, AsgiEvent, AsgiReceive, AsgiScope, AsgiSend, answer
from turnsvr.web.sparing import engineio, socketio  # isort: split

from engineio import packet as engine
from engineio.exceptions import SocketIsClosedError
from engineio.payload import Payload
from socketio.packet import DISCONNECT, EVENT, Packet

PATH = "/socket.io/"

_UPGRADE_SECONDS = 10.0
_KNOWN = ("EIO", "transport", "sid", "t", "b64")
_PASSED = ("EIO", "transport", "sid")
"""Names in a query: those that clients send, and those that matter."""
_FROM_CLIENTS = (engine.CLOSE, engine.PING, engine.PONG, engine.MESSAGE, engine.UPGRADE)
_BOUNDED = (engine.MESSAGE, engine.NOOP)
"""Kinds of packets of which a client can cause any number."""


class BadQuery(ValueError):
    """A query that is none of Engine.IO's."""


def read_query(scope: AsgiScope) -> dict[str, str]:
    """Of a request to PATH, each name once; raises BadQuery."""
    try:
        pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise BadQuery("the query cannot be read") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise BadQuery("the query has a name twice")
    if "j" in query:
        raise BadQuery("JSONP is not spoken here")
    return query


def opens_session(query: dict[str, str]) -> bool:
    """Whether Engine.IO begins a session for it."""
    return not query.get("sid")


class SocketServer(socketio.AsyncServer):  # type: ignore[misc]
    """A Socket.IO server for one namespace."""

    def __init__(self, backlogs: Backlogs, **options: Any) -> None:
        self.backlogs = backlogs
        super().__init__(serializer=_TextPacket, async_handlers=False, **options)
        self.eio.backlogs = backlogs

    def emit_now(self, sid: str, kind: str, message: dict[str, Any]) -> None:
        """Keep a message for a member, who is disconnected when too much waits for it."""
        client = self.client_of(sid)
        if client is None:
            return
        text = _TextPacket(EVENT, data=[kind, message]).encode()
        try:
            client.queue.put_nowait(engine.Packet(engine.MESSAGE, data=text))
        except SocketIsClosedError:
            client.queue.backlog.hang_up()

    def client_of(self, sid: str) -> Any:
        """The Engine.IO client of a member, None when it is gone."""
        return self.eio.sockets.get(self.manager.eio_sid_from_sid(sid, "/"))

    def member_of(self, client: str) -> str:
        """The member that an Engine.IO client is, empty where it is none."""
        return self.manager.sid_from_eio_sid(client, "/") or ""

    async def hang_up(self, sid: str) -> None:
        """Disconnect a member, and tell it not to come back by itself; an unknown one is fine."""
        if (client := self.client_of(sid)) is not None:
            with contextlib.suppress(SocketIsClosedError):
                client.queue.put_nowait(engine.Packet(engine.MESSAGE, data=_TextPacket(DISCONNECT).encode()))
            await self.eio.disconnect(client.sid)

    def strangers(self) -> set[str]:
        """Engine.IO clients that are no members."""
        return {each for each in self.eio.sockets if self.manager.sid_from_eio_sid(each, "/") is None}

    def living(self, client: str) -> Any:
        """An Engine.IO client that is not closed, None for any other; Engine.IO fails on one that is."""
        found = self.eio.sockets.get(client)
        return None if found is None or found.closed else found

    def address_of(self, client: str) -> str:
        """The IP address of an Engine.IO client, empty where there is none."""
        environ = self.environ.get(client)
        address = environ["asgi.scope"].get("client") if environ else None
        return str(address[0]) if address else ""

    def _engineio_server_class(self) -> type[engineio.AsyncServer]:
        return _Engine

    async def _handle_eio_disconnect(self, eio_sid: str, reason: Any) -> None:
        await super()._handle_eio_disconnect(eio_sid, reason)
        if (client := self.eio.sockets.get(eio_sid)) is not None:
            client.queue.backlog.close()
            if reason == self.eio.reason.CLIENT_DISCONNECT:
                client.queue.put_nowait(None)  # its long poll ends now, not with the next ping

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        if eio_sid not in self.environ:
            return  # disconnected, with packets left in the same payload
        try:
            await super()._handle_eio_message(eio_sid, data)
        except Exception as error:
            self.logger.info("client %s disconnected: %s", eio_sid, type(error).__name__)
            await self.eio.disconnect(eio_sid)


class _Engine(engineio.AsyncServer):  # type: ignore[misc]
    """Engine.IO whose queues are bounded, and which waits for no client that it disconnects."""

    backlogs: Backlogs

    def create_queue(self, *args: Any, **options: Any) -> asyncio.Queue[Any]:
        return _Queue(self.backlogs.open())

    async def disconnect(self, sid: str | None = None) -> None:
        for client in [each for each in self.sockets.values() if sid in (None, each.sid)]:
            await client.close(wait=False)
            client.queue.put_nowait(None)  # or a long poll would last until the next ping
            self.sockets.pop(client.sid, None)


class _Queue(asyncio.Queue[Any]):
    """What waits for one client. put() never waits; it raises SocketIsClosedError instead."""

    def __init__(self, backlog: Backlog) -> None:
        super().__init__()
        self.backlog = backlog

    async def put(self, item: Any) -> None:
        self.put_nowait(item)

    def put_nowait(self, item: Any) -> None:
        if _is_bounded(item) and not self.backlog.add(_size(item)):
            raise SocketIsClosedError
        super().put_nowait(item)

    def _get(self) -> Any:
        item = super()._get()
        if _is_bounded(item):
            self.backlog.remove(_size(item))
        return item


class _TextPacket(Packet):  # type: ignore[misc]
    """Socket.IO without binary attachments, of which a client could announce any number."""

    def decode(self, encoded_packet: str) -> int:
        if super().decode(encoded_packet):
            raise ValueError("binary messages are not taken")
        return 0


class SocketServerApp:
    """The ASGI application of a SocketServer, for requests that read_query() has read."""

    def __init__(self, server: SocketServer, upgrades: Callable[[], int]) -> None:
        """upgrades: those that may be under way at once; a client whose upgrade is refused goes on with long polls."""
        self._server = server
        self._most_upgrades = upgrades
        self._app: AsgiApp = socketio.ASGIApp(server, socketio_path=PATH)
        self._polling: set[str] = set()
        self._upgrading: set[str] = set()
        """Sessions that have a WebSocket besides what they began with, whether they have changed to it yet or not."""

    async def serve(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend, query: dict[str, str]) -> None:
        clean = {**scope, "query_string": urlencode({name: query[name] for name in _PASSED if name in query}).encode()}
        sid = query.get("sid", "")
        if scope["type"] == "websocket":
            await self._websocket(clean, receive, send, sid)
            return
        event = await receive()
        if event["type"] != "http.request":
            return  # the client has gone; Engine.IO would fail on it
        receive = _beginning_with(event, receive)
        if sid and self._server.living(sid) is None:
            await answer(send, 400, b"there is no such session")
            return
        clean["headers"] = [each for each in scope["headers"] if each[0] != b"upgrade"]
        if scope["method"] == "POST":
            await self._post(clean, receive, send, sid)
        elif scope["method"] == "GET" and sid:
            await self._alone(self._polling, sid, clean, receive, send)
        else:
            await self._app(clean, receive, send)

    async def _post(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend, sid: str) -> None:
        """Packets of a long-polling client. Its length is what came: a chunked body names none."""
        event = await receive()
        body = event.get("body", b"")
        if not _is_payload(body):
            await self._server.eio.disconnect(sid)
            await answer(send, 400, b"this is no Engine.IO payload")
            return
        kept = [each for each in scope["headers"] if each[0] != b"content-length"]
        scope["headers"] = [*kept, (b"content-length", str(len(body)).encode())]

        async def again() -> AsgiEvent:
            return event

        await self._app(scope, again, send)

    async def _websocket(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend, sid: str) -> None:
        client = self._server.living(sid)
        receive = _readable(receive)
        if not sid:
            await self._app(scope, receive, send)
        elif client is None or sid in self._upgrading or self._upgrades_under_way() >= self._most_upgrades():
            await receive()
            await send({"type": "websocket.close"})
        else:
            await self._alone(self._upgrading, sid, scope, _in_time(receive, lambda: bool(client.upgraded)), send)
            if client.upgrading:  # it was given up half-way, and Engine.IO holds its messages back for good
                await self._server.eio.disconnect(sid)

    def _upgrades_under_way(self) -> int:
        clients = map(self._server.living, self._upgrading)
        return sum(client is None or not client.upgraded for client in clients)

    async def _alone(self, busy: set[str], sid: str, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """One request of this kind for each session, and that session a living one."""
        if sid in busy:
            await answer(send, 400, b"the session has such a request under way already")
            return
        busy.add(sid)
        try:
            await self._app(scope, receive, send)
        finally:
            busy.discard(sid)


def _beginning_with(event: AsgiEvent, receive: AsgiReceive) -> AsgiReceive:
    """As receive, with an event that was taken from it before."""
    events = [event]

    async def next_event() -> AsgiEvent:
        return events.pop() if events else await receive()

    return next_event


def _readable(receive: AsgiReceive) -> AsgiReceive:
    """As receive, but disconnected where a client sends what Engine.IO cannot read."""

    async def next_event() -> AsgiEvent:
        event = await receive()
        if event["type"] == "websocket.receive" and not _is_packet(event):
            return {"type": "websocket.disconnect", "code": 1002}
        return event

    return next_event


def _in_time(receive: AsgiReceive, done: Callable[[], bool]) -> AsgiReceive:
    """As receive, but disconnected where an upgrade takes too long."""
    deadline = asyncio.get_running_loop().time() + _UPGRADE_SECONDS

    async def next_event() -> AsgiEvent:
        if done():
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                return await receive()
        except TimeoutError:
            return {"type": "websocket.disconnect", "code": 1002}

    return next_event


def _is_payload(body: bytes) -> bool:
    """Whether Engine.IO can read it, and it is none of JSONP's."""
    try:
        text = body.decode()
        packets = Payload(encoded_payload=text).packets
    except (ValueError, KeyError, IndexError, RecursionError):
        return False
    return not text.startswith("d=") and all(map(_is_known, packets))


def _is_packet(event: AsgiEvent) -> bool:
    """Whether Engine.IO can read what came on a WebSocket; what is binary it cannot use."""
    try:
        return event.get("bytes") is None and _is_known(engine.Packet(encoded_packet=event["text"]))
    except (ValueError, KeyError, IndexError, RecursionError):
        return False


def _is_known(packet: Any) -> bool:
    return packet.packet_type in _FROM_CLIENTS


def _is_bounded(item: Any) -> bool:
    return item is not None and item.packet_type in _BOUNDED


def _size(item: Any) -> int:
    return len(item.data) if isinstance(item.data, (str, bytes)) else 0
