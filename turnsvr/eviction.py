"""What is ended where a table is full: the entry that has waited longest, of the source that has most of them waiting.

So a flood from few addresses ends its own entries, and pushes out no others. Every step takes the same time, however
many entries there are. Imports nothing of ours.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Item = TypeVar("Item")


class Evictable(Generic[Item]):
    """Those that may go, by source, each in the order in which they began to wait."""

    def __init__(self) -> None:
        self._by_source: dict[bytes | None, dict[Item, None]] = {}
        self._by_count: dict[int, dict[bytes | None, None]] = {}
        self._most = 0

    def add(self, item: Item, source: bytes | None) -> None:
        """It may go from now on, and is not among them yet; a source of None is one like any other."""
        mine = self._by_source.setdefault(source, {})
        mine[item] = None
        self._recount(source, len(mine) - 1, len(mine))

    def discard(self, item: Item, source: bytes | None) -> None:
        """It may not go, or is gone; one that is not among them is fine."""
        mine = self._by_source.get(source)
        if mine is None or item not in mine:
            return
        del mine[item]
        self._recount(source, len(mine) + 1, len(mine))
        if not mine:
            del self._by_source[source]

    def oldest_of(self, source: bytes | None) -> Item | None:
        return next(iter(self._by_source.get(source, ())), None)

    def first(self) -> Item | None:
        """The one that has waited longest, of a source that has most waiting."""
        sources = self._by_count.get(self._most)
        return self.oldest_of(next(iter(sources))) if sources else None

    def _recount(self, source: bytes | None, before: int, now: int) -> None:
        if before:
            sources = self._by_count[before]
            del sources[source]
            if not sources:
                del self._by_count[before]
        if now:
            self._by_count.setdefault(now, {})[source] = None
        if now > self._most or self._most not in self._by_count:
            self._most = now
