"""A TURN client: one allocation and everything a client does with it (RFC 8656)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from turnsvr.client.credentials import LiveLogin, Login, challenged
from turnsvr.client.link import ClientLink, StreamLink, new_request
from turnsvr.client.rawstream import RawStream
from turnsvr.client.transaction import ClientError, Response, Timers, TransactionFailed
from turnsvr.stun.address import Address, Family
from turnsvr.stun.attributes import (
    ADDITIONAL_ADDRESS_FAMILY,
    ADDRESS_ERROR_CODE,
    CHANNEL_NUMBER,
    CONNECTION_ID,
    DATA,
    DONT_FRAGMENT,
    EVEN_PORT,
    ICMP,
    LIFETIME,
    MOBILITY_TICKET,
    REQUESTED_ADDRESS_FAMILY,
    REQUESTED_TRANSPORT,
    RESERVATION_TOKEN,
    SOFTWARE,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    AddressError,
    EvenPort,
    Icmp,
)
from turnsvr.stun.errors import ErrorCode, MalformedMessage
from turnsvr.stun.framing import CHANNEL_FIRST, CHANNEL_LAST, is_channel_data, pack_channel_data, unpack_channel_data
from turnsvr.stun.message import Class, Message, Method

UDP_PROTOCOL = 17
TCP_PROTOCOL = 6
"""REQUESTED-TRANSPORT for relaying over UDP, and over TCP (RFC 6062)."""

_MAX_WAITING = 1024
"""Packets from peers that wait for receive(); the oldest goes."""
_MAX_CHALLENGES = 3
"""A 401, a 438 for a nonce that has just expired, and one to spare."""


@dataclass(frozen=True, slots=True)
class PeerData:
    """A packet from a peer; channel is None when it came as a Data indication."""

    peer: Address
    data: bytes
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class PeerError:
    """An ICMP error that a packet to the peer met (RFC 8656 section 11.5)."""

    peer: Address
    icmp: Icmp


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A peer has connected to the relayed transport address (RFC 6062 section 4.4)."""

    peer: Address
    connection: int
    """For bind_connection() of another client."""


@dataclass(frozen=True, slots=True)
class AllocateOptions:
    """What an Allocate request may ask for beyond the default (RFC 8656 section 7.1)."""

    lifetime: int | None = None
    """Seconds."""
    family: Family | None = None
    additional_family: Family | None = None
    even_port: EvenPort | None = None
    reservation_token: bytes | None = None
    dont_fragment: bool = False
    transport: int = UDP_PROTOCOL
    mobile: bool = False
    """A ticket with which the allocation goes along to another link (RFC 8016)."""

    def add_to(self, request: Message) -> None:
        request.add(REQUESTED_TRANSPORT, self.transport)
        if self.lifetime is not None:
            request.add(LIFETIME, self.lifetime)
        if self.family is not None:
            request.add(REQUESTED_ADDRESS_FAMILY, self.family)
        if self.additional_family is not None:
            request.add(ADDITIONAL_ADDRESS_FAMILY, self.additional_family)
        if self.even_port is not None:
            request.add(EVEN_PORT, self.even_port)
        if self.reservation_token is not None:
            request.add(RESERVATION_TOKEN, self.reservation_token)
        if self.dont_fragment:
            request.add(DONT_FRAGMENT, True)
        if self.mobile:
            request.add(MOBILITY_TICKET, b"")


class BadResponse(ClientError):
    """A success response that lacks what it must have."""


