"""A client's connection that asyncio serves, joined with one to a peer (RFC 6062 section 5.4): bytes alone."""

from __future__ import annotations

import asyncio

from turnsvr.net.halfclose import end_writing
from turnsvr.relay.joining import Joint


class Joined:
    """A relay.joining.JoinedClient."""

    def __init__(self, transport: asyncio.Transport, joint: Joint) -> None:
        self.joint = joint
        self._transport = transport
        self._is_paused = False
        self._listens = True

    def send(self, data: bytes) -> bool:
        if not self._transport.is_closing():
            self._transport.write(data)
        return not self._is_paused

    def pause(self) -> None:
        """As asyncio.Protocol.pause_writing()."""
        self._is_paused = True

    def resume(self) -> None:
        """As asyncio.Protocol.resume_writing()."""
        self._is_paused = False
        self.joint.drained()

    def listen(self, wanted: bool) -> None:
        if wanted is self._listens or self._transport.is_closing():
            return
        self._listens = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def finish(self) -> None:
        end_writing(self._transport)

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
