"""The clients: each lives through one session in its own manner, and says what it saw that must not be."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.marathon.peers import TOKEN_SIZE, Peer
from turnsvr.client.credentials import Login
from turnsvr.client.dtls import DtlsContext
from turnsvr.client.link import ClientLink, DatagramLink, DtlsLink, StreamLink, new_request
from turnsvr.client.transaction import ClientError, Timers, TransactionFailed
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import Method

LIFETIME = 60
"""Seconds that the server grants at the most: what a client leaves behind is gone after so long."""

_LIFE = (2.0, 25.0)
"""Seconds that a client stays, at the least and at the most."""
_PAUSE = (0.2, 2.0)
"""Seconds between the packets of one client."""
_PATIENCE = 20.0
"""Seconds that a client waits for an answer: the process of all clients is busy."""
_WAVE, _CALM = 10.0, 30.0
"""Seconds that a flood lasts, and seconds until the next."""
_MARK_OF_INTRUDER = b"intruder".ljust(TOKEN_SIZE, b"!")
_REMEMBERED = 50_000
"""Sessions of which is remembered where they were."""


@dataclass
class Seen:
    """What all clients together have met."""

    lived: Counter[str] = field(default_factory=Counter)
    """Lives by leg and by the way in which they ended."""
    errors: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    """Packets given to the server for peers that a permission covers."""
    answered: int = 0
    """Of them, those that came back."""
    faults: list[str] = field(default_factory=list)
    """What must never be; the first hundred."""
    homes: dict[bytes, tuple[Address, Address]] = field(default_factory=dict)
    """By token the client's and the relayed address of the sessions that began last."""

    def began(self, token: bytes, client: Address, relayed: Address) -> None:
        self.homes[token] = client, relayed
        if len(self.homes) > _REMEMBERED:
            del self.homes[next(iter(self.homes))]

    def fault(self, text: str) -> None:
        if len(self.faults) < 100:
            self.faults.append(text)


@dataclass(frozen=True)
class World:
    """Where the clients are."""

    servers: dict[Transport, Address]
    """With DTLS where the compiled pump is."""
    tls: ssl.SSLContext
    dtls: DtlsContext
    logins: Sequence[Login]
    peers: Sequence[Peer]
    forbidden: Peer
    """Its address is allowed by the operator, but no client ever asks for a permission."""
    intruder: Peer
    """Sends to relayed addresses at which nobody has permitted it."""
    seen: Seen
    random: random.Random

    async def connect(self, transport: Transport, local: Address | None = None) -> ClientLink:
        timers = Timers.within(_PATIENCE)
        if transport is Transport.UDP:
            return await DatagramLink.open(self.servers[transport], local=local, timers=timers)
        if transport is Transport.DTLS:
            return await DtlsLink.connect(self.servers[transport], self.dtls, local=local, timers=timers)
        tls = self.tls if transport is Transport.TLS else None
        return await StreamLink.open(self.servers[transport], tls=tls, local=local, timers=timers)


async def live(world: World) -> None:
    """One client's life from its first packet to its end; nothing that the server answers raises."""
    transport = world.random.choice((Transport.UDP, *world.servers))
    end = world.random.choice(tuple(_ENDS))
    try:
        link = await world.connect(transport)
        await session(world, link, _ENDS[end])
    except TransactionFailed as failure:
        world.seen.errors[f"{failure.code}"] += 1
    except (ClientError, OSError) as error:
        world.seen.errors[type(error).__name__] += 1
    else:
        world.seen.lived[f"{transport.name.lower()}, {end}"] += 1


End = Callable[[World, TurnClient], Awaitable[None]]


async def session(world: World, link: ClientLink, end: End | None = None, seconds: float | None = None) -> None:
    """One session, ended in this manner; raises ClientError or OSError. seconds: how long the client stays."""
    client = TurnClient(link, world.random.choice(world.logins))
    token = secrets.token_bytes(TOKEN_SIZE)
    listener = asyncio.create_task(_listen(world, client, token))
    try:
        await client.allocate(AllocateOptions(lifetime=LIFETIME))
        world.seen.began(token, link.local, client.relayed[0])
        peer = world.random.choice(world.peers)
        if world.random.random() < 0.7:
            channel = await client.bind_channel(peer.address)
            send = lambda data: client.send_channel(channel, data)  # noqa: E731
        else:
            await client.permit(peer.address)
            send = lambda data: client.send(peer.address, data)  # noqa: E731
        await _talk(world, client, token, send, world.random.uniform(*_LIFE) if seconds is None else seconds)
        await (end or _leave)(world, client)
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError):
            await listener
        if not link.closed.done():
            await link.close()


async def _talk(world: World, client: TurnClient, token: bytes, send: Callable[[bytes], None], seconds: float) -> None:
    """Packets to the peer, some to the forbidden one, and the intruder's at our relayed address."""
    until = asyncio.get_running_loop().time() + seconds
    number = 0
    while asyncio.get_running_loop().time() < until and not client.link.closed.done():
        send(token + number.to_bytes(4, "big") + world.random.randbytes(world.random.randrange(1_000)))
        world.seen.sent += 1
        number += 1
        if number % 8 == 0:
            client.send(world.forbidden.address, token)
            world.intruder.send(_MARK_OF_INTRUDER, client.relayed[0])
        if number % 16 == 0:
            await client.refresh(LIFETIME)
        await asyncio.sleep(world.random.uniform(*_PAUSE))


