"""The beginning of TLS that asyncio serves: the whole ClientHello is there, and it is the client's turn.

asyncio takes a step of a handshake as soon as bytes for it come. Only where the hello is in place before it begins, the
step that costs (a signature) is taken in the client's turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from turnsvr.net.clienthello import MAX_HELLO, ClientHello
from turnsvr.net.hello import Hello
from turnsvr.net.turns import Turn


class TlsTurn:
    """Waits on a connected socket that does not block, and then has TLS begin on it; cancel() ends the wait."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        in_turn: Callable[[Callable[[], object]], Turn],
        *,
        seconds: float,
        begin: Callable[[], object],
        late: Callable[[], object],
    ) -> None:
        """in_turn: has something called when it is this client's turn. late: called where the hello takes longer."""
        self._socket = connected
        self._under_way: Hello | Turn
        self._timer = loop.call_later(seconds, self._late, late)

        def judged(asked: ClientHello) -> None:
            self._timer.cancel()
            self._under_way = in_turn(begin)

        self._under_way = Hello(loop, connected, judged)

    def cancel(self) -> None:
        self._timer.cancel()
        self._under_way.cancel()

    def _late(self, late: Callable[[], object]) -> None:
        self.cancel()
        with contextlib.suppress(OSError):
            self._socket.recv(MAX_HELLO)  # a socket that is closed with bytes unread resets the connection
        late()
