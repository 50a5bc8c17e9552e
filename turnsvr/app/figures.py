"""What became of sessions since the server started, in numbers. Its size does not grow with what strangers send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from turnsvr.credentials.api import Refusal
from turnsvr.histogram import Histogram
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.message import Method
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
from turnsvr.web.figures import RealmFigures, SessionFigures

MAX_REALMS: Final = 50
"""Realms that are counted one by one; further ones count as OTHER."""
OTHER: Final = "other"

_LASTING = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 86_400.0)
"""Bounds in seconds that fit calls."""
_TRANSPORTS: Final = {transport: transport.value for transport in Transport}
_ENDS: Final = {reason: reason.name.lower() for reason in EndReason}
"""Labels of enumerations, whose own properties are slow."""
_REASONS: Final = ("wrong password", *(each.value for each in Refusal))
_FAMILIES: Final = {4: "ipv4", 6: "ipv6", 10: "both"}
"""By the sum of the numbers of a session's families."""


class SessionCounter:
    """An EventSink."""

    def __init__(self) -> None:
        """What may be counted begins at zero, so that readers see the first of each as an increase."""
        transports = _TRANSPORTS.values()
        self._now = Counter({(transport, family): 0 for transport in transports for family in _FAMILIES.values()})
        self._started = Counter(dict.fromkeys(transports, 0))
        self._ended = Counter(dict.fromkeys(_ENDS.values(), 0))
        self._failures = Counter({_label(reason): 0 for reason in _REASONS})
        self._refused = 0
        self._attempts_refused = 0
        self._allocating = Histogram()
        self._lasting = Histogram(_LASTING)
        self._realms: dict[str, RealmFigures] = {}
        self._ways: dict[int, tuple[str, str]] = {}
        self._realm_of: dict[int, str] = {}
        """Of sessions that have come from another process or may go to one."""

    @property
    def value(self) -> SessionFigures:
        """As it is now; the mappings are the live ones, to be read at once."""
        return SessionFigures(
            now=self._now,
            started=self._started,
            ended=self._ended,
            failures=self._failures,
            peers_refused=self._refused,
            attempts_refused=self._attempts_refused,
            allocating=self._allocating,
            lasting=self._lasting,
            realms=self._realms,
        )

    def started(self, event: AllocationStarted) -> None:
        transport = _TRANSPORTS[event.five_tuple.transport]
        families = {6 if ":" in address.host else 4 for address in event.relayed}
        way = transport, _FAMILIES[sum(families)]
        self._ways[event.allocation] = way
        self._realm_of[event.allocation] = event.realm
        self._now[way] += 1
        self._started[transport] += 1
        self._allocating.add(event.took)
        realm = self._realm(event.realm)
        realm.now += 1
        realm.started += 1

    def refreshed(self, event: AllocationRefreshed) -> None:
        """Nothing that is counted."""

    def moved(self, event: AllocationMoved) -> None:
        way = self._ways[event.allocation]
        self._now[way] -= 1
        way = _TRANSPORTS[event.five_tuple.transport], way[1]
        self._ways[event.allocation] = way
        self._now[way] += 1

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        self._now[self._ways.pop(event.allocation)] -= 1
        del self._realm_of[event.allocation]
        self._ended[_ENDS[event.reason]] += 1
        self._lasting.add(event.duration)
        realm = self._realm(event.realm)
        realm.now -= 1
        realm.bytes_from_client += counters.bytes_from_client
        realm.bytes_to_client += counters.bytes_to_client

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        self._failures[_label(event.reason) if event.reason in _REASONS else OTHER] += 1

    def peer_refused(self, event: PeerRefused) -> None:
        self._refused += 1

    def request_refused(self, event: RequestRefused) -> None:
        """The rules count answers by code; a peer that connects gets none."""
        if event.method == Method.CONNECTION_ATTEMPT:
            self._attempts_refused += 1

    def adopted(self, number: int, five_tuple: FiveTuple, relayed: Sequence[Address], realm: str) -> None:
        """A session that another process has served until now; it has been counted as started there."""
        families = {6 if ":" in address.host else 4 for address in relayed}
        way = _TRANSPORTS[five_tuple.transport], _FAMILIES[sum(families)]
        self._ways[number] = way
        self._realm_of[number] = realm
        self._now[way] += 1
        self._realm(realm).now += 1

    def left(self, number: int) -> None:
        """Another process goes on with a session, or has ended it; unknown ones are fine."""
        way = self._ways.pop(number, None)
        if way is not None:
            self._now[way] -= 1
            self._realm(self._realm_of.pop(number)).now -= 1

    def now_alone(self) -> SessionCounter:
        """Another counter, which has the sessions that there are now, and has counted nothing yet."""
        other = SessionCounter()
        other._now.update(self._now)
        for name, realm in self._realms.items():
            other._realm(name).now = realm.now
        return other

    def write(self) -> dict[str, object]:
        """Everything that counts up, for another process to go on with."""
        return {
            "started": dict(self._started),
            "ended": dict(self._ended),
            "failures": dict(self._failures),
            "refused": self._refused,
            "attempts_refused": self._attempts_refused,
            "allocating": [self._allocating.sum, *self._allocating.counts],
            "lasting": [self._lasting.sum, *self._lasting.counts],
            "realms": {
                name: [each.started, each.bytes_from_client, each.bytes_to_client]
                for name, each in self._realms.items()
            },
        }

    def forget(self, written: Mapping[str, object]) -> None:
        """Take off what write() gave: another process goes on with it. What has come since stays."""
        counted = SessionCounter()
        counted.read(written)
        for mine, its in (
            (self._started, counted._started),
            (self._ended, counted._ended),
            (self._failures, counted._failures),
        ):
            mine.subtract(its)
        self._refused -= counted._refused
        self._attempts_refused -= counted._attempts_refused
        for histogram, less in ((self._allocating, counted._allocating), (self._lasting, counted._lasting)):
            histogram.sum -= less.sum
            histogram.counts = [mine - its for mine, its in zip(histogram.counts, less.counts, strict=True)]
        for name, figures in counted._realms.items():
            realm = self._realm(name)
            realm.started -= figures.started
            realm.bytes_from_client -= figures.bytes_from_client
            realm.bytes_to_client -= figures.bytes_to_client

    def read(self, written: Mapping[str, object]) -> None:
        """Add what write() gave; what is not understood is left out."""
        for name, counts in (("started", self._started), ("ended", self._ended), ("failures", self._failures)):
            found = written.get(name)
            for label, count in found.items() if isinstance(found, dict) else ():
                if label in counts and isinstance(count, int):
                    counts[label] += count
        refused, attempts = written.get("refused"), written.get("attempts_refused")
        self._refused += refused if isinstance(refused, int) else 0
        self._attempts_refused += attempts if isinstance(attempts, int) else 0
        for name, histogram in (("allocating", self._allocating), ("lasting", self._lasting)):
            values = written.get(name)
            if isinstance(values, list) and len(values) == len(histogram.counts) + 1:
                histogram.sum += float(values[0])
                histogram.counts = [mine + int(its) for mine, its in zip(histogram.counts, values[1:], strict=True)]
        realms = written.get("realms")
        for name, figures in realms.items() if isinstance(realms, dict) else ():
            realm = self._realm(str(name))
            started, from_client, to_client = figures
            realm.started += started
            realm.bytes_from_client += from_client
            realm.bytes_to_client += to_client

    def _realm(self, name: str) -> RealmFigures:
        if name not in self._realms and len(self._realms) >= MAX_REALMS:
            name = OTHER
        return self._realms.setdefault(name, RealmFigures())


def _label(reason: str) -> str:
    return reason.replace(" ", "_")
