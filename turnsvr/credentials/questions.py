"""Questions to a database or web service: equal ones share one answer, waiting and remembering are bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

from turnsvr.credentials.api import MAX_USERNAME_BYTES, Unavailable
from turnsvr.credentials.health import Health

_MAX_AT_ONCE = 32
"""Questions that are put at once; further ones wait, within their time. docs/security.md has every such bound."""
_MAX_WAITING = 2_000
"""Different questions under way or waiting; a further one fails."""
_WAITING_SHARE = 0.5
"""Share of its time that a question may wait; one that would be given up half way only keeps others waiting."""
_BULK = 10
"""How many times longer than one answer a list may take."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def may_be_asked(username: str) -> bool:
    """Whether this can be a user's name at all; what cannot is not asked of any database or service."""
    return username.isprintable() and 0 < len(username.encode()) <= MAX_USERNAME_BYTES


class _Crowded(Unavailable):
    """A question that was not put, which tells nothing of the service's health."""


class Questions:
    """Puts questions to one remote source, and keeps its health."""

    def __init__(
        self,
        health: Health,
        timeout: float,
        *,
        max_at_once: int = _MAX_AT_ONCE,
        max_waiting: int = _MAX_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """timeout in seconds, for waiting and answer together."""
        self.health = health
        self.timeout = timeout
        self._places = asyncio.Semaphore(max_at_once)
        self._max_waiting = max_waiting
        self._clock = clock
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def ask(self, key: Hashable, put: Callable[[], Awaitable[T]], *, bulk: bool = False) -> T:
        """The answer of `put`, or of an equal question that is under way; raises Unavailable.

        bulk: it is a long list, which may take ten times as long.
        """
        task: asyncio.Task[T] | None = self._under_way.get(key)
        if task is None:
            if len(self._tasks) >= self._max_waiting:
                raise _Crowded(f"{self.health.name}: too many questions wait")
            task = asyncio.get_running_loop().create_task(
                self._put(put, self.timeout * _BULK if bulk else self.timeout)
            )
            self._under_way[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Questions from now on get answers of their own, not those of questions that are under way."""
        self._under_way.clear()

    async def close(self, *, at_once: bool) -> None:
        """Wait until all that is under way has its answer or its time is over, or give it up at once."""
        for task in self._tasks if at_once else ():
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _put(self, put: Callable[[], Awaitable[T]], seconds: float) -> T:
        asked_at = self._clock()
        try:
            async with asyncio.timeout(seconds), self._places:
                if self._clock() - asked_at > seconds * _WAITING_SHARE:
                    raise _Crowded(f"{self.health.name}: too many questions wait")
                answer = await put()
        except _Crowded:
            raise
        except Unavailable as error:
            self.health.failed(asked_at, str(error))
            raise
        except TimeoutError:
            reason = f"no answer in {seconds:g} s"
            self.health.failed(asked_at, reason)
            raise Unavailable(f"{self.health.name}: {reason}") from None
        self.health.answered(asked_at, self._clock())
        return answer

    def _done(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # it counts as retrieved: the asker may have given up waiting


class Memory(Generic[K, V]):
    """Values, each until its time; when full, the one that was remembered first goes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[K, tuple[V, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now: float) -> V | None:
        """None when unknown, or out of date at this time; an earlier `now` finds what has gone out of date since."""
        found = self._entries.get(key)
        return found[0] if found is not None and now < found[1] else None

    def put(self, key: K, value: V, until: float) -> None:
        self._entries.pop(key, None)
        while len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = value, until

    def discard(self, key: K) -> None:
        self._entries.pop(key, None)

    def discard_each(self, unwanted: Callable[[K], bool]) -> None:
        for key in [key for key in self._entries if unwanted(key)]:
            del self._entries[key]

    def clear(self) -> None:
        self._entries.clear()
