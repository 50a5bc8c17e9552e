"""Counts by key. A key whose count is zero takes no room."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Counts(Generic[K]):
    """Counts by key. A Counter would do, but for its own methods in Python that every change goes through."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[K, int] = {}

    def of(self, key: K) -> int:
        return self._counts.get(key, 0)

    def increment(self, key: K) -> None:
        self._counts[key] = self._counts.get(key, 0) + 1

    def decrement(self, key: K) -> None:
        """Raises KeyError when there is none."""
        left = self._counts[key] - 1
        if left:
            self._counts[key] = left
        else:
            del self._counts[key]
