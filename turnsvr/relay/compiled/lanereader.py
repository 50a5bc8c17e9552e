"""What lanes send up: read on the loop through one eventfd, and told to the Handler."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

import structlog

from turnsvr.relay.api import Handler, Relayed
from turnsvr.relay.compiled._pump import MovingEngine
from turnsvr.stun.address import FiveTuple

_log = structlog.get_logger()

_MAX_ROUNDS = 16
_TURN = 0.002
"""Looks at what lanes have sent up, and seconds, before the loop's other work has its turn."""

_REASONS = {
    0: "closed by the client",
    0xFFFF: "malformed frame",
    0xFFFE: "broken TLS",
    0xFFFD: "another handshake took its place",
    0xFFFC: "no allocation",
    0xFFFB: "ended to make room",
    0xFFFA: "its allocation is over",
}
"""Why a connection or an association has ended, where that is no errno."""


class LaneReader:
    """Messages and events of the lanes, on the way to the Handler. All methods run on the loop's thread."""

    def __init__(
        self,
        engine: MovingEngine,
        event: int,
        handler: Handler,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[FiveTuple], None],
    ) -> None:
        """event: the eventfd that the engine writes; it is closed by close(). ended: an adopted connection is gone."""
        self.resumes: dict[FiveTuple, Callable[[], None]] = {}
        """What to call when an attached client's frames are taken again."""
        self.is_frozen = False
        """Whether nothing is handed to the Handler for now."""
        self._engine = engine
        self._event = event
        self._handler = handler
        self._loop = loop
        self._ended = ended
        self._is_reading = False
        self._is_stopped = False

    def start(self) -> None:
        """Read from here on."""
        self._loop.add_reader(self._event, self.drain)
        self._is_reading = True

    def stop(self) -> None:
        """Call the Handler no more."""
        self._is_stopped = True
        if self._is_reading:
            self._loop.remove_reader(self._event)

    def close(self) -> None:
        """Close the eventfd, once no lane runs any more."""
        os.close(self._event)

    def wake(self) -> None:
        """Have drain() run in the next turn of the loop."""
        if not self._is_stopped:
            os.eventfd_write(self._event, 1)

    def hurry(self, five_tuple: FiveTuple) -> None:
        """As Pump.hurry()."""
        message = None if self.is_frozen else self._engine.pop_message_of(five_tuple)
        if message is not None:
            self._judge([(five_tuple, message)])

    def proceed(self, five_tuple: FiveTuple) -> None:
        """As Pump.proceed()."""
        if not self._is_stopped:
            self._resume(self._engine.proceed(five_tuple))

    def drain(self) -> None:
        """Take what the lanes have, and what comes meanwhile: only a lane that was found empty writes the eventfd."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        is_waiting = True
        ends = self._loop.time() + _TURN
        try:
            for _ in range(_MAX_ROUNDS):
                taken = self._engine.drain()
                if taken is None:
                    is_waiting = False
                    return
                self._hand_over(*taken)
                if self._loop.time() >= ends:
                    return
        finally:
            if is_waiting:
                self.wake()

    def _hand_over(self, messages: list[tuple[FiveTuple, bytes]], events: Iterable[tuple[Any, ...]]) -> None:
        if messages and not self._is_stopped:
            self._judge(messages)
        for event in events:
            if not self._is_stopped:
                self._tell(event)

    def _judge(self, messages: list[tuple[FiveTuple, bytes]]) -> None:
        keeps: Collection[FiveTuple] = ()
        self._engine.hold()
        try:
            keeps = self._handler.client_messages(messages)
        finally:
            self._engine.release()
            if not self._is_stopped:
                self._resume(self._engine.judged(keeps))

    def _resume(self, clients: Iterable[FiveTuple]) -> None:
        for five_tuple in clients:
            resume = self.resumes.get(five_tuple)
            if resume is not None:
                resume()

    def _tell(self, event: tuple[Any, ...]) -> None:
        match event:
            case ("error", session, peer, icmp_type, icmp_code, data):
                self._handler.peer_error(session, peer, icmp_type, icmp_code, data)
            case ("fenced", session, peer):
                self._handler.peer_fenced(session, peer)
            case ("relayed", session, peer, from_client, data, size, untold):
                self._handler.relayed(Relayed(session, peer, from_client, data, size, untold))
            case ("closed", five_tuple, reason, name) if self._engine.hang_up(five_tuple, name):
                self._ended(five_tuple)
                self._handler.stream_closed(five_tuple, _why(reason))
            case ("parted", five_tuple, reason):
                self._handler.stream_closed(five_tuple, _why(reason))
            case ("no_gso", number):
                _log.warning(
                    "packets are sent one by one where the kernel refused segments", reason=os.strerror(number)
                )


def _why(reason: int) -> str:
    """Why an adopted connection or an association ended, in words."""
    return _REASONS.get(reason) or os.strerror(reason)
