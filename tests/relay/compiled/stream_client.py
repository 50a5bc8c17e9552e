"""Clients of which the pump has adopted the other end: over plain TCP, or over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from tests.relay.world import LOOPBACK, World, now
from turnsvr.relay.api import TlsContext, TlsHandshake
from turnsvr.relay.compiled import tls as tls_room
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.framing import StreamSplitter

PATIENCE = 10.0


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def server_context(certificate: Path, key: Path) -> TlsContext:
    like = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context = tls_room.make_context(like, certificate, key, ("stun.turn",))
    assert context is not None, tls_room.missing()
    return context


@dataclass(frozen=True)
class Contexts:
    """Both ends' of a TLS connection."""

    server: TlsContext
    client: ssl.SSLContext


class TlsEnd:
    """The client's end, between bytes that go over the socket and what they say."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing)
        self.heard_goodbye = False

    def seal(self, data: bytes) -> bytes:
        """The records of these bytes, none joined with others', and whatever else is to be sent."""
        view = memoryview(data)
        while view:
            view = view[self.object.write(view) :]
        return self._outgoing.read()

    def open(self, records: bytes) -> list[bytes]:
        """What each whole record says, in the order of arrival."""
        self._incoming.write(records)
        opened = []
        try:
            while said := self.object.read(65_536):
                opened.append(said)
        except ssl.SSLWantReadError:
            return opened
        except ssl.SSLZeroReturnError:
            pass
        self.heard_goodbye = True
        return opened

    def close_notify(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.object.unwrap()
        return self._outgoing.read()

    def shake_hands(self, connected: socket.socket, server: TlsHandshake) -> None:
        """Both ends' part of it, tickets included; connected is the client's and does not block."""
        done = served = False
        until = time.monotonic() + PATIENCE
        while not (done and served):
            assert time.monotonic() < until, "hands are never shaken"
            if not done:
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.object.do_handshake()
                    done = True
                connected.sendall(self._outgoing.read())
            served = served or not server.step()
            while select.select([connected], [], [], 0.001)[0]:
                self._incoming.write(connected.recv(65_536))


class StreamClient:
    """A connection whose other end the pump has adopted, with a session if wanted."""

    def __init__(
        self,
        world: World,
        family: Family = Family.IPV4,
        *,
        first: bytes = b"",
        session: bool = True,
        tls: Contexts | None = None,
        room: int = 0,
    ) -> None:
        """room: what the kernel keeps each way, in bytes; 0 for as much as it likes."""
        self.world = world
        with socket.create_server((LOOPBACK[family], 0), family=family.socket_family) as server:
            if room:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
            self.socket = socket.socket(family.socket_family, socket.SOCK_STREAM)
            if room:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            self.socket.connect(server.getsockname()[:2])
            served, _ = server.accept()
        served.setblocking(False)
        served.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        client_end, server_end = (Address(*each.getsockname()[:2]) for each in (self.socket, served))
        self.five_tuple = FiveTuple(Transport.TCP if tls is None else Transport.TLS, client_end, server_end)
        self.tls: TlsEnd | None = None
        handshake = None
        if tls is not None:
            self.tls = TlsEnd(tls.client)
            handshake = tls.server.handshake(served.fileno())
            self.tls.shake_hands(self.socket, handshake)
        self.number = 0
        assert world.pump.adopt(served.detach(), self.five_tuple, first, handshake)
        if session:
            self.number, opened = world.open(self.five_tuple, (family,))
            self.relayed = opened.addresses[0]
            world.pump.permit(self.number, LOOPBACK[family], now(60))
        self._splitter = StreamSplitter()
        self._frames: list[bytes] = []

    async def send(self, data: bytes, frames: int = 1) -> None:
        self.world.sent += frames
        await self.send_raw(data if self.tls is None else self.tls.seal(data))

    async def send_raw(self, data: bytes) -> None:
        """Send what is no TLS, or is sealed already."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def read(self) -> bytes:
        """The next whole frame."""
        while not self._frames:
            for said in await self.read_some():
                self._frames += self._splitter.feed(said)
        return self._frames.pop(0)

    async def read_some(self) -> list[bytes]:
        """What comes next, by record where there are any."""
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self.socket, 65_536)
        assert data, "the pump has closed the connection"
        return [data] if self.tls is None else self.tls.open(data)

    async def rest(self) -> bytes:
        """All that still comes over the socket until the pump closes it."""
        got = bytearray()
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionResetError):
                while data := await asyncio.get_running_loop().sock_recv(self.socket, 65_536):
                    got += data
        return bytes(got)

    async def is_closed(self) -> bool:
        """Whether the pump closes the connection, having sent no frame; it waits for that."""
        rest = await self.rest()
        return not rest or (self.tls is not None and not self.tls.open(rest))
