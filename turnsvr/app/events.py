"""What the rules decided, told to everybody who wants to hear of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from turnsvr.net.engine import EventSink
from turnsvr.relay.api import Counters
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    PeerRefused,
)


class Events:
    """Tells every sink in turn, and who waits for the last session when one has ended."""

    def __init__(self, sinks: Sequence[EventSink], ended: Callable[[], None]) -> None:
        self._sinks = list(sinks)
        self._ended = ended

    def add(self, sink: EventSink) -> None:
        """Tell this one too, from now on."""
        self._sinks.append(sink)

    def started(self, event: AllocationStarted) -> None:
        for sink in self._sinks:
            sink.started(event)

    def refreshed(self, event: AllocationRefreshed) -> None:
        for sink in self._sinks:
            sink.refreshed(event)

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        for sink in self._sinks:
            sink.ended(event, counters)
        self._ended()

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        for sink in self._sinks:
            sink.authentication_failed(event)

    def peer_refused(self, event: PeerRefused) -> None:
        for sink in self._sinks:
            sink.peer_refused(event)
