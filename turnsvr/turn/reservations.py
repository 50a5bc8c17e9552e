"""Ports held for a client that asked for a pair: token to deadline (RFC 8656 section 7.2)."""

from __future__ import annotations

from collections.abc import Iterator

from turnsvr.turn.deadlines import Deadlines


class Reservations:
    """Tokens that name a held port, each until it is claimed, released or too old."""

    def __init__(self) -> None:
        self._owners: dict[bytes, int] = {}
        self.deadlines: Deadlines[bytes] = Deadlines()

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._owners)

    def add(self, token: bytes, allocation: int, deadline: float) -> None:
        """Hold a port that was opened along with this allocation."""
        self._owners[token] = allocation
        self.deadlines.set(token, deadline)

    def take(self, token: bytes) -> bool:
        """Stop holding it; whether it was held."""
        self.deadlines.discard(token)
        return self._owners.pop(token, None) is not None
