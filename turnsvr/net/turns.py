"""What strangers have the loop compute, a little in each of its turns, and one source after the other.

A step of a TLS handshake takes about a millisecond (the signature), and its client is not authenticated yet. With turns
no number of handshakes keeps the rules from their requests, and a source waits for one step of each other source.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_AT_ONCE = 2
"""Steps in one turn of the loop."""


class Turn:
    """One step that waits for its turn; cancel() forgoes it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self.call = None


class Turns:
    """The steps that wait, by source. Each connection has one at most, so the table of connections bounds them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, at_once: int = _AT_ONCE) -> None:
        self._loop = loop
        self._at_once = at_once
        self._waiting: dict[bytes, deque[Turn]] = {}
        """The source whose turn it is at the beginning."""

    def ask(self, source: bytes, call: Callable[[], object]) -> Turn:
        """Have this called in one of the next turns of the loop, unless it is cancelled before."""
        step = Turn(call)
        if not self._waiting:
            self._loop.call_soon(self._run)
        self._waiting.setdefault(source, deque()).append(step)
        return step

    def _run(self) -> None:
        """Take steps; the loop looks at its sockets before it comes here again."""
        left = self._at_once
        try:
            while left and self._waiting:
                call = self._next().call
                if call is not None:
                    left -= 1
                    call()
        finally:
            if self._waiting:
                self._loop.call_soon(self._run)

    def _next(self) -> Turn:
        source = next(iter(self._waiting))
        steps = self._waiting.pop(source)
        step = steps.popleft()
        if steps:
            self._waiting[source] = steps
        return step
