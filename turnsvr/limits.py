"""Bounds on rates: how fast one allocation may relay, how often one stranger is answered. Imports nothing of ours."""

from __future__ import annotations

_MAX_ADDRESSES = 65_536
"""Addresses remembered in each of an AnswerLimiter's two generations."""


class TokenBucket:
    """Lets `rate` units a second pass, and `burst` units at once."""

    __slots__ = ("_burst", "_filled_at", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._filled_at = now

    def take(self, amount: float, now: float) -> bool:
        """Whether amount may pass now; takes it if so. Time that goes backwards adds nothing."""
        if now > self._filled_at:
            self._level = min(self._burst, self._level + (now - self._filled_at) * self._rate)
            self._filled_at = now
        if amount > self._level:
            return False
        self._level -= amount
        return True


class AnswerLimiter:
    """At most `rate` unauthenticated answers a second to one client address, so that nobody is flooded through us.

    A client is its IPv4 address or its IPv6 /64. Two generations of at most 65,536 clients are kept: when the
    newer is full the older is dropped whole, and a client that is still heard moves into the newer with what it
    has left. To win a fresh budget for one victim an attacker must send 65,536 other addresses first.
    """

    def __init__(self, rate: float, max_addresses: int = _MAX_ADDRESSES) -> None:
        """rate in answers a second, 0 for no limit; a client may use one second's worth at once."""
        self.rate = rate
        self._max_addresses = max_addresses
        self._young: dict[bytes, TokenBucket] = {}
        self._old: dict[bytes, TokenBucket] = {}

    def allow(self, packed_host: bytes, now: float) -> bool:
        """Whether one more answer may go to this address, 4 or 16 bytes."""
        if not self.rate:
            return True
        client = packed_host[:8] if len(packed_host) == 16 else packed_host
        bucket = self._young.get(client)
        if bucket is None:
            bucket = self._old.pop(client, None) or TokenBucket(self.rate, max(self.rate, 1.0), now)
            if len(self._young) >= self._max_addresses:
                self._old, self._young = self._young, {}
            self._young[client] = bucket
        return bucket.take(1.0, now)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
