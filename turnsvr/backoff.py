"""Pauses between attempts that fail: each twice as long as the one before, within a bound."""

from __future__ import annotations


class Backoff:
    """The pauses of one thing that is tried again and again, in seconds."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def pause(self) -> float:
        """How long to wait after a failure; the next one is twice as long."""
        pause = self._next
        self._next = min(2 * pause, self._longest)
        return pause

    def reset(self) -> None:
        """It has worked: the next pause is the first again."""
        self._next = self._first
