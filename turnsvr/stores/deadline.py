"""Waiting for a database, never longer than agreed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_PARTING = 5.0
"""Seconds that work given up may take to let go of its connection before the store closes without it."""
_GRACE = 0.5
"""Seconds that work may go on whose asker is gone: aiosqlite, cut off half-way, leaves a task that never ends."""

_T = TypeVar("_T")


class TimedCalls:
    """Runs what speaks with a database. What is late is cancelled, and its end is not waited for.

    What is in time and no longer asked for has a moment to end by itself.

    Drivers take seconds to part with a server that has stopped answering; their connection pools bound how many of
    them there can be.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, _T], seconds: float) -> _T:
        """What the work returns or raises; TimeoutError after so many seconds."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait((task,), timeout=seconds)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(_GRACE, task.cancel)
            raise
        if not task.done():
            task.cancel()
            raise TimeoutError
        return task.result()

    async def finish(self) -> None:
        """Wait a while for what has been given up."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=_GRACE)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=_PARTING)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()
