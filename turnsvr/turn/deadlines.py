"""When what expires. A heap whose outdated entries are swept, so that it never holds much more than what lives.

At most two entries for each live deadline, and 64 besides.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SWEEP_AT_LEAST: Final = 64


class Deadlines(Generic[K]):
    """One deadline for each key, in seconds on the caller's clock."""

    def __init__(self) -> None:
        self._when: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: K, when: float) -> None:
        """Set or move a deadline."""
        if self._when.get(key) == when:
            return
        self._when[key] = when
        heappush(self._heap, self._entry(key, when))
        self._sweep()

    def of(self, key: K) -> float:
        """The deadline of a key; raises KeyError."""
        return self._when[key]

    def discard(self, key: K) -> None:
        """Forget a deadline; unknown keys are fine."""
        if self._when.pop(key, None) is not None:
            self._sweep()

    def _sweep(self) -> None:
        """Rebuild the heap from what lives, once more than half of it is outdated."""
        if len(self._heap) > 2 * len(self._when) + _SWEEP_AT_LEAST:
            self._heap = [self._entry(key, when) for key, when in self._when.items()]
            heapify(self._heap)

    def _entry(self, key: K, when: float) -> tuple[float, int, K]:
        """For the heap; the number in the middle keeps keys from being compared."""
        self._serial += 1
        return when, self._serial, key

    def may_be_due(self, now: float) -> bool:
        """False where no deadline is now or earlier; cheaper than next()."""
        return bool(self._heap) and self._heap[0][0] <= now

    def next(self) -> float | None:
        """The earliest deadline."""
        heap = self._heap
        while heap:
            when, _, key = heap[0]
            if self._when.get(key) == when:
                return when
            heappop(heap)
        return None

    def due(self, now: float) -> Iterator[K]:
        """Keys whose deadline is now or earlier, earliest first, each forgotten as it is handed out."""
        while (earliest := self.next()) is not None and earliest <= now:
            key = heappop(self._heap)[2]
            del self._when[key]
            yield key
