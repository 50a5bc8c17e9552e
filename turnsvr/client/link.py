"""Sockets of a client: UDP, TCP, TLS or DTLS, with the transactions that run over it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from turnsvr.client.dtls import DtlsContext, DtlsEnd
from turnsvr.client.libssl import TlsError
from turnsvr.client.rawstream import RawStream
from turnsvr.client.transaction import Accept, Response, Timers, Transactions
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import StreamSplitter
from turnsvr.stun.message import Class, Message, is_stun

ALPN = ("stun.turn", "stun.nat-discovery")
"""RFC 7443."""

FrameHandler = Callable[[bytes, Address], None]

_BOUND = b"\x01\x0b"
"""How the success response of ConnectionBind begins (RFC 6062 section 6.1)."""

_CLOSE_PATIENCE = 1.0
"""Seconds that a TLS peer gets to answer our close_notify."""


class LinkClosed(ConnectionError):
    """The connection is gone."""


class ClientLink:
    """What carries messages; what answers no request of this link goes to `handler`, ChannelData likewise."""

    transport: Transport
    local: Address
    remote: Address | None
    handler: FrameHandler | None = None
    tls_version: str | None = None
    """Such as "TLSv1.3"; None where nothing is encrypted."""

    def __init__(self, transport: Transport, timers: Timers) -> None:
        self.transport = transport
        self.timers = timers
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transactions = Transactions(self._transmit, asyncio.get_running_loop().time, reliable=transport.is_stream)

    def send(self, data: bytes, to: Address | None = None) -> None:
        """Send one frame, over UDP to `to` or to the remote address; a stream wants ChannelData padded."""
        self._transmit(data, to or self._destination)

    async def exchange(
        self,
        data: bytes,
        transaction_id: bytes,
        *,
        to: Address | None = None,
        timers: Timers | None = None,
        accept: Accept | None = None,
    ) -> Response:
        """Send an encoded request and wait for its answer.

        Raises TransactionTimeout, TransactionFailed for an error response, OSError when the socket says that
        the server cannot be reached.
        """
        if self.closed.done():
            raise LinkClosed("the connection is closed")
        to = to or self._destination
        return await self._transactions.run(data, to, transaction_id, timers or self.timers, accept)

    async def request(self, message: Message, *, to: Address | None = None, timers: Timers | None = None) -> Response:
        """exchange() for a message without credentials."""
        return await self.exchange(message.encode(fingerprint=True), message.transaction_id, to=to, timers=timers)

    async def close(self) -> None:
        """Close the socket; requests that still wait end with LinkClosed."""
        raise NotImplementedError

    @property
    def _destination(self) -> Address:
        if self.remote is None:
            raise ValueError("this socket has no remote address of its own: say where to")
        return self.remote

    def _transmit(self, data: bytes, to: Address) -> None:
        raise NotImplementedError

    def _frame_received(self, frame: bytes, source: Address) -> None:
        if is_stun(frame):
            try:
                message = Message.parse(frame)
            except MalformedMessage:
                return
            is_answer = message.message_class in (Class.SUCCESS, Class.ERROR)
            if is_answer and self._transactions.received(message, source):
                return
        if self.handler is not None:
            self.handler(frame, source)

    def _lost(self, error: Exception | None) -> None:
        self._transactions.fail(error or LinkClosed("the server closed the connection"))
        if not self.closed.done():
            self.closed.set_result(None)


class DatagramLink(ClientLink, asyncio.DatagramProtocol):
    """A UDP socket: with a remote address it is connected, so that "port unreachable" ends requests at once."""

    _socket: asyncio.DatagramTransport

    @classmethod
    async def open(
        cls, remote: Address | None = None, *, local: Address | None = None, timers: Timers | None = None
    ) -> DatagramLink:
        """A socket bound to local, at a free port when that is 0. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_datagram_endpoint(
            lambda: cls(Transport.UDP, timers or Timers()), local_addr=local, remote_addr=remote
        )
        link.remote = remote
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.DatagramTransport, transport)
        self.local = _address(self._socket.get_extra_info("sockname"))

    @property
    def socket(self) -> socket.socket:
        return cast(socket.socket, self._socket.get_extra_info("socket"))

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._frame_received(data, _address(addr))

    def error_received(self, exc: Exception) -> None:
        self._transactions.fail(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)

    async def close(self) -> None:
        self._socket.close()
        await self.closed

    def _transmit(self, data: bytes, to: Address) -> None:
        self._socket.sendto(data, None if self.remote else to)


