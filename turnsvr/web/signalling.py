"""Carries the rooms' messages over Socket.IO (WebSocket or long polling) and over a plain WebSocket with JSON.

Members of both meet in the same rooms.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from turnsvr.limits import AnswerLimiter, client_of
from turnsvr.web.backlog import Backlog, Backlogs
from turnsvr.web.issuer import packed
from turnsvr.web.middleware import AsgiApp, AsgiEvent, AsgiReceive, AsgiScope, AsgiSend
from turnsvr.web.origins import header, may_call
from turnsvr.web.places import HeldPlace, who_ends
from turnsvr.web.rooms import JOIN, LEAVE, PASSED_ON, Delivery, SignallingMessage, SignallingRooms
from turnsvr.web.socketserver import PATH as SOCKET_IO_PATH
from turnsvr.web.socketserver import BadQuery, SocketServer, SocketServerApp, opens_session, read_query

PLAIN_PATH = "/signalling"

_PING_INTERVAL = 20
_PING_TIMEOUT = 20
_WAITING_MESSAGES = 4
"""Of the largest size that may wait for one slow member; then it is disconnected."""
_SWEEP_SECONDS = 10.0
_SESSIONS_FOR_AN_UPGRADE = 6
"""Sessions that there may be for each upgrade under way, which is a connection that no session counts for."""
_TRY_AGAIN_LATER = 1013
_POLICY = 1008


class _Way(Protocol):
    """How one member is reached."""

    def deliver(self, kind: str, message: SignallingMessage) -> None:
        """Have a message wait for it; it is disconnected when too much waits."""

    def hang_up(self) -> None: ...


class Signalling:
    """The rooms, and how each member is reached."""

    def __init__(
        self,
        rooms: SignallingRooms,
        *,
        message_size: int,
        origins: Iterable[str],
        room: Callable[[], int],
        per_address: int,
        rate: float,
    ) -> None:
        """room: sessions at once; per_address: those of one client address; rate: those that it may open a second."""
        self.rooms = rooms
        self.origins = tuple(origins)
        """Origins of pages elsewhere that may connect."""
        self._room = room
        self._per_address = per_address
        self._limiter = AnswerLimiter(rate)
        self._opening: Counter[bytes] = Counter()
        self._plain_sessions: dict[str, bytes] = {}
        """Members on plain WebSockets, each with its source."""
        self._ending: set[str] = set()
        """Sessions that have been ended to make room, and are still closing."""
        self._ways: dict[str, _Way] = {}
        self._names: dict[str, str] = {}
        """Members of Socket.IO, by its sid."""
        self._strangers: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._message_size = message_size
        self._backlogs = Backlogs(_WAITING_MESSAGES * message_size)
        logger = logging.getLogger("turnsvr.signalling")
        self._sio = SocketServer(
            self._backlogs,
            async_mode="asgi",
            cors_allowed_origins=self._may_connect,
            cors_credentials=False,
            max_http_buffer_size=message_size,
            ping_interval=_PING_INTERVAL,
            ping_timeout=_PING_TIMEOUT,
            http_compression=False,
            logger=logger,
            engineio_logger=logger,
        )
        self._door = SocketServerApp(self._sio, lambda: max(1, room() // _SESSIONS_FOR_AN_UPGRADE))
        self._register()

    def mount(self, app: AsgiApp) -> AsgiApp:
        """An application that serves Socket.IO and the plain WebSocket, and leaves everything else to app."""

        async def serve_plain(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
            await self._plain(WebSocket(scope, receive, send))

        async def plain(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
            await self._opened(serve_plain, scope, receive, send)

        async def choose(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
            if scope["type"] == "websocket" and scope["path"] == PLAIN_PATH:
                await plain(scope, receive, send)
            elif scope["type"] in ("http", "websocket") and f"{scope['path']}/".startswith(SOCKET_IO_PATH):
                await self._socket_io(scope, receive, send)
            else:
                await app(scope, receive, send)

        return choose

    async def _socket_io(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        try:
            query = read_query(scope)
        except BadQuery as error:
            await _refuse(scope, receive, send, 400, str(error))
            return
        if not may_call(header(scope, "origin"), header(scope, "host"), self.origins):
            await _refuse(scope, receive, send, 400, "pages of this origin may not connect")
            return

        async def serve(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
            await self._door.serve(scope, receive, send, query)

        if opens_session(query) and scope.get("method") != "OPTIONS":
            await self._opened(serve, scope, receive, send)
        else:
            await serve(scope, receive, send)

    async def _opened(self, serve: AsgiApp, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Serve what begins a session, where there may be one more; it counts as one until it is known as one."""
        key = _key(scope)
        if not self._admits(key):
            await _refuse(scope, receive, send, 429, "too many connections")
            return
        self._opening[key] += 1
        opening = True

        def known() -> None:
            nonlocal opening
            if opening:
                opening = False
                self._opening[key] -= 1
                if not self._opening[key]:
                    del self._opening[key]

        async def sent(event: AsgiEvent) -> None:
            known()
            await send(event)

        try:
            await serve(scope, receive, sent)
        finally:
            known()

    async def sweep(self) -> None:
        """Disconnect idle members, and those who open a session and become no members, for ever."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for name in self.rooms.idle(self._now()):
                self._hang_up(name)
            strangers = self._sio.strangers()
            for each in strangers & self._strangers:
                self._start(self._sio.eio.disconnect(each))
            self._strangers = strangers

    async def stop(self) -> None:
        """Hang up on every member."""
        for name in tuple(self._ways):
            self._hang_up(name)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        await self._sio.shutdown()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _may_connect(self, origin: str, environ: dict[str, Any]) -> bool:
        return may_call(origin, header(environ["asgi.scope"], "host"), self.origins)

    def _admits(self, key: bytes) -> bool:
        """Whether there may be one more session, and one more of this address; another may end for it."""
        sessions = self._sessions()
        of_address = sum(each.source == key for each in sessions) + self._opening[key]
        if of_address >= self._per_address or not self._limiter.allow(key, self._now()):
            return False
        if len(sessions) + self._opening.total() < self._room():
            return True
        ends = who_ends(sessions, key)
        if ends is not None:
            self._end(ends.name)
        return ends is not None

    def _sessions(self) -> list[HeldPlace]:
        """All but those that are closing already."""
        clients = {each: packed_client(self._sio.address_of(each)) for each in self._sio.eio.sockets}
        self._ending &= {*clients, *self._plain_sessions}
        members = {name: self._names.get(self._sio.member_of(name), name) for name in clients}
        sources = {**clients, **self._plain_sessions}
        return [
            HeldPlace(name, source, *self.rooms.company(members.get(name, name)))
            for name, source in sources.items()
            if name not in self._ending
        ]

    def _end(self, session: str) -> None:
        """Have a session end to make room."""
        self._ending.add(session)
        if session in self._plain_sessions:
            self._hang_up(session)
        elif (member := self._sio.member_of(session)) in self._names:
            self._hang_up(self._names[member])
        else:
            self._start(self._sio.eio.disconnect(session))

    def _receive(self, name: str, kind: object, message: object) -> list[Delivery]:
        """Deliver a member's message to the members that it concerns; what would not be JSON any more is left out."""
        deliveries = self.rooms.receive(name, kind, message if _is_json(message) else None, self._now())
        self._deliver(deliveries)
        return deliveries

    def _deliver(self, deliveries: Iterable[Delivery]) -> None:
        for each in deliveries:
            if way := self._ways.get(each.to):
                way.deliver(each.kind, each.message)

    def _hang_up(self, name: str) -> None:
        if way := self._ways.get(name):
            way.hang_up()

    def _gone(self, name: str) -> None:
        self._ways.pop(name, None)
        self._deliver(self.rooms.disconnect(name, self._now()))

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Socket.IO

    def _register(self) -> None:
        async def connect(sid: str, environ: dict[str, Any], auth: object = None) -> None:
            way = _SocketIoWay(self._sio, sid, self._start)
            if (client := self._sio.client_of(sid)) is not None:
                client.queue.backlog.hang_up = way.hang_up
            self._names[sid] = name = self.rooms.connect(self._now())
            self._ways[name] = way

        async def disconnect(sid: str, reason: object = None) -> None:
            if name := self._names.pop(sid, None):
                self._gone(name)

        self._sio.on("connect", connect)
        self._sio.on("disconnect", disconnect)
        for kind in (JOIN, LEAVE, *PASSED_ON):
            self._sio.on(kind, self._handler(kind))

    def _handler(self, kind: str) -> Callable[..., Awaitable[SignallingMessage | None]]:
        async def handle(sid: str, message: object = None, *_: object) -> SignallingMessage | None:
            """The acknowledgement is what the member itself is told, an error too."""
            name = self._names.get(sid, "")
            deliveries = self._receive(name, kind, {} if message is None else message)
            return next((each.message for each in deliveries if each.to == name), None)

        return handle

    # Plain WebSocket

    async def _plain(self, websocket: WebSocket) -> None:
        """Messages are JSON objects whose `type` is join, offer, answer, candidate or leave."""
        scope = websocket.scope
        if not may_call(header(scope, "origin"), header(scope, "host"), self.origins):
            await websocket.close(_POLICY)
            return
        name = self.rooms.connect(self._now())
        self._plain_sessions[name] = _key(scope)
        try:
            await websocket.accept()
            await self._serve_plain(websocket, name)
        finally:
            del self._plain_sessions[name]
            self.rooms.disconnect(name, self._now())

    async def _serve_plain(self, websocket: WebSocket, name: str) -> None:
        reader = asyncio.ensure_future(self._read(websocket, name))
        way = self._ways[name] = _PlainWay(self._backlogs.open(), reader.cancel)
        writer = asyncio.ensure_future(way.write(websocket))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            way.close()
            self._gone(name)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(_TRY_AGAIN_LATER)

    async def _read(self, websocket: WebSocket, name: str) -> None:
        async for text in websocket.iter_text():
            if len(text) > self._message_size:
                return
            self._receive(name, *_parsed(text))