class TurnClient:
    """The client's end of a five-tuple: requests with credentials, and one allocation at most."""

    def __init__(self, link: ClientLink, login: Login | None, *, timers: Timers | None = None) -> None:
        """Takes over the link's handler; close() closes the link."""
        self.link = link
        self.login = login
        self.session: LiveLogin | None = None
        self.relayed: tuple[Address, ...] = ()
        self.mapped: Address | None = None
        self.lifetime = 0
        """Seconds, as the server granted last."""
        self.reservation_token: bytes | None = None
        self.ticket: bytes | None = None
        """The mobility ticket that is good now, where the server gives any."""
        self.address_error: AddressError | None = None
        self.software: str | None = None
        self.dropped = 0
        """Packets that were dropped because the program did not read them in time."""
        self._timers = timers
        self._channels: dict[int, Address] = {}
        self._waiting: asyncio.Queue[PeerData | PeerError | PeerConnected] = asyncio.Queue(_MAX_WAITING)
        link.handler = self._received

    async def binding(self) -> Response:
        """A plain Binding request on this five-tuple."""
        return await self.link.request(new_request(Method.BINDING), timers=self._timers)

    async def allocate(self, options: AllocateOptions = AllocateOptions()) -> Response:
        """Ask for relayed transport addresses.

        Raises ClientError of a kind (TransactionFailed, TransactionTimeout, …) or OSError.
        """
        response = await self.request(Method.ALLOCATE, options.add_to)
        try:
            self._take_allocation(response.message)
        except MalformedMessage as error:
            raise BadResponse(str(error)) from error
        return response

    def _take_allocation(self, message: Message) -> None:
        relayed, lifetime = tuple(message.all(XOR_RELAYED_ADDRESS)), message.get(LIFETIME)
        if not relayed or lifetime is None:
            raise BadResponse("an Allocate success response without XOR-RELAYED-ADDRESS or LIFETIME")
        self.relayed = relayed
        self.lifetime = lifetime
        self.mapped = message.get(XOR_MAPPED_ADDRESS)
        self.reservation_token = message.get(RESERVATION_TOKEN)
        self.ticket = message.get(MOBILITY_TICKET)
        self.address_error = message.get(ADDRESS_ERROR_CODE)
        self.software = message.get(SOFTWARE)

    async def refresh(self, lifetime: int | None = None, *, family: Family | None = None) -> Response:
        """Extend the allocation, or end it with lifetime 0 (seconds); with family that half of a dual one only."""

        def fill(request: Message) -> None:
            if lifetime is not None:
                request.add(LIFETIME, lifetime)
            if family is not None:
                request.add(REQUESTED_ADDRESS_FAMILY, family)

        response = await self.request(Method.REFRESH, fill)
        granted = response.message.get(LIFETIME)
        if granted is None:
            raise BadResponse("a Refresh success response without LIFETIME")
        self.lifetime = granted
        if lifetime == 0:
            self.relayed = tuple(address for address in self.relayed if family and address.family is not family)
        return response

    async def move(self, link: ClientLink) -> ClientLink:
        """Go on from another link with the same allocation; returns the one that was left, which is the caller's.

        Until something is sent from the new one, data may still come from the old one. Raises what allocate() raises,
        and then all is as it was.
        """
        left, session, ticket = self.link, self.session, self.ticket
        if ticket is None:
            raise ClientError("the server has given no mobility ticket")
        self.link = link
        link.handler = self._received
        try:
            response = await self.request(Method.REFRESH, lambda request: request.add(MOBILITY_TICKET, ticket))
        except BaseException:
            self.link, self.session = left, session
            raise
        self.ticket = response.message.get(MOBILITY_TICKET)
        self.lifetime = response.message.get(LIFETIME) or self.lifetime
        return left

    async def permit(self, *peers: Address) -> Response:
        """Install or refresh permissions for the IP addresses of these peers."""

        def fill(request: Message) -> None:
            for peer in peers:
                request.add(XOR_PEER_ADDRESS, peer)

        return await self.request(Method.CREATE_PERMISSION, fill)

    async def bind_channel(self, peer: Address, channel: int | None = None) -> int:
        """Bind or refresh a channel to the peer, the next free number when none is given; returns the number."""
        if channel is None:
            channel = next(number for number in range(CHANNEL_FIRST, CHANNEL_LAST + 1) if number not in self._channels)

        def fill(request: Message) -> None:
            request.add(CHANNEL_NUMBER, channel).add(XOR_PEER_ADDRESS, peer)

        await self.request(Method.CHANNEL_BIND, fill)
        self._channels[channel] = peer
        return channel

    def send(self, peer: Address, data: bytes, *, dont_fragment: bool = False) -> None:
        """Send to a peer by a Send indication; nothing tells whether it arrived."""
        message = Message(Method.SEND, Class.INDICATION, new_request(Method.SEND).transaction_id)
        message.add(XOR_PEER_ADDRESS, peer)
        if dont_fragment:
            message.add(DONT_FRAGMENT, True)
        self.link.send(message.add(DATA, data).encode())

    def send_channel(self, channel: int, data: bytes) -> None:
        """Send to the peer of a channel by ChannelData."""
        self.link.send(pack_channel_data(channel, data, padded=self.link.transport.is_stream))

    async def connect(self, peer: Address) -> int:
        """Have the server connect to a peer (RFC 6062 section 4.3); the number to bind a connection of ours to."""

        def fill(request: Message) -> None:
            request.add(XOR_PEER_ADDRESS, peer)

        response = await self.request(Method.CONNECT, fill)
        connection = response.message.get(CONNECTION_ID)
        if connection is None:
            raise BadResponse("a Connect success response without CONNECTION-ID")
        return connection

    async def bind_connection(self, connection: int) -> RawStream:
        """Make this client's TCP or TLS connection one to a peer (RFC 6062 section 4.3).

        It must have no allocation, and carries nothing else from then on. Raises what allocate() raises.
        """

        def fill(request: Message) -> None:
            request.add(CONNECTION_ID, connection)

        link = self.link
        if not isinstance(link, StreamLink):
            raise ValueError("only a TCP or TLS connection can be bound to one to a peer")
        link.expect_bind(True)
        try:
            await self.request(Method.CONNECTION_BIND, fill)
        finally:
            link.expect_bind(False)
        return link.raw()

    async def join(self, connection: int, link: StreamLink) -> RawStream:
        """Have another connection of ours be one to a peer, with the nonce of this one: coturn takes no other there.

        Raises what allocate() raises.
        """
        data = TurnClient(link, self.login, timers=self._timers)
        data.session = self.session
        return await data.bind_connection(connection)

    async def receive(self) -> PeerData | PeerError | PeerConnected:
        """The next packet from a peer, an ICMP error, or a peer that has connected."""
        return await self._waiting.get()

    async def request(self, method: Method, fill: Callable[[Message], object]) -> Response:
        """A request with the attributes that fill() adds, with credentials once the server asks for them.

        Raises what allocate() raises.
        """
        for _ in range(_MAX_CHALLENGES):
            request = new_request(method)
            fill(request)
            session = self.session
            try:
                return await self.link.exchange(
                    session.sign(request) if session else request.encode(fingerprint=True),
                    request.transaction_id,
                    timers=self._timers,
                    accept=session.accepts if session else None,
                )
            except TransactionFailed as failure:
                if self.login is None or not _is_challenge(failure, session):
                    raise
                self.session = challenged(self.login, failure.response.message, session)
                last = failure
        raise last

    async def close(self) -> None:
        """End the allocation, if there is one, and close the link; what fails on the way is let go."""
        if self.relayed and not self.link.closed.done():
            with suppress(ClientError, OSError):
                await self.refresh(0)
        await self.link.close()

    def _received(self, frame: bytes, _source: Address) -> None:
        try:
            event = self._channel_data(frame) if is_channel_data(frame) else _indication(Message.parse(frame))
        except MalformedMessage:
            return
        if event is None:
            return
        if self._waiting.full():
            self._waiting.get_nowait()
            self.dropped += 1
        self._waiting.put_nowait(event)

    def _channel_data(self, frame: bytes) -> PeerData | None:
        channel, data = unpack_channel_data(frame)
        peer = self._channels.get(channel)
        return PeerData(peer, data, channel) if peer else None


def _is_challenge(failure: TransactionFailed, session: LiveLogin | None) -> bool:
    """A first 401, or a stale nonce; a 401 to a signed request says that the credentials are wrong."""
    if failure.code == ErrorCode.STALE_NONCE:
        return True
    return failure.code == ErrorCode.UNAUTHENTICATED and session is None


def _indication(message: Message) -> PeerData | PeerError | PeerConnected | None:
    if message.method == Method.CONNECTION_ATTEMPT and message.message_class is Class.INDICATION:
        peer, connection = message.get(XOR_PEER_ADDRESS), message.get(CONNECTION_ID)
        return PeerConnected(peer, connection) if peer is not None and connection is not None else None
    if message.method != Method.DATA or message.message_class is not Class.INDICATION:
        return None
    peer, data, icmp = message.get(XOR_PEER_ADDRESS), message.get(DATA), message.get(ICMP)
    if peer is None:
        return None
    if icmp is not None:
        return PeerError(peer, icmp)
    return PeerData(peer, data) if data is not None else None
