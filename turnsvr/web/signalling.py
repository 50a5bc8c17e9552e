"""Carries the rooms' messages over Socket.IO (WebSocket or long polling) and over a plain WebSocket with JSON.

Members of both meet in the same rooms.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import socketio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from socketio.packet import Packet

from turnsvr.limits import AnswerLimiter
from turnsvr.web.desk import packed
from turnsvr.web.middleware import AsgiApp, Receive, Scope, Send
from turnsvr.web.origins import header, may_call
from turnsvr.web.rooms import JOIN, LEAVE, PASSED_ON, Delivery, Message, Rooms

SOCKET_IO_PATH = "/socket.io/"
PLAIN_PATH = "/signalling"

_PING_INTERVAL = 20
_PING_TIMEOUT = 20
_MAX_QUEUED = 256
"""Messages that may wait for one slow member; then it is disconnected."""
_SWEEP_SECONDS = 10.0
_TRY_AGAIN_LATER = 1013
_POLICY = 1008

Queue = asyncio.Queue[tuple[str, Message]]


class _Way:
    """How one member is reached: what waits for it, and how it is disconnected."""

    def __init__(self, hang_up: Callable[[], object]) -> None:
        self.queue: Queue = asyncio.Queue(_MAX_QUEUED)
        self.hang_up = hang_up

    def deliver(self, kind: str, message: Message) -> None:
        try:
            self.queue.put_nowait((kind, message))
        except asyncio.QueueFull:
            self.hang_up()


class Signalling:
    """The rooms, and how each member is reached."""

    def __init__(
        self, rooms: Rooms, *, message_size: int, origins: Iterable[str], connections: int, per_address: float
    ) -> None:
        """per_address: connections a second that one client address may open, 0 for no limit."""
        self.rooms = rooms
        self.origins = tuple(origins)
        """Origins of pages elsewhere that may connect."""
        self._connections = connections
        self._limiter = AnswerLimiter(per_address)
        self._ways: dict[str, _Way] = {}
        self._socket_io: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._message_size = message_size
        logger = logging.getLogger("turnsvr.signalling")
        self._sio = socketio.AsyncServer(
            async_mode="asgi",
            serializer=_TextPacket,
            cors_allowed_origins=self._may_connect,
            cors_credentials=False,
            max_http_buffer_size=message_size,
            ping_interval=_PING_INTERVAL,
            ping_timeout=_PING_TIMEOUT,
            http_compression=False,
            logger=logger,
            engineio_logger=logger,
        )
        self._register()

    def mount(self, app: FastAPI) -> AsgiApp:
        """An application that serves Socket.IO and the plain WebSocket, and leaves everything else to app."""
        app.websocket(PLAIN_PATH)(self._plain)
        inner: AsgiApp = socketio.ASGIApp(self._sio, other_asgi_app=app, socketio_path=SOCKET_IO_PATH)

        async def admit(scope: Scope, receive: Receive, send: Send) -> None:
            if _opens_session(scope) and not self._admits(scope):
                await _refuse(scope, receive, send)
            else:
                await inner(scope, receive, send)

        return admit

    async def sweep(self) -> None:
        """Disconnect idle members, for ever."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for name in self.rooms.idle(self._now()):
                self._hang_up(name)

    async def stop(self) -> None:
        """Hang up on everybody."""
        for name in tuple(self._ways):
            self._hang_up(name)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        await self._sio.shutdown()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _may_connect(self, origin: str, environ: dict[str, Any]) -> bool:
        return may_call(origin, header(environ["asgi.scope"], "host"), self.origins)

    def _admits(self, scope: Scope) -> bool:
        client = scope.get("client")
        sessions = max(len(self._sio.eio.sockets), len(self._ways))
        return sessions < self._connections and self._limiter.allow(packed(client[0] if client else ""), self._now())

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
            name = self.rooms.connect(self._now())
            way = _Way(lambda: self._start(self._sio.disconnect(sid)))
            self._ways[name] = way
            self._socket_io[sid] = name, asyncio.ensure_future(self._feed(sid, way))

        async def disconnect(sid: str, reason: object = None) -> None:
            if known := self._socket_io.pop(sid, None):
                known[1].cancel()
                self._gone(known[0])
            if socket := self._engine_socket(sid):
                socket.queue.put_nowait(None)  # or a long poll would last until the next ping

        self._sio.on("connect", connect)
        self._sio.on("disconnect", disconnect)
        for kind in (JOIN, LEAVE, *PASSED_ON):
            self._sio.on(kind, self._handler(kind))

    def _handler(self, kind: str) -> Callable[..., Awaitable[Message | None]]:
        async def handle(sid: str, message: object = None, *_: object) -> Message | None:
            """The acknowledgement is what the member itself is told, an error too."""
            name = self._socket_io[sid][0] if sid in self._socket_io else ""
            deliveries = self.rooms.receive(name, kind, {} if message is None else message, self._now())
            self._deliver(deliveries)
            return next((each.message for each in deliveries if each.to == name), None)

        return handle

    def _engine_socket(self, sid: str) -> Any:
        """The Engine.IO socket below a Socket.IO connection, None when it is gone."""
        return self._sio.eio.sockets.get(self._sio.manager.eio_sid_from_sid(sid, "/"))

    async def _feed(self, sid: str, way: _Way) -> None:
        """Send a member what waits for it, in order; one that does not take it is disconnected."""
        while True:
            kind, message = await way.queue.get()
            socket = self._engine_socket(sid)
            if socket is None or socket.queue.qsize() >= _MAX_QUEUED:
                way.hang_up()
                return
            await self._sio.emit(kind, message, to=sid)

    # Plain WebSocket

    async def _plain(self, websocket: WebSocket) -> None:
        """Messages are JSON objects whose `type` is join, offer, answer, candidate or leave."""
        scope = websocket.scope
        if not may_call(header(scope, "origin"), header(scope, "host"), self.origins):
            await websocket.close(_POLICY)
            return
        await websocket.accept()
        name = self.rooms.connect(self._now())
        reader = asyncio.ensure_future(self._read(websocket, name))
        way = self._ways[name] = _Way(reader.cancel)
        writer = asyncio.ensure_future(_write(websocket, way.queue))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._gone(name)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(_TRY_AGAIN_LATER)

    async def _read(self, websocket: WebSocket, name: str) -> None:
        async for text in websocket.iter_text():
            if len(text) > self._message_size:
                return
            kind, message = _parsed(text)
            self._deliver(self.rooms.receive(name, kind, message, self._now()))


class _TextPacket(Packet):  # type: ignore[misc]
    """Socket.IO without binary attachments, of which a client could announce any number."""

    def decode(self, encoded_packet: str) -> int:
        if super().decode(encoded_packet):
            raise ValueError("binary messages are not taken")
        return 0


async def _write(websocket: WebSocket, queue: Queue) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            kind, message = await queue.get()
            await websocket.send_text(json.dumps({"type": kind, **message}))


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


def _opens_session(scope: Scope) -> bool:
    if scope["type"] == "websocket" and scope["path"] == PLAIN_PATH:
        return True
    if scope["type"] not in ("http", "websocket") or not f"{scope['path']}/".startswith(SOCKET_IO_PATH):
        return False
    return b"sid=" not in scope["query_string"] and scope.get("method") != "OPTIONS"


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
        return
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"error":"too many connections"}'})