class StreamLink(ClientLink, asyncio.Protocol):
    """A TCP or TLS connection."""

    _socket: asyncio.Transport

    def __init__(self, transport: Transport, timers: Timers) -> None:
        super().__init__(transport, timers)
        self._splitter = StreamSplitter()
        self._raw: RawStream | None = None
        self._may_be_bound = False

    def expect_bind(self, expected: bool) -> None:
        """Whether a request is out whose success makes the connection raw."""
        self._may_be_bound = expected

    def raw(self) -> RawStream:
        """What the connection carries since a ConnectionBind request has succeeded."""
        if self._raw is None:
            raise ValueError("the connection is not bound to one to a peer")
        return self._raw

    @classmethod
    async def open(
        cls,
        remote: Address,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        local: Address | None = None,
        timers: Timers | None = None,
    ) -> StreamLink:
        """Connect, within timers.ti seconds; server_name is what the certificate has to be for.

        Raises OSError, of which TimeoutError and ssl.SSLError are kinds.
        """
        timers = timers or Timers()
        transport = Transport.TLS if tls else Transport.TCP
        async with asyncio.timeout(timers.ti):
            _, link = await asyncio.get_running_loop().create_connection(
                lambda: cls(transport, timers),
                *remote,
                ssl=tls,
                server_hostname=(server_name or remote.host) if tls else None,
                local_addr=local,
                ssl_shutdown_timeout=_CLOSE_PATIENCE if tls else None,
            )
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast(asyncio.Transport, transport)
        self.local = _address(transport.get_extra_info("sockname"))
        self.remote = _address(transport.get_extra_info("peername"))
        tls = transport.get_extra_info("ssl_object")
        self.tls_version = tls.version() if tls else None

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.received(data)
            return
        try:
            frames = self._splitter.feed(data)
        except MalformedMessage as error:
            self._transactions.fail(LinkClosed(f"the server sent what is no STUN: {error}"))
            self._socket.abort()
            return
        source = self._destination
        for at, frame in enumerate(frames, 1):
            if self._may_be_bound and frame.startswith(_BOUND):
                self._raw = RawStream(self._socket)
                self._raw.received(b"".join(frames[at:]) + self._splitter.take())
                self._frame_received(frame, source)
                return
            self._frame_received(frame, source)

    def eof_received(self) -> bool:
        """Whether asyncio is to keep the connection: a raw one, for what is still to be sent."""
        if self._raw is None:
            return False
        self._raw.ended()
        return self.transport is Transport.TCP

    def pause_writing(self) -> None:
        if self._raw is not None:
            self._raw.pause()

    def resume_writing(self) -> None:
        if self._raw is not None:
            self._raw.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._raw is not None:
            self._raw.lost(exc)
        self._lost(exc)

    async def close(self) -> None:
        self._socket.close()
        await self.closed

    def abort(self) -> None:
        """Drop the connection without a goodbye."""
        self._socket.abort()

    def _transmit(self, data: bytes, to: Address) -> None:
        self._socket.write(data)


class DtlsLink(DatagramLink):
    """What goes over the socket are records; everything else is as over UDP."""

    _end: DtlsEnd
    _ready: asyncio.Future[None]
    _timer: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(
        cls,
        remote: Address,
        context: DtlsContext,
        *,
        server_name: str | None = None,
        local: Address | None = None,
        timers: Timers | None = None,
    ) -> DtlsLink:
        """Shake hands, within timers.ti seconds; server_name is what the certificate has to be for.

        local: where the client is; anywhere when absent. Raises OSError, of which TimeoutError and TlsError are kinds.
        """
        timers = timers or Timers()
        loop = asyncio.get_running_loop()
        _, link = await loop.create_datagram_endpoint(
            lambda: cls(Transport.DTLS, timers), local_addr=local, remote_addr=remote
        )
        link.remote = remote
        link._end = DtlsEnd(context, server_name or remote.host)
        link._ready = loop.create_future()
        try:
            async with asyncio.timeout(timers.ti):
                link._carry_out(link._end.begin())
                await link._ready
            link.tls_version = link._end.version
        except BaseException:
            await link.close()
            raise
        return link

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        try:
            said, answers = self._end.receive(data)
        except TlsError as error:
            self._carry_out(self._end.pending())
            self._fail(error)
            return
        self._carry_out(answers)
        if self._end.is_shaken and not self._ready.done():
            self._ready.set_result(None)
        for message in said:
            self._frame_received(message, self._destination)
        if self._end.is_over:
            self._transactions.fail(LinkClosed("the server ended the association"))

    def error_received(self, exc: Exception) -> None:
        if not self._ready.done():
            self._ready.set_exception(exc)
        super().error_received(exc)

    async def close(self) -> None:
        if self._end.is_shaken and not self.closed.done():
            self._carry_out(self._end.close())
        await self.vanish()

    async def vanish(self) -> None:
        """End without a word to the server."""
        if self._timer is not None:
            self._timer.cancel()
        await super().close()

    def _transmit(self, data: bytes, to: Address) -> None:
        self._carry_out(self._end.seal(data))

    def _carry_out(self, datagrams: list[bytes]) -> None:
        """Send datagrams, and wait for what is to come after them."""
        for datagram in datagrams:
            self._socket.sendto(datagram)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait = self._end.timeout()
        if wait is not None and not self._socket.is_closing():
            self._timer = asyncio.get_running_loop().call_later(max(wait, 0.001), self._late)

    def _late(self) -> None:
        self._timer = None
        try:
            self._carry_out(self._end.handle_timeout())
        except TlsError as error:
            self._fail(error)

    def _fail(self, error: TlsError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
        self._transactions.fail(error)


async def open_link(
    transport: Transport,
    remote: Address,
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    timers: Timers | None = None,
) -> DatagramLink | StreamLink:
    """A link to one server over the transport asked for. Raises OSError.

    TLS and DTLS want a context; of that DTLS goes by whether it verifies, and trusts what the system does.
    """
    if transport is Transport.UDP:
        return await DatagramLink.open(remote, timers=timers)
    if transport is Transport.TCP:
        return await StreamLink.open(remote, timers=timers)
    if tls is None:
        raise ValueError("TLS without a context")
    if transport is Transport.DTLS:
        context = DtlsContext(insecure=tls.verify_mode is ssl.CERT_NONE, protocols=ALPN)
        return await DtlsLink.connect(remote, context, server_name=server_name, timers=timers)
    return await StreamLink.open(remote, tls=tls, server_name=server_name, timers=timers)


def tls_context(*, insecure: bool = False, ca_file: str | None = None) -> ssl.SSLContext:
    """What a careful client uses; insecure accepts any certificate, for servers with one made for the run."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(list(ALPN))
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def new_request(method: int) -> Message:
    """An empty request with a transaction id of its own."""
    return Message(method, Class.REQUEST, secrets.token_bytes(12))


def _address(name: tuple[Any, ...]) -> Address:
    return Address(str(name[0]), int(name[1]))
