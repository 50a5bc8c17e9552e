"""Tells every sink what the rules decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from turnsvr.net.engine import EventSink
from turnsvr.relay.counts import Counters
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    PeerRefused,
    RequestRefused,
)

_log = structlog.get_logger()


class Events:
    """Tells every sink in turn, and calls `ended` after each session; where one fails the others are still told."""

    def __init__(self, sinks: Sequence[EventSink], ended: Callable[[], None]) -> None:
        self._sinks = list(sinks)
        self._ended = ended

    def add(self, sink: EventSink) -> None:
        """Tell this one too, from now on."""
        self._sinks.append(sink)

    def remove(self, sink: EventSink) -> None:
        """Tell it nothing any more."""
        self._sinks.remove(sink)

    def started(self, event: AllocationStarted) -> None:
        self._tell(lambda sink: sink.started(event))

    def refreshed(self, event: AllocationRefreshed) -> None:
        self._tell(lambda sink: sink.refreshed(event))

    def moved(self, event: AllocationMoved) -> None:
        self._tell(lambda sink: sink.moved(event))

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        self._tell(lambda sink: sink.ended(event, counters))
        self._ended()

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        self._tell(lambda sink: sink.authentication_failed(event))

    def peer_refused(self, event: PeerRefused) -> None:
        self._tell(lambda sink: sink.peer_refused(event))

    def request_refused(self, event: RequestRefused) -> None:
        self._tell(lambda sink: sink.request_refused(event))

    def _tell(self, tell: Callable[[EventSink], None]) -> None:
        for sink in self._sinks:
            try:
                tell(sink)
            except Exception:
                _log.exception("an event was not taken in", sink=type(sink).__name__)
