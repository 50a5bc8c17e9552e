"""What the probe tries of relaying over TCP to peers (RFC 6062), on a TCP or TLS leg.

Two allocations of their own connect to each other, relay to relay, which uses Connect, ConnectionAttempt and
ConnectionBind. Then sockets of this host are the peers: one that connects to a relayed address, and one that listens.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from turnsvr.client import outside, outside_rules
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink
from turnsvr.client.outside import CannotTell
from turnsvr.client.outside_rules import NotReached
from turnsvr.client.rawstream import RawStream
from turnsvr.client.transaction import ClientError, TransactionFailed, TransactionTimeout
from turnsvr.client.turn import TCP_PROTOCOL, AllocateOptions, PeerConnected, TurnClient
from turnsvr.stun.address import Address, Family
from turnsvr.stun.errors import ErrorCode

_SIZE = 100_000
"""Bytes that go there and back: more than one segment, and than one record of TLS."""
_NOT_SERVED = {ErrorCode.UNSUPPORTED_TRANSPORT_PROTOCOL, ErrorCode.BAD_REQUEST, ErrorCode.UNKNOWN_ATTRIBUTE}

StreamPair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotServed(Exception):
    """The server relays nothing over TCP; the text says so."""


class TcpRelaying:
    """Both steps, in order; close() ends what they have opened."""

    def __init__(
        self,
        open_link: Callable[[], Awaitable[StreamLink]],
        logins: tuple[Login | None, Login | None],
        server: Address,
        patience: float,
    ) -> None:
        """server: where this leg reaches it; patience: seconds for each wait."""
        self._open_link = open_link
        self._logins = logins
        self._server = server
        self._patience = patience
        self._links: list[StreamLink] = []
        self._clients: list[TurnClient] = []

    async def echo(self, family: Family | None) -> tuple[float, str]:
        """Bytes from one allocation to the other and back: seconds, and who connected.

        family: of the relayed addresses, None for the usual one. Raises NotServed, ClientError or OSError.
        """
        for login in self._logins:
            self._clients.append(TurnClient(await self._link(), login))
        one, other = self._clients
        options = AllocateOptions(transport=TCP_PROTOCOL, family=family)
        try:
            await one.allocate(options)
        except TransactionFailed as failure:
            if failure.code in _NOT_SERVED:
                raise NotServed("the server relays nothing over TCP to peers (relay.tcp)") from None
            raise
        await other.allocate(options)
        await other.permit(one.relayed[0])
        connection = await self._connected(one, other.relayed[0])
        arrived = await self._arrived(other)
        here, there = await self._join(one, connection), await self._join(other, arrived.connection)
        took = await self._timed(_there_and_back(here, there))
        return took, f"peer seen as {arrived.peer}"

    async def _connected(self, client: TurnClient, relayed: Address) -> int:
        """Have the server connect to another relayed address of its own, which goes through its firewall."""
        try:
            return await client.connect(relayed)
        except TransactionFailed as failure:
            if failure.code != ErrorCode.CONNECTION_TIMEOUT_OR_FAILURE:
                raise
        except TransactionTimeout:
            pass
        text = f"the server does not come through to {relayed}, its own relayed address, over TCP"
        raise NotReached(text, outside_rules.tcp_ports(relayed.host, refused=False))

    async def outside(self) -> tuple[float, str]:
        """Bytes from a socket of this host to a relayed address and back, then by a connection the other way.

        Raises CannotTell, NotReached, ClientError of other kinds, or OSError.
        """
        client = self._clients[0]
        relayed = client.relayed[0]
        mapped = outside.mapped_of_stream(client, relayed.family)
        same_host = outside.is_here(self._server)
        await outside.permit(client, mapped, self._server, same_host=same_host)
        took, peer = await self._in(client, relayed, mapped)
        back = await self._out(client, mapped)
        if same_host:
            raise CannotTell(outside_rules.own_host())
        return took, f"from {peer}; {back}"

    async def _in(self, client: TurnClient, relayed: Address, mapped: Address) -> tuple[float, Address]:
        try:
            async with asyncio.timeout(self._patience):
                own = await asyncio.open_connection(*relayed)
        except OSError as error:
            if mapped.host == relayed.host:
                raise CannotTell(outside_rules.own_address(mapped.host)) from None
            raise NotReached(
                f"no TCP connection from this host ({mapped.host}) to the relayed address {relayed}",
                outside_rules.tcp_ports(relayed.host, refused=isinstance(error, ConnectionRefusedError)),
            ) from error
        try:
            arrived = await self._arrived(client)
            took = await self._timed(_echoed(own, await self._join(client, arrived.connection)))
        finally:
            own[1].transport.abort()
        return took, arrived.peer

    async def _out(self, client: TurnClient, mapped: Address) -> str:
        """Whether the server connects to a listening socket of this host, which a NAT or firewall may well prevent."""
        accepted: asyncio.Future[StreamPair] = asyncio.get_running_loop().create_future()

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if accepted.done():
                writer.transport.abort()
            else:
                accepted.set_result((reader, writer))

        any_host = "::" if mapped.family is Family.IPV6 else "0.0.0.0"
        listening = await asyncio.start_server(take, any_host, 0, family=mapped.family.socket_family, limit=_SIZE)
        async with listening:
            peer = Address(mapped.host, listening.sockets[0].getsockname()[1])
            try:
                connection = await client.connect(peer)
            except TransactionFailed as failure:
                if failure.code not in (ErrorCode.CONNECTION_TIMEOUT_OR_FAILURE, ErrorCode.FORBIDDEN):
                    raise
                return f"not to {peer}: {failure}"
            async with asyncio.timeout(self._patience):
                own = await accepted
            try:
                await self._timed(_echoed(own, await self._join(client, connection)))
            finally:
                own[1].transport.abort()
        return f"and to {peer}"

    async def close(self) -> None:
        for client in self._clients:
            if client.relayed and not client.link.closed.done():
                with suppress(ClientError, OSError):
                    await client.refresh(0)
        for link in self._links:
            link.abort()
            await link.closed

    async def _link(self) -> StreamLink:
        link = await self._open_link()
        self._links.append(link)
        return link

    async def _join(self, client: TurnClient, connection: int) -> RawStream:
        return await client.join(connection, await self._link())

    async def _arrived(self, client: TurnClient) -> PeerConnected:
        """The next peer that has connected. Raises ClientError when none has in time."""
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    event = await client.receive()
                    if isinstance(event, PeerConnected):
                        return event
        except TimeoutError:
            raise ClientError("the server told of no peer that connected (ConnectionAttempt)") from None

    async def _timed(self, exchange: Awaitable[None]) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._patience):
                await exchange
        except (TimeoutError, asyncio.IncompleteReadError):
            raise ClientError("not all bytes came through a connection to a peer") from None
        return loop.time() - began


async def _there_and_back(here: RawStream, there: RawStream) -> None:
    payload = secrets.token_bytes(_SIZE)
    await here.write(payload)
    await there.write(await there.read_exactly(_SIZE))
    _compare(payload, await here.read_exactly(_SIZE))


async def _echoed(own: StreamPair, stream: RawStream) -> None:
    """From a socket of this host to the client, and back."""
    payload = secrets.token_bytes(_SIZE)
    reader, writer = own
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    writer.write(payload)
    await stream.write(await stream.read_exactly(_SIZE))
    _compare(payload, await reader.readexactly(_SIZE))


def _compare(sent: bytes, received: bytes) -> None:
    if sent != received:
        raise ClientError("other bytes came through a connection to a peer than went in")
