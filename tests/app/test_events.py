"""Who hears of sessions, and that nobody keeps another from it."""

from __future__ import annotations

from structlog.testing import capture_logs

from turnsvr.app.events import Events
from turnsvr.app.figures import SessionCounter
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    EndReason,
    PeerRefused,
    RequestRefused,
)

PATH = FiveTuple(Transport.UDP, Address("203.0.113.9", 50000), Address("198.51.100.1", 3478))
RELAYED = (Address("198.51.100.1", 49152),)


class Broken:
    def started(self, event: AllocationStarted) -> None:
        raise OSError("no room")

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        raise KeyError(event.allocation)

    def refreshed(self, event: AllocationRefreshed) -> None: ...

    def moved(self, event: AllocationMoved) -> None: ...

    def authentication_failed(self, event: AuthenticationFailed) -> None: ...

    def peer_refused(self, event: PeerRefused) -> None: ...

    def request_refused(self, event: RequestRefused) -> None: ...


def test_a_sink_that_fails_keeps_nothing_from_the_others() -> None:
    table, ended = SessionCounter(), list[bool]()
    events = Events([Broken(), table], lambda: ended.append(True))
    with capture_logs() as logs:
        events.started(AllocationStarted(1, "alice", PATH, RELAYED, 600, "example.org", 0.1))
        events.ended(AllocationEnded(1, "alice", PATH, RELAYED, 5.0, EndReason.DISCONNECTED, "example.org"), Counters())
    assert table.value.started["udp"] == 1
    assert table.value.ended["disconnected"] == 1
    assert ended == [True]
    assert [(line["event"], line["sink"]) for line in logs] == [("an event was not taken in", "Broken")] * 2