async def _listen(world: World, client: TurnClient, token: bytes) -> None:
    while True:
        event = await client.receive()
        if not isinstance(event, PeerData):
            world.seen.fault(f"{client.link.local}: an ICMP error, though they are switched off")
        elif event.data[:TOKEN_SIZE] == token:
            world.seen.answered += 1
        elif event.data[:TOKEN_SIZE] == _MARK_OF_INTRUDER:
            world.seen.fault(f"{client.link.local}: data of a peer without a permission")
        else:
            _strange(world, client, event)


def _strange(world: World, client: TurnClient, event: PeerData) -> None:
    """Data of another session. What is late may be for the former tenant of an address that only the kernel knows."""
    home = world.seen.homes.get(event.data[:TOKEN_SIZE])
    if home is not None and not client.link.transport.is_stream and home[0] == client.link.local:
        world.seen.errors["data for the former tenant of a client's UDP port"] += 1
        return
    whose = f"of client {home[0]}, relayed {home[1]}" if home else "of nobody here"
    what = f"{len(event.data)} bytes from {event.peer} {whose}, {event.data[:24].hex()}"
    world.seen.fault(f"{client.link.local}, relayed {client.relayed}: {what}")


async def _leave(world: World, client: TurnClient) -> None:
    await client.close()


async def _vanish(world: World, client: TurnClient) -> None:
    """Without a word: a session over UDP or DTLS ends by its deadline, a connection's with the connection."""
    if isinstance(client.link, DtlsLink):
        await client.link.vanish()
    else:
        await client.link.close()


async def _reset(world: World, client: TurnClient) -> None:
    if isinstance(client.link, StreamLink):
        await _abort(client.link)


async def _come_back(world: World, client: TurnClient) -> None:
    """End, and be somebody else at the same address and port at once: nothing of the first session is the second's."""
    local, transport = client.link.local, client.link.transport
    if isinstance(client.link, StreamLink):
        await _abort(client.link)
    elif isinstance(client.link, DtlsLink):
        await client.link.vanish()  # the new association takes the place of the one before
    else:
        await client.close()
    try:
        link = await world.connect(transport, local)
    except OSError:
        world.seen.errors["port not free again"] += 1
        return
    await session(world, link)


async def _abort(link: StreamLink) -> None:
    """End the connection with a RST."""
    if not link.closed.done():
        sock: socket.socket = link._socket.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.abort()
    await link.closed


_ENDS: dict[str, End] = {"leaves": _leave, "vanishes": _vanish, "resets": _reset, "comes back": _come_back}


# Strangers


async def flood(world: World) -> None:
    """Refresh requests without an allocation as fast as one TCP connection takes them, in waves."""
    request = new_request(Method.REFRESH).encode()
    while True:
        with suppress(OSError, ConnectionError):
            reader, writer = await asyncio.open_connection(*world.servers[Transport.TCP])
            reading = asyncio.create_task(_swallow(reader))
            try:
                async with asyncio.timeout(_WAVE):
                    while True:
                        writer.write(request * 64)
                        await writer.drain()
                        await asyncio.sleep(0.005)
            except TimeoutError:
                pass
            finally:
                reading.cancel()
                writer.transport.abort()
        await asyncio.sleep(_CALM)


async def flood_datagrams(world: World) -> None:
    """Some thousands of the same a second over UDP from one socket, in waves."""
    request = new_request(Method.REFRESH).encode()
    link = await world.connect(Transport.UDP)
    loop = asyncio.get_running_loop()
    try:
        while True:
            until = loop.time() + _WAVE
            while loop.time() < until:
                for _ in range(20):
                    link.send(request)
                await asyncio.sleep(0.005)
            await asyncio.sleep(_CALM)
    finally:
        await link.close()


async def _swallow(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(65_536):
            pass


async def trouble(world: World) -> None:
    """Connections that say nothing, nonsense, half of something; handshakes that stop."""
    openings = (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"\x40\x00\x00\x04",
        secrets.token_bytes(40),
        b"\x00\x03\x00",
    )
    while True:
        server = world.servers[world.random.choice((Transport.TCP, Transport.TLS))]
        with suppress(OSError):
            _, writer = await asyncio.open_connection(*server)
            writer.write(world.random.choice(openings))
            await asyncio.sleep(world.random.uniform(0.1, 3))
            writer.transport.abort()


async def made_up_names(world: World) -> None:
    """Allocate requests with credentials that nobody has."""
    while True:
        with suppress(ClientError, OSError):
            link = await world.connect(Transport.UDP)
            client = TurnClient(link, Login(secrets.token_hex(8), "wrong"))
            try:
                await client.allocate()
                world.seen.fault("an allocation for a user who does not exist")
            finally:
                await link.close()
        await asyncio.sleep(0.05)


async def binding(world: World) -> None:
    while True:
        link = await world.connect(Transport.UDP)
        with suppress(ClientError, OSError):
            answer = await link.request(new_request(Method.BINDING))
            if answer.message.get(a.XOR_MAPPED_ADDRESS) != link.local:
                world.seen.fault("a Binding answer with another address")
        await link.close()
        await asyncio.sleep(0.1)
