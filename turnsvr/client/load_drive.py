"""Runs many TURN sessions at once: over UDP from one epoll loop, over a connection one after the other."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle

from turnsvr.client.load_session import LoadError, PortTaken, TurnSession
from turnsvr.client.load_tls import close_tls, connect_tls, read_tls, write_tls
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import StreamSplitter

PATIENCE = 5.0
"""Seconds that a request may go without an answer before the run fails."""
_AGAIN = 0.5
"""Seconds after which a request over UDP is sent once more."""
_READ = 65_536
_MOST_TAKEN = 256
"""Ports at which the server may still hold an allocation of a client that is gone."""

OpenedSession = tuple[TurnSession, socket.socket]


@dataclass(slots=True)
class _Running:
    session: TurnSession
    socket: socket.socket
    since: float
    last: float


class UdpSessions:
    """UDP sessions to one server, each on a socket of its own, `at_once` of them under way at a time.

    hosts: local addresses to take in turn. A server may refuse a port that had an allocation a moment ago; with many
    addresses none comes twice.
    """

    def __init__(
        self, server: Address, make: Callable[[], TurnSession], *, at_once: int = 32, hosts: Sequence[str] = ()
    ) -> None:
        self._server = server
        self._make = make
        self._at_once = at_once
        self._hosts = cycle(hosts or (None,))
        self._epoll = select.epoll()
        self._running: dict[int, _Running] = {}
        self._taken = 0

    def open(self, count: int) -> Iterator[OpenedSession]:
        """Sessions whose steps are done, as they get there. Raises LoadError, and closes the unfinished sockets."""
        started = opened = 0
        try:
            while opened < count:
                while started < count and len(self._running) < self._at_once:
                    self._start()
                    started += 1
                for done in self._step():
                    opened += 1
                    yield done
        finally:
            self._stop()

    def repeat(self, seconds: float) -> int:
        """How many sessions went through all their steps in that time. Raises LoadError."""
        finished = 0
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                while len(self._running) < self._at_once:
                    self._start()
                for _, sock in self._step():
                    finished += 1
                    sock.close()
        finally:
            self._stop()
        return finished

    def _start(self) -> None:
        sock = udp_socket(self._server, local=next(self._hosts))
        now = time.monotonic()
        running = _Running(self._make(), sock, now, now)
        self._running[sock.fileno()] = running
        self._epoll.register(sock, select.EPOLLIN)
        _send(running)

    def _step(self) -> Iterator[OpenedSession]:
        ready = self._epoll.poll(_AGAIN / 2)
        now = time.monotonic()
        for descriptor, _ in ready:
            running = self._running[descriptor]
            try:
                answered = running.session.answer(_receive(running.socket))
            except PortTaken:
                self._elsewhere(descriptor, running)
                continue
            if not answered:
                continue
            if running.session.done:
                del self._running[descriptor]
                self._epoll.unregister(descriptor)
                yield running.session, running.socket
            else:
                running.since = running.last = now
                _send(running)
        if not ready:
            self._again(now)

    def _elsewhere(self, descriptor: int, running: _Running) -> None:
        """Begin again on another port. Raises PortTaken after too many."""
        self._taken += 1
        if self._taken > _MOST_TAKEN:
            raise PortTaken("the server refuses too many allocations with 437")
        del self._running[descriptor]
        self._start()
        running.socket.close()

    def _again(self, now: float) -> None:
        for running in self._running.values():
            if now - running.since > PATIENCE:
                raise LoadError(f"{self._server} does not answer")
            if now - running.last > _AGAIN:
                running.last = now
                _send(running)

    def _stop(self) -> None:
        """End the unfinished sessions' allocations; closing the sockets takes them out of the epoll set as well."""
        for running in self._running.values():
            if running.session.relayed is not None:
                with suppress(OSError):
                    running.socket.send(running.session.finish())
            running.socket.close()
        self._running.clear()


class StreamConnection:
    """A TCP, TLS or DTLS connection to the server; blocking until release() hands it to the core."""

    def __init__(self, server: Address, transport: Transport) -> None:
        """Connect; raises OSError."""
        if transport is Transport.DTLS:
            self.socket = udp_socket(server)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(PATIENCE), 0))
        else:
            self.socket = socket.create_connection(server, timeout=PATIENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = 0
        if transport.is_encrypted:
            # A timeout makes Python switch the descriptor to non-blocking, which the handshake cannot have.
            self.socket.setblocking(True)
            try:
                self.tls = connect_tls(self.socket, datagrams=transport is Transport.DTLS)
            except OSError:
                self.socket.close()
                raise
        self._splitter = StreamSplitter()
        self._frames: deque[bytes] = deque()

    def run(self, session: TurnSession) -> None:
        """Take the session through its steps. Raises LoadError or OSError."""
        while not session.done:
            self.send(session.request())
            while not session.answer(self._frame()):
                pass

    def send(self, data: bytes) -> None:
        if self.tls:
            write_tls(self.tls, data)
        else:
            self.socket.sendall(data)

    def release(self) -> None:
        """Blocking no more."""
        self.socket.setblocking(False)

    def close(self) -> None:
        if self.tls:
            close_tls(self.tls)
            self.tls = 0
        self.socket.close()

    def _frame(self) -> bytes:
        while not self._frames:
            data = read_tls(self.tls) if self.tls else self.socket.recv(_READ)
            if not data and not self.tls:
                raise LoadError("the server closed the connection")
            try:
                self._frames.extend(self._splitter.feed(data))
            except MalformedMessage as error:
                raise LoadError(f"the server sends {error}") from None
        return self._frames.popleft()


def udp_socket(remote: Address | None = None, *, local: str | None = None) -> socket.socket:
    """A UDP socket that does not block, connected to remote, bound to a free port of the address `local`."""
    family = (remote.family if remote else Address(local or "127.0.0.1", 0).family).socket_family
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if local is not None:
            sock.bind((local, 0))
        if remote is not None:
            sock.connect(remote)
    except OSError:
        sock.close()
        raise
    return sock


def _send(running: _Running) -> None:
    try:
        running.socket.send(running.session.request())
    except BlockingIOError:
        pass
    except ConnectionRefusedError as error:
        raise LoadError(f"nothing serves there: {error.strerror}") from None


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_READ)
    except BlockingIOError:
        return b""
    except ConnectionRefusedError as error:
        raise LoadError(f"nothing serves there: {error.strerror}") from None
