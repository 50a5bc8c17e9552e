"""An attached client's connection and a peer's, joined: bytes go from each to the other on the loop.

Each direction holds what one read has brought at the most, and is read again when the other end has taken it. The end
of one direction is passed on behind its bytes; with both, or with an error, the connection is over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from turnsvr.relay.joining import JoinedClient
from turnsvr.relay.sockets import reset_when_closed

_READ_SIZE = 65_536
_LINGER = 5.0
"""Seconds that a peer may take for the last bytes of a client that is gone."""

Count = Callable[[int, bool], float | None]
"""Counts bytes, of the client where True, and tells for how many seconds no more may be read in that direction.

None where the session has ended.
"""


class Splice:
    """A relay.joining.Joint. It owns the peer's socket; the client's connection is told what to do."""

    def __init__(
        self, peer: socket.socket, count: Count, over: Callable[[], object], *, loop: asyncio.AbstractEventLoop
    ) -> None:
        """over: called once, when the connection has ended by itself."""
        self._peer = peer
        self._count = count
        self._over = over
        self._loop = loop
        self._client: JoinedClient | None = None
        self._waiting = memoryview(b"")
        """What the peer has not taken yet."""
        self._client_ended = False
        self._peer_ended = False
        self._peer_is_read = False
        self._peer_may_be_read = True
        """Whether the client has taken what came before."""
        self._timers: dict[bool, asyncio.TimerHandle] = {}
        """Until when a direction waits for its bandwidth."""
        self._linger: asyncio.TimerHandle | None = None

    def begin(self, client: JoinedClient) -> None:
        self._client = client
        self._read_peer()

    def close(self) -> None:
        """End both connections now, but for what the client has sent before it ended; closing twice is fine."""
        client = self._let_go()
        if client is None:
            return
        if self._client_ended and self._waiting:
            self._loop.add_writer(self._peer, self._write_last)
            self._linger = self._loop.call_later(_LINGER, self._peer_over)
        else:
            self._peer.close()
        client.abort()

    def lost(self) -> None:
        if not self._client_ended and self._client is not None:
            reset_when_closed(self._peer)
        self.close()

    def _let_go(self) -> JoinedClient | None:
        """Have nothing more happen; the client, None where that was done before."""
        client, self._client = self._client, None
        if client is not None:
            for timer in self._timers.values():
                timer.cancel()
            self._loop.remove_reader(self._peer)
            self._loop.remove_writer(self._peer)
        return client

    def _write_last(self) -> None:
        try:
            while self._waiting:
                self._waiting = self._waiting[self._peer.send(self._waiting) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._peer_over()

    def _peer_over(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._loop.remove_writer(self._peer)
        self._peer.close()

    def _end(self) -> None:
        if self._client is not None:
            self.close()
            self._over()

    # From the client

    def received(self, data: bytes) -> None:
        if self._client is None or not data:
            return
        if self._paced(len(data), True):
            self._waiting = memoryview(bytes(self._waiting) + data) if self._waiting else memoryview(data)
            self._write()

    def ended(self) -> None:
        self._client_ended = True
        self._write()

    def drained(self) -> None:
        self._peer_may_be_read = True
        self._read_peer()

    def _write(self) -> None:
        """Have the peer take what waits; the client is read as long as nothing does."""
        if self._client is None:
            return
        try:
            while self._waiting:
                self._waiting = self._waiting[self._peer.send(self._waiting) :]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._peer, self._write)
        except OSError:
            self._end()
            return
        else:
            self._loop.remove_writer(self._peer)
            if self._client_ended:
                self._finish(self._peer)
                return
        self._client.listen(not self._waiting and True not in self._timers)

    def _finish(self, peer: socket.socket) -> None:
        try:
            peer.shutdown(socket.SHUT_WR)
        except OSError:
            self._end()
            return
        self._end_if_both()

    # From the peer

    def _readable(self) -> None:
        if self._client is None:
            return
        try:
            data = self._peer.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end()
            return
        if not data:
            self._peer_ended = True
            self._read_peer()
            self._client.finish()
            self._end_if_both()
        elif self._paced(len(data), False):
            self._peer_may_be_read = self._client.send(data)
            self._read_peer()

    def _read_peer(self) -> None:
        """Read the peer, or do not, as it is with the client and the bandwidth."""
        wanted = (
            self._client is not None and self._peer_may_be_read and not self._peer_ended and False not in self._timers
        )
        if self._client is not None and wanted is not self._peer_is_read:
            self._peer_is_read = wanted
            if wanted:
                self._loop.add_reader(self._peer, self._readable)
            else:
                self._loop.remove_reader(self._peer)

    # Both

    def _end_if_both(self) -> None:
        if self._client_ended and self._peer_ended and not self._waiting:
            client = self._let_go()
            if client is not None:
                self._peer.close()
                client.close()
                self._over()

    def _paced(self, size: int, from_client: bool) -> bool:
        """Count bytes, and have their direction wait; whether the session still lives."""
        seconds = self._count(size, from_client)
        if seconds is None:
            self._end()
            return False
        if seconds > 0:
            before = self._timers.get(from_client)
            if before is not None:
                before.cancel()
            self._timers[from_client] = self._loop.call_later(seconds, self._go_on, from_client)
        return True

    def _go_on(self, from_client: bool) -> None:
        del self._timers[from_client]
        if from_client:
            self._write()
        else:
            self._read_peer()
