"""The beginning of a TLS connection that the pump will serve: hands are shaken on the loop, so that no packet waits.

Each step has its turn (turns.py), so that many handshakes do not keep other clients waiting either.
The first bytes are read here as well: they tell whether the pump is to have it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from turnsvr.net.arrival import FIRST_BYTES
from turnsvr.net.turns import Turn
from turnsvr.relay.api import TlsContext, TlsHandshake


class Handshake:
    """Shakes hands over a connected socket that does not block, waits for what the client says first, and tells of it.

    cancel() forgoes that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        context: TlsContext,
        timeout: float,
        *,
        in_turn: Callable[[Callable[[], object]], Turn],
        done: Callable[[TlsHandshake, bytes], None],
        failed: Callable[[str], None],
    ) -> None:
        """timeout: seconds until hands are shaken. in_turn: has a step called when it is this client's turn.

        done is told the first bytes, none where the client has left again. failed is told why, in
        words that name no secret.
        """
        self._loop = loop
        self._socket = connected
        self._in_turn = in_turn
        self._done = done
        self._failed = failed
        self._tls = context.handshake(connected.fileno())
        self._waits_for = ""
        self._timer = loop.call_later(timeout, self._late, timeout)
        self._next = in_turn(self._go_on)

    def cancel(self) -> None:
        self._timer.cancel()
        self._next.cancel()
        self._wait_for("")

    def _ready(self) -> None:
        self._wait_for("")
        self._next = self._in_turn(self._go_on)

    def _go_on(self) -> None:
        try:
            waits_for = self._tls.step()
        except ConnectionError as error:
            self.cancel()
            self._failed(str(error))
            return
        if waits_for:
            self._wait_for(waits_for)
        else:
            self._timer.cancel()
            self._listen()

    def _listen(self) -> None:
        try:
            first = self._tls.receive(FIRST_BYTES)
        except ConnectionError:
            first = b""
        if first is None:
            self._wait_for("read")
        else:
            self.cancel()
            self._done(self._tls, first)

    def _late(self, timeout: float) -> None:
        self.cancel()
        self._failed(f"it takes longer than {timeout:g} s")

    def _wait_for(self, what: str) -> None:
        if what == self._waits_for:
            return
        if self._waits_for == "read":
            self._loop.remove_reader(self._socket)
        elif self._waits_for == "write":
            self._loop.remove_writer(self._socket)
        self._waits_for = what
        if what == "read":
            self._loop.add_reader(self._socket, self._ready)
        elif what == "write":
            self._loop.add_writer(self._socket, self._ready)
