"""What sinks have in common that need to hear of some events only."""

from __future__ import annotations

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


class PartialSink:
    """An EventSink that does nothing; a class that derives from it has methods for the events it needs."""

    def started(self, event: AllocationStarted) -> None:
        pass

    def refreshed(self, event: AllocationRefreshed) -> None:
        pass

    def moved(self, event: AllocationMoved) -> None:
        pass

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        pass

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        pass

    def peer_refused(self, event: PeerRefused) -> None:
        pass

    def request_refused(self, event: RequestRefused) -> None:
        pass
