"""A server that relays over TCP (RFC 6062), clients of it, and peers, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of
from tests.net.test_streams import insecure
from turnsvr.app.application import Application
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink
from turnsvr.client.rawstream import RawStream
from turnsvr.client.turn import TCP_PROTOCOL, AllocateOptions, TurnClient
from turnsvr.stun.address import Address, Family

KINDS = ["portable", "compiled", "compiled, but for TLS"]
WAYS = ["tcp", "tls"]
RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER of a socket that resets its connection when it is closed."""


class World:
    """A server, and whoever talks to it."""

    def __init__(self, serve: Serve, kind: str, way: str) -> None:
        self.way = way
        self._serve = serve
        self._kind = kind.partition(",")[0]
        self._links: list[StreamLink] = []
        self._sockets: list[socket.socket] = []
        self.application: Application

    async def start(self, **sections: Any) -> None:
        limits = {"allocations_per_user": 100, **sections.pop("limits", {})}
        self.application = await self._serve(
            pump={"kind": self._kind},
            listen=["tcp://127.0.0.1:0", "tls://127.0.0.1:0"],
            relay={"addresses": ["127.0.0.1", "::1"], "tcp": True},
            peers=sections.pop("peers", {"allow": ["127.0.0.1", "::1"]}),
            limits=limits,
            **sections,
        )

    async def client(self) -> TurnClient:
        address = address_of(self.application, self.way)
        link = await StreamLink.open(address, tls=insecure() if self.way == "tls" else None)
        return TurnClient(self.keep_link(link), Login(USER, PASSWORD))

    async def allocated(self, family: Family = Family.IPV4) -> TurnClient:
        client = await self.client()
        await client.allocate(AllocateOptions(transport=TCP_PROTOCOL, family=family))
        return client

    async def bound(self, connection: int) -> RawStream:
        return await (await self.client()).bind_connection(connection)

    @property
    def connections(self) -> int:
        return self.application.rooms.engine.server.peer_connections()

    def keep_link(self, link: StreamLink) -> StreamLink:
        """One that is dropped in the end."""
        self._links.append(link)
        return link

    def keep(self, sock: socket.socket) -> socket.socket:
        """One that does not block, and is closed in the end."""
        sock.setblocking(False)
        self._sockets.append(sock)
        return sock

    def end(self) -> None:
        for link in self._links:
            link.abort()
        for sock in self._sockets:
            sock.close()


class Peer:
    """A listening socket of a peer, and what it has accepted; all are closed with the world."""

    def __init__(self, world: World, host: str = "127.0.0.1") -> None:
        self._world = world
        self.listener = world.keep(socket.create_server((host, 0), family=Address(host, 0).family.socket_family))
        self.address = Address(*self.listener.getsockname()[:2])

    async def accept(self) -> socket.socket:
        async with asyncio.timeout(PATIENCE):
            accepted, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        return self._world.keep(accepted)


async def receive(sock: socket.socket, size: int = 65_536) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.get_running_loop().sock_recv(sock, size)


async def receive_all(sock: socket.socket) -> bytes:
    parts = []
    while data := await receive(sock):
        parts.append(data)
    return b"".join(parts)


async def send(sock: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def read(stream: RawStream, size: int) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await stream.read_exactly(size)


async def read_all(stream: RawStream) -> bytes:
    parts = []
    async with asyncio.timeout(PATIENCE):
        while data := await stream.read():
            parts.append(data)
    return b"".join(parts)


async def is_over(stream: RawStream) -> bool:
    try:
        return await read_all(stream) == b""
    except ConnectionError:
        return True


async def is_closed(sock: socket.socket) -> bool:
    try:
        return await receive(sock) == b""
    except ConnectionError:
        return True
