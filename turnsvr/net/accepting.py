"""Takes connections off a listener: a bounded number in one turn of the loop, none while the system has no room."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import structlog

BATCH = 16
"""Connections taken in one turn of the loop, before other sockets have theirs."""
_PAUSE = 0.5
"""Seconds without accepting after the system ran out of descriptors or memory."""
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = structlog.get_logger()


class Acceptor:
    """Accepts on one listening socket that does not block, from construction until close()."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        accepted: Callable[[socket.socket, Any], None],
        batch: int = BATCH,
    ) -> None:
        """accepted is given each connected socket, which is then its own, and the peer as socket.accept() has it."""
        self._loop = loop
        self._listener = listener
        self._accepted = accepted
        self._batch = batch
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(listener, self._accept)

    def fileno(self) -> int:
        """Of the listener."""
        return self._listener.fileno()

    def pause(self) -> None:
        """Accept no more until resume(); who comes waits in the system."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._listener)

    def resume(self) -> None:
        """Go on; not having paused is fine."""
        if self._pause is None:
            self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept no more, and close the listener; closing twice is fine."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        for _ in range(self._batch):
            try:
                connected, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._wait(error)
                    return
                continue  # the client was gone before it was accepted
            self._accepted(connected, peer)

    def _wait(self, error: OSError) -> None:
        _log.error("no connection can be accepted", reason=error.strerror, hint="raise the limit of open files")
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)
