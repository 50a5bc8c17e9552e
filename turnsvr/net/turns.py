"""What clients have the loop compute, a little in each of its turns, and one source after the other.

A step of a TLS handshake takes about a millisecond (the signature), and its client is not authenticated yet. With turns
no number of handshakes keeps the rules from their requests, and a source waits for one step of each other source.

A step that is asked for as the first passes all that are not. Every second step is one of those, while both wait, so
that neither holds up the other.
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
        self._waiting = _BySource()
        self._first = _BySource()
        self._was_first = False
        """Whether the last step was one of those that come first."""
        self._is_due = False
        """Whether the loop is to take steps in its next turn."""

    def ask(self, source: bytes, call: Callable[[], object], *, first: bool = False) -> Turn:
        """Have this called in one of the next turns of the loop, unless it is cancelled before."""
        step = Turn(call)
        (self._first if first else self._waiting).add(source, step)
        self._go_on()
        return step

    def _go_on(self) -> None:
        if not self._is_due and (self._waiting or self._first):
            self._is_due = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        """Take steps; the loop looks at its sockets before it comes here again."""
        self._is_due = False
        left = self._at_once
        try:
            while left and (self._waiting or self._first):
                call = self._next().call
                if call is not None:
                    left -= 1
                    call()
        finally:
            self._go_on()

    def _next(self) -> Turn:
        """Whichever of the two is not served now keeps its place: what is cancelled counts as no step."""
        is_first = bool(self._first) and not (self._was_first and self._waiting)
        step = (self._first if is_first else self._waiting).pop()
        if step.call is not None:
            self._was_first = is_first
        return step


class _BySource:
    """Steps by source; the source whose turn it is stands at the beginning."""

    def __init__(self) -> None:
        self._steps: dict[bytes, deque[Turn]] = {}

    def add(self, source: bytes, step: Turn) -> None:
        self._steps.setdefault(source, deque()).append(step)

    def pop(self) -> Turn:
        source = next(iter(self._steps))
        steps = self._steps.pop(source)
        step = steps.popleft()
        if steps:
            self._steps[source] = steps
        return step

    def __len__(self) -> int:
        """Sources that have a step waiting."""
        return len(self._steps)
