"""Ports held for a client that asked for a pair: token to deadline (RFC 8656 section 7.2).

A reservation outlives the allocation that made it, because the RFC promises 30 seconds; so it counts by user.
"""

from __future__ import annotations

from collections.abc import Iterator

from turnsvr.turn.counts import Counts
from turnsvr.turn.deadlines import Deadlines

Owner = tuple[str, str]
"""For which limits count: a realm, and a user's name there (`quota_user`)."""


class Reservations:
    """Tokens that name a held port, each until it is claimed, released or too old."""

    def __init__(self) -> None:
        self._owners: dict[bytes, Owner] = {}
        self._by_owner: Counts[Owner] = Counts()
        self.deadlines: Deadlines[bytes] = Deadlines()

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._owners)

    def count(self, owner: Owner) -> int:
        """How many ports are held for this user."""
        return self._by_owner.of(owner)

    def add(self, token: bytes, owner: Owner, deadline: float) -> None:
        """Hold a port that was opened along with an allocation of this user."""
        self._owners[token] = owner
        self._by_owner.increment(owner)
        self.deadlines.set(token, deadline)

    def held(self) -> list[tuple[bytes, Owner, float]]:
        """Every token with its user and its deadline."""
        return [(token, owner, self.deadlines.of(token)) for token, owner in self._owners.items()]

    def remove(self, token: bytes) -> bool:
        """Stop holding it; whether it was held."""
        self.deadlines.discard(token)
        owner = self._owners.pop(token, None)
        if owner is None:
            return False
        self._by_owner.decrement(owner)
        return True
