"""What waits for members who read slowly: bounded in bytes and messages for each, and in bytes for all together.

Where all together would have too much, the member with the most is disconnected, and no other.
"""

from __future__ import annotations

from collections.abc import Callable

_MAX_MESSAGES = 256
"""That may wait for one member."""
_TOGETHER = 33_554_432
"""Bytes that may wait for all members."""


class Backlogs:
    """Those of all members."""

    def __init__(self, each: int, together: int = _TOGETHER) -> None:
        """Both in bytes."""
        self.each = each
        self.together = together
        self.bytes = 0
        self._all: set[Backlog] = set()

    def open(self) -> Backlog:
        backlog = Backlog(self)
        self._all.add(backlog)
        return backlog

    def grow(self, size: int) -> None:
        self.bytes += size
        while self.bytes > self.together:
            largest = max(self._all, key=lambda each: each.bytes)
            largest.close()
            largest.hang_up()

    def forget(self, backlog: Backlog) -> None:
        self._all.discard(backlog)
        self.bytes -= backlog.bytes


class Backlog:
    """What waits for one member."""

    def __init__(self, owner: Backlogs) -> None:
        self.bytes = 0
        self.messages = 0
        self.hang_up: Callable[[], object] = lambda: None
        """Disconnects the member; set by the server of the connection."""
        self._owner = owner
        self._closed = False

    def add(self, size: int) -> bool:
        """Whether a message of so many bytes may wait, too; False for good once there was no room."""
        if self._closed or self.messages >= _MAX_MESSAGES or self.bytes + size > self._owner.each:
            return False
        self.bytes += size
        self.messages += 1
        self._owner.grow(size)
        return not self._closed

    def remove(self, size: int) -> None:
        """A message of so many bytes has been sent."""
        if not self._closed:
            self.bytes -= size
            self.messages -= 1
            self._owner.bytes -= size

    def close(self) -> None:
        """The member is gone; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._owner.forget(self)
            self.bytes = 0
