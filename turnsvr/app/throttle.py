"""How many lines the log has of each kind: what strangers can cause is bounded, for each of them and in all.

Kinds are the texts of events, which are ours and few; of libraries' messages each logger's are one kind.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import structlog

from turnsvr.limits import TokenBucket, client_of

EventDict = structlog.typing.EventDict

_LINES_A_SECOND: Final = 10.0
_BURST: Final = 100.0
"""Of a kind that has no shares."""
_CLIENT_SLOTS: Final = 1024
_MAX_USERS: Final = 4096
"""Users that are told apart; the one that has not logged for longest goes."""

LIBRARY: Final = "library message"
"""The text of what libraries log; their own is a field."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many lines of a kind one client or user may cause: so many a second, and a burst."""

    rate: float
    burst: float


BY_CLIENT: Final = {
    "authentication failed": Share(0.05, 20),
    "admin request refused": Share(0.05, 20),
    "connection refused": Share(0.05, 20),
    "connection ended to make room": Share(0.05, 20),
    "PROXY header refused": Share(0.05, 20),
}
"""Kinds that clients are judged by: no flood of one hides another's. Their field `client` is a host."""

BY_USER: Final = {
    "session started": Share(10, 200),
    "session ended": Share(10, 200),
    "peer refused": Share(0.2, 20),
    "request refused": Share(1 / 60, 1),
}
"""Kinds that users cause: for each `realm`, `user` and `reason`. Sessions have no reason but how they ended."""

ALL_USERS: Final = Share(1_000, 10_000)
"""What all users together may cause of a kind."""

_Kind = tuple[str, ...] | tuple[str, int]


class Throttle:
    """Drops an event that comes too often; the next of its kind that passes tells how many were suppressed.

    A client is its IPv4 address or its IPv6 /64. Clients are told apart by a slot of a fixed number, so that all lines
    together stay bounded; which clients share one is up to the salt. Users have proven who they are: they are told
    apart exactly, so many at a time, and all lines of a kind are bounded besides.
    """

    def __init__(
        self, clock: Callable[[], float], rate: float = _LINES_A_SECOND, burst: float = _BURST, salt: bytes = b""
    ) -> None:
        """rate in lines a second, of kinds that have no shares; salt up to 64 bytes, random when empty."""
        self._clock = clock
        self._rest = Share(rate, burst)
        self._salt = salt or secrets.token_bytes(16)
        self._buckets: dict[_Kind, TokenBucket] = {}
        self._users: dict[_Kind, TokenBucket] = {}
        """The one that has logged last at the end."""
        self._suppressed: Counter[_Kind] = Counter()
        self._forgotten: Counter[str] = Counter()
        """Suppressed lines of users that are not told apart any more, by text."""

    def __call__(self, logger: object, method: str, event: EventDict) -> EventDict:
        text, now = event["event"], self._clock()
        kind: _Kind
        if text in BY_USER:
            kind = _kind_of_user(text, event)
            passes = self._user(kind, BY_USER[text], now).allow(1.0, now) and self._takes((text,), ALL_USERS, now)
        elif text in BY_CLIENT:
            kind = text, self._slot(str(event.get("client", "")))
            passes = self._takes(kind, BY_CLIENT[text], now)
        else:
            kind = text, str(event.get("source", "")) if text == LIBRARY else ""
            passes = self._takes(kind, self._rest, now)
        if not passes:
            self._suppressed[kind] += 1
            raise structlog.DropEvent
        suppressed = self._suppressed.pop(kind, 0)
        return {**event, "suppressed": suppressed} if suppressed else event

    def take_suppressed(self) -> dict[str, int]:
        """How many lines were suppressed by text, of which no line has told; they count as told from now on."""
        counts, self._forgotten = self._forgotten, Counter()
        for (text, *_), suppressed in self._suppressed.items():
            counts[text] += suppressed
        self._suppressed.clear()
        return dict(counts)

    def _takes(self, kind: _Kind, share: Share, now: float) -> bool:
        bucket = self._buckets.get(kind)
        if bucket is None:
            bucket = self._buckets[kind] = TokenBucket(share.rate, share.burst, now)
        return bucket.allow(1.0, now)

    def _user(self, kind: _Kind, share: Share, now: float) -> TokenBucket:
        bucket = self._users.pop(kind, None) or TokenBucket(share.rate, share.burst, now)
        if len(self._users) >= _MAX_USERS:
            oldest = next(iter(self._users))
            del self._users[oldest]
            self._forgotten[str(oldest[0])] += self._suppressed.pop(oldest, 0)
        self._users[kind] = bucket
        return bucket

    def _slot(self, host: str) -> int:
        digest = blake2b(_network(host), digest_size=8, key=self._salt).digest()
        return int.from_bytes(digest, "big") % _CLIENT_SLOTS


def _kind_of_user(text: str, event: EventDict) -> tuple[str, ...]:
    reason = "" if text == "session ended" else str(event.get("reason", ""))
    return text, str(event.get("realm", "")), str(event.get("user", "")), reason


def _network(host: str) -> bytes:
    """Who is one client; a text that is no address is one, too."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.encode(errors="replace")
    return client_of(address.packed)
