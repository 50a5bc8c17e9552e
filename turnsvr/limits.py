"""Bounds on rates: how fast one allocation may relay, how often a stranger is answered, how often a user may allocate.

Imports nothing of ours.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import Final, Protocol

_SLOTS: Final = 1 << 18
"""Slots of an AnswerLimiter, 8 bytes each."""

_ALMOST: Final = 0.99
"""Of an interval: what keeps rounding from costing the last answer of a burst."""


def client_of(packed_host: bytes) -> bytes:
    """Who counts as one client: an IPv4 address, or an IPv6 /64, the least that a site has. 4 or 16 bytes go in."""
    return packed_host[:8]


class TokenBucket:
    """Lets `rate` units a second pass, and `burst` units at once."""

    __slots__ = ("_burst", "_filled_at", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._filled_at = now

    def allow(self, amount: float, now: float) -> bool:
        """Whether amount may pass now; spends it if so. Time that goes backwards adds nothing."""
        if now > self._filled_at:
            self._level = min(self._burst, self._level + (now - self._filled_at) * self._rate)
            self._filled_at = now
        if amount > self._level:
            return False
        self._level -= amount
        return True

    def level(self, now: float) -> float:
        """What may pass at once now."""
        return min(self._burst, self._level + max(now - self._filled_at, 0.0) * self._rate)

    def restore(self, level: float, at: float) -> None:
        """Let no more pass than this was at that time, with what has come since."""
        self._level = min(self._burst, level)
        self._filled_at = at

    def spend(self, amount: float) -> None:
        """Take an amount that has passed already, even if there is less."""
        self._level -= amount

    def debt(self, now: float) -> float:
        """Seconds until what was spent beyond what was there has come back; 0 where nothing was."""
        return max(0.0, -self.level(now) / self._rate)


ANSWERS_SAVED: Final = 10.0
"""Seconds of answers that an address saves up, for a NAT or a media server whose clients all come at once."""


class AnswerLimit(Protocol):
    """One budget of answers to strangers, which the pump and the rules share."""

    def allow(self, packed_host: bytes, now: float) -> bool:
        """Whether one more answer may go to this address, 4 or 16 bytes; now is not negative."""


class AdjustableAnswerLimit(AnswerLimit, Protocol):
    """One of which the rate can be set."""

    rate: float
    """Answers a second, 0 for no limit."""


class AnswerLimiter:
    """At most `rate` unauthenticated answers a second to one client address, so that no host is flooded through us.

    A client is its IPv4 address or its IPv6 /64; it may use at once what it has saved up. Clients are told apart by a
    slot of a fixed table, so memory does not grow and nothing that others send gives a victim a fresh budget. Two
    clients of one slot share its rate; which ones do is up to Python's keyed hash, different in each process.
    """

    def __init__(self, rate: float, slots: int = _SLOTS, saved: float = 1.0) -> None:
        """rate in answers a second, 0 for no limit; saved in seconds."""
        self._saved = saved
        self._paid_until = array("d", bytes(8 * slots))
        self.rate = rate

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = rate
        if rate:
            self._interval = 1 / rate
            self._ahead = max(1.0, rate * self._saved) * self._interval - self._interval * _ALMOST

    def allow(self, packed_host: bytes, now: float) -> bool:
        """Whether one more answer may go to this address, 4 or 16 bytes; now is not negative."""
        if not self._rate:
            return True
        slot = self._slot(packed_host)
        paid_until = self._paid_until[slot]
        if paid_until > now + self._ahead:
            return False
        self._paid_until[slot] = max(paid_until, now) + self._interval
        return True

    def exhausted(self, packed_host: bytes, now: float) -> bool:
        """Whether allow() would refuse; counts nothing."""
        return self._rate > 0 and self._paid_until[self._slot(packed_host)] > now + self._ahead

    def _slot(self, packed_host: bytes) -> int:
        return hash(client_of(packed_host)) % len(self._paid_until)


class KeyedLimiter:
    """At most `rate` events a second for each key, and `seconds` seconds' worth of them at once, or more where allowed.

    Keys are told apart by a slot of a fixed table, as by AnswerLimiter: memory does not grow, and no key resets the
    budget of another. Keys of one slot share its rate.
    """

    def __init__(self, rate: float, seconds: float, slots: int) -> None:
        """rate in events a second, 0 for no limit."""
        self.rate = rate
        self._seconds = seconds
        self._paid_until = array("d", bytes(8 * slots))

    def allow(self, key: Hashable, now: float, at_once: int = 0) -> bool:
        """Whether one more event of this key may happen now, and if so count it; now is not negative.

        at_once: how many may come at once at least, although that be more than the seconds' worth.
        """
        if not self.rate:
            return True
        if self.exhausted(key, now, at_once):
            return False
        slot = hash(key) % len(self._paid_until)
        self._paid_until[slot] = max(self._paid_until[slot], now) + 1 / self.rate
        return True

    def exhausted(self, key: Hashable, now: float, at_once: int = 0) -> bool:
        """Whether allow() would refuse; counts nothing."""
        if not self.rate:
            return False
        interval = 1 / self.rate
        saved = max(self._seconds, interval * at_once)
        return self.paid_until(key) > now + max(saved - interval * _ALMOST, 0.0)

    def paid_until(self, key: Hashable) -> float:
        """What another one is to be told of this key."""
        return self._paid_until[hash(key) % len(self._paid_until)]

    def restore(self, key: Hashable, paid_until: float) -> None:
        """Go by what another one has said of this key, unless more has been spent here."""
        slot = hash(key) % len(self._paid_until)
        self._paid_until[slot] = max(self._paid_until[slot], paid_until)
