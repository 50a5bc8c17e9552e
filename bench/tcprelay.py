"""Relaying over TCP (RFC 6062) on one running server: bytes that arrive, and what they cost, as fast as it takes them.

Each client has an allocation and one connection to a peer. Who sends always has something to send, so the server is at
its limit, or the generator is.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench import process
from bench.servers import PEER_HOST, Running
from bench.statistics import Reading
from turnsvr.client.link import StreamLink
from turnsvr.client.load_session import LoadError
from turnsvr.client.load_values import Direction
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import TCP_PROTOCOL, AllocateOptions, TurnClient
from turnsvr.stun.address import Address

_BLOCK = 256 * 1024
"""Bytes that are offered, or received, in one call."""
_FULL = 0.95
"""Part of a core from which on the generator is said to be at its limit."""
_WARM_UP = 1 / 3
"""Part of the seconds asked for that run before they count."""
_DRAIN = 5.0
"""Seconds for what is under way to arrive in the end."""
_SHORT = 0.05
_LISTEN_PATIENCE = 10.0

Ends = tuple[socket.socket, socket.socket]
"""The client's end of a connection and the peer's."""


def measure(running: Running, direction: Direction, flows: int, seconds: float) -> Reading:
    """Bytes a second, and CPU seconds a byte. Raises LoadError where a byte is lost, ServerFailed or OSError."""
    with _connections(running, flows) as ends, _Load(ends, direction) as load:
        load.run(seconds * _WARM_UP)
        received, cpu, own = load.received, process.cpu_seconds(running.pid), time.process_time()
        began = time.monotonic()
        load.run(seconds)
        took = time.monotonic() - began
        cpu, own = process.cpu_seconds(running.pid) - cpu, time.process_time() - own
        received = load.received - received
        load.drain()
        running.check()
    if not received:
        raise LoadError(f"{running.server.name} relayed nothing over TCP")
    limited = own >= _FULL * took > cpu
    return {"bytes": received / took, "byte_cpu": cpu / received, "generator_limited": float(limited)}


class _Load:
    """Senders that never rest, and their receivers."""

    def __init__(self, ends: Sequence[Ends], direction: Direction) -> None:
        ways = [(client, peer) if direction is Direction.UP else (peer, client) for client, peer in ends]
        self._senders = {sender.fileno(): sender for sender, _ in ways}
        self._receivers = {receiver.fileno(): receiver for _, receiver in ways}
        self._out, self._in = memoryview(bytes(_BLOCK)), bytearray(_BLOCK)
        self._poll = select.epoll()
        for number in self._senders:
            self._poll.register(number, select.EPOLLOUT)
        for number in self._receivers:
            self._poll.register(number, select.EPOLLIN)
        self.sent = 0
        self.received = 0

    def __enter__(self) -> _Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._turn()

    def drain(self) -> None:
        """Send no more; raises LoadError unless all that was sent arrives."""
        for number in self._senders:
            self._poll.unregister(number)
        self._senders.clear()
        end = time.monotonic() + _DRAIN
        while self.received < self.sent and time.monotonic() < end:
            self._turn()
        if self.received != self.sent:
            raise LoadError(f"{self.sent} bytes were sent over TCP and {self.received} arrived")

    def _turn(self) -> None:
        for number, _ in self._poll.poll(_SHORT):
            sender = self._senders.get(number)
            if sender is not None:
                self.sent += sender.send(self._out)
                continue
            size = self._receivers[number].recv_into(self._in)
            if not size:
                raise LoadError("a connection to a peer was closed")
            self.received += size


@contextmanager
def _connections(running: Running, flows: int) -> Iterator[list[Ends]]:
    """Joined connections. While they are used asyncio does nothing: their sockets are read and written as they are."""
    with asyncio.Runner() as runner, ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((PEER_HOST, 0), backlog=flows))
        links: list[StreamLink] = []
        try:
            ends = [runner.run(_connect(running, listener, links)) for _ in range(flows)]
            for each in ends:
                for end in each:
                    stack.enter_context(end)
                    end.setblocking(False)
            yield ends
        except ClientError as error:
            raise LoadError(f"{running.server.name}: {error}") from error
        finally:
            runner.run(_close(links))


async def _connect(running: Running, listener: socket.socket, links: list[StreamLink]) -> Ends:
    """One connection of a client that is made for it."""
    control, data = await _link(running), await _link(running)
    links += (control, data)
    client = TurnClient(control, running.server.login)
    await client.allocate(AllocateOptions(transport=TCP_PROTOCOL))
    connection = await client.connect(Address(*listener.getsockname()))
    peer, _ = listener.accept()
    stream = await client.join(connection, data)
    of_asyncio = stream.transport.get_extra_info("socket")
    return socket.socket(fileno=socket.dup(of_asyncio.fileno())), peer


async def _link(running: Running) -> StreamLink:
    """To a server that may have answered over UDP before it listens for this."""
    deadline = time.monotonic() + _LISTEN_PATIENCE
    while True:
        try:
            return await StreamLink.open(running.address)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_SHORT)


async def _close(links: Sequence[StreamLink]) -> None:
    for link in links:
        link.abort()
        await link.closed
