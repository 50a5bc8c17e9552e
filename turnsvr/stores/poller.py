"""Keeps what a database says of realms current: read now and then, and when the database tells of changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine

import structlog

from turnsvr.credentials.api import Unavailable
from turnsvr.credentials.questions import Questions
from turnsvr.stores.api import Reader, Tables

_RETRY_SECONDS = 2.0
"""Between attempts while the database is away."""
_MAX_TOLD = 20
"""Mistakes in the tables that are logged at a time."""

_log = structlog.get_logger()


class Poller:
    """Reads the tables of a store; while it is away the last good ones stay."""

    def __init__(
        self,
        reader: Reader,
        questions: Questions,
        *,
        poll: float,
        keys: bool = False,
        changed: Callable[[Tables], None],
        users_changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """poll in seconds. keys: those of access tokens are read as well.

        `users_changed` is told that the store speaks of some change.

        `changed` is told new tables; when it raises, it is told them again at the next poll.
        """
        self._tables: Tables | None = None
        self._reader = reader
        self._questions = questions
        self._poll = poll
        self._keys = keys
        self._changed = changed
        self._users_changed = users_changed
        self._clock = clock
        self._due = float("-inf")
        self._noticed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, patience: float) -> None:
        """Read the tables, waiting at most so many seconds for them, and keep them current from now on."""
        first = self._start(self._read())
        await asyncio.wait((first,), timeout=patience)
        self._start(self._keep(first))
        changes = self._reader.changes()
        if changes is not None:
            self._start(self._watch(changes))

    async def stop(self) -> None:
        """Stopping twice is fine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        return task

    async def _keep(self, first: asyncio.Task[None]) -> None:
        await asyncio.wait((first,))
        while True:
            try:
                async with asyncio.timeout(min(self._poll, _RETRY_SECONDS)):
                    await self._noticed.wait()
            except TimeoutError:
                pass
            if self._noticed.is_set() or self._clock() >= self._due or not self._questions.health.available:
                self._noticed.clear()
                await self._read()

    async def _watch(self, changes: AsyncIterator[None]) -> None:
        """Ends where the store cannot tell of changes after all."""
        try:
            async for _ in changes:
                self._users_changed()
                self._noticed.set()
        except Exception:
            _log.exception("changes of the credential store are not noticed", name=self._reader.name)

    async def _read(self) -> None:
        self._due = self._clock() + self._poll
        try:
            tables = await self._questions.ask((), lambda: self._reader.tables(keys=self._keys), bulk=True)
            if tables != self._tables:
                self._changed(tables)
                self._tell_mistakes(tables)
                self._tables = tables
        except Unavailable:
            pass  # which the store's health has told
        except Exception:
            _log.exception("the credential store's tables could not be taken", name=self._reader.name)

    def _tell_mistakes(self, tables: Tables) -> None:
        known = self._tables.mistakes if self._tables is not None else ()
        for mistake in [each for each in tables.mistakes if each not in known][:_MAX_TOLD]:
            _log.warning("left out of the credential store", name=self._reader.name, entry=mistake)