class _SocketIoWay:
    """A member that speaks Socket.IO; what waits for it is in Engine.IO's own queue."""

    def __init__(self, server: SocketServer, sid: str, start: Callable[[Awaitable[None]], None]) -> None:
        self._server = server
        self._sid = sid
        self._start = start

    def deliver(self, kind: str, message: SignallingMessage) -> None:
        self._server.emit_now(self._sid, kind, message)

    def hang_up(self) -> None:
        self._start(self._server.hang_up(self._sid))


class _PlainWay:
    """A member on a plain WebSocket, and what waits for it."""

    def __init__(self, backlog: Backlog, hang_up: Callable[[], object]) -> None:
        self._backlog = backlog
        self._hang_up = hang_up
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        backlog.hang_up = hang_up

    def deliver(self, kind: str, message: SignallingMessage) -> None:
        text = json.dumps({"type": kind, **message})
        if self._backlog.add(len(text)):
            self._queue.put_nowait(text)
        else:
            self._hang_up()

    def hang_up(self) -> None:
        self._hang_up()

    def close(self) -> None:
        """Nothing waits for it any more."""
        self._backlog.close()

    async def write(self, websocket: WebSocket) -> None:
        """Send what waits, until the connection ends."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                text = await self._queue.get()
                await websocket.send_text(text)
                self._backlog.remove(len(text))


async def _quietly(work: Awaitable[None]) -> None:
    """What is done for a member that may be gone by now."""
    with contextlib.suppress(KeyError, OSError, RuntimeError, ValueError):
        await work


def _parsed(text: str) -> tuple[object, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, None
    return (value.get("type"), value) if isinstance(value, dict) else (None, value)


def _is_json(value: object) -> bool:
    """Whether it can be written as JSON: what Python reads may hold infinite numbers."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _key(scope: AsgiScope) -> bytes:
    client = scope.get("client")
    return packed_client(str(client[0]) if client else "")


def packed_client(host: str) -> bytes:
    """Who counts as one client: an IPv4 address, an IPv6 /64."""
    return client_of(packed(host))


async def _refuse(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER if status == 429 else _POLICY})
        return
    body = json.dumps({"error": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": status, "headers": headers[: 2 if status == 429 else 1]})
    await send({"type": "http.response.body", "body": body})
