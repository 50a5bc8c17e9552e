"""A server that relays over TCP (RFC 6062), for a target of the fuzzers: a connection is raw behind ConnectionBind."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import socket
from functools import cache

from turnsvr.app.application import Application
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink, new_request
from turnsvr.client.turn import TCP_PROTOCOL, AllocateOptions, TurnClient
from turnsvr.config.settings import Settings
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address
from turnsvr.stun.message import HEADER_SIZE, Class, Message, Method

_PATIENCE = 10.0
_USER, _PASSWORD = "alice", "wonderland"
_SETTINGS = {
    "listen": ["tcp://127.0.0.1:0"],
    "relay": {"addresses": ["127.0.0.1"], "tcp": True},
    "credentials": {"users": {_USER: _PASSWORD}},
    "peers": {"allow": ["127.0.0.1"]},
    "limits": {"peer_connect_rate_per_user": 0, "peer_connect_rate_per_address": 0},
    "admin": {"socket": "off"},
}


class JoinedConnections:
    """What is fed goes to a peer right behind the request that binds a connection to it, cut in places of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._run = self._loop.run_until_complete
        self._application = Application(Settings.model_validate(_SETTINGS))
        self._run(self._application.start())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._client = self._run(self._allocated())

    async def _allocated(self) -> TurnClient:
        listening = self._application.listening[0]
        self._server = Address(listening.host, listening.port)
        client = TurnClient(await StreamLink.open(self._server), Login(_USER, _PASSWORD))
        await client.allocate(AllocateOptions(transport=TCP_PROTOCOL))
        return client

    def feed(self, data: bytes) -> None:
        """Raises AssertionError where the peer gets other bytes than were sent, or the client than the peer sent."""
        self._run(asyncio.wait_for(self._feed(data), _PATIENCE))

    async def _feed(self, data: bytes) -> None:
        number = await self._client.connect(Address(*self._listener.getsockname()))
        peer, _ = await self._loop.sock_accept(self._listener)
        assert self._client.session is not None
        request = self._client.session.sign(new_request(Method.CONNECTION_BIND).add(a.CONNECTION_ID, number))
        reader, writer = await asyncio.open_connection(*self._server)
        try:
            sent = request + data
            for piece in _pieces(sent, data):
                writer.write(piece)
                await asyncio.sleep(0)
            writer.write_eof()
            assert await _all(self._loop, peer) == data
            await self._loop.sock_sendall(peer, data[::-1])
            peer.shutdown(socket.SHUT_WR)
            head = await reader.readexactly(HEADER_SIZE)
            answer = Message.parse(head + await reader.readexactly(int.from_bytes(head[2:4], "big")))
            assert answer.message_class is Class.SUCCESS
            assert await reader.read(-1) == data[::-1]
        finally:
            peer.close()
            writer.transport.abort()
            while self._application.server.peer_connections():  # noqa: ASYNC110 - the next one has the same addresses
                await asyncio.sleep(0.0005)

    def close(self) -> None:
        self._run(self._client.close())
        self._run(self._application.stop())
        self._listener.close()
        self._loop.close()


def _pieces(sent: bytes, data: bytes) -> list[bytes]:
    """Cut where the data say, in four places at the most."""
    cuts = sorted({each * len(sent) // 255 for each in data[:4]} | {0, len(sent)})
    return [sent[start:end] for start, end in itertools.pairwise(cuts)]


async def _all(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> bytes:
    peer.setblocking(False)
    parts = []
    while part := await loop.sock_recv(peer, 65_536):
        parts.append(part)
    return b"".join(parts)


@cache
def joined_connections() -> JoinedConnections:
    """One server for all inputs."""
    made = JoinedConnections()
    atexit.register(made.close)
    return made
