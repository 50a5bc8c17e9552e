"""Waits for a TLS client's whole ClientHello, and leaves it in place for the server that begins TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from turnsvr.net.clienthello import MAX_HELLO, ClientHello, read_hello

HELLO_SECONDS = 10.0
_ESTABLISHED = b"\x01"
"""The first byte of TCP_INFO, which is the state."""
_PAUSE = 0.05
"""Seconds until another look where the system wakes us although nothing more has come."""


class Hello:
    """Waits on a connected socket that does not block; cancel() ends that."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connected: socket.socket, judged: Callable[[ClientHello], None]
    ) -> None:
        """judged is told what the client asks for: nothing where its hello is late, too long, or none."""
        self._loop = loop
        self._socket = connected
        self._judged = judged
        self._seen = 0
        self._timer = loop.call_later(HELLO_SECONDS, self._end, ClientHello())
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(connected, self._look)

    def cancel(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._socket)
        if self._pause is not None:
            self._pause.cancel()

    def _look(self) -> None:
        """Look at what has come."""
        try:
            data = self._socket.recv(MAX_HELLO, socket.MSG_PEEK)
            hello = read_hello(data)
            if hello is None and (len(data) > self._seen or is_open(self._socket)):
                self._wait(len(data))
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            hello = None
        self._end(hello or ClientHello())

    def _wait(self, seen: int) -> None:
        """Look again when there is more: what is left in place would wake us all the time. Raises OSError.

        A socket with little room wakes us all the same, and is left alone for a while then.
        """
        if seen > self._seen:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
        else:
            self._loop.remove_reader(self._socket)
            self._pause = self._loop.call_later(_PAUSE, self._loop.add_reader, self._socket, self._look)
        self._seen = seen

    def _end(self, hello: ClientHello) -> None:
        self.cancel()
        with contextlib.suppress(OSError):  # the server that takes it meets the error
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._judged(hello)


def is_open(connected: socket.socket) -> bool:
    """Whether a TCP connection's other end may still say something. Raises OSError."""
    return connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _ESTABLISHED
