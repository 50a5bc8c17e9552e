"""The server's end of a store: opened, read, asked, closed."""

from __future__ import annotations

from collections.abc import Callable

from turnsvr.config.credentialsettings import StoreSettings
from turnsvr.credentials.health import Health
from turnsvr.credentials.questions import Questions
from turnsvr.stores import open_store
from turnsvr.stores.api import Tables
from turnsvr.stores.poller import Poller
from turnsvr.stores.source import StoreSource

_MAX_AT_ONCE = 4
"""Questions that are put at once: as many as a store has connections for them, so that none waits there instead."""


class StoreClient:
    """A store in use, with what is remembered of it."""

    def __init__(
        self,
        settings: StoreSettings,
        changed: Callable[[], None],
        *,
        keys: bool = False,
        tables: Tables | None = None,
    ) -> None:
        """changed is called when there are new tables; `tables` serve until then, when they are known.

        keys: whether those of access tokens are read.
        Raises MissingDriver, and BadValue for a URL whose options mean nothing.
        """
        self.url = settings.url
        self._store = open_store(settings.url, settings.timeout)
        self.health = Health("credential store", self._store.name)
        self._questions = Questions(self.health, settings.timeout, max_at_once=_MAX_AT_ONCE)
        self.source = StoreSource(self._store, self._questions, cache=settings.cache)
        self.tables = tables
        """As last read; None before that."""
        if tables is not None:
            self.source.take(tables)
        self._tell = changed
        self._poller = Poller(
            self._store,
            self._questions,
            poll=settings.poll,
            keys=keys,
            changed=self._take,
            users_changed=self.source.forget,
        )

    @property
    def ready(self) -> bool:
        """Whether new users can be authenticated, as far as is known."""
        return self.tables is not None and self.health.available

    async def start(self) -> None:
        """Read the tables, or find within the time for one answer that the database does not give them."""
        await self._poller.start(self._questions.timeout)

    async def close(self, *, at_once: bool) -> None:
        """Let what is under way end, or give it up at once; then close every connection."""
        await self._poller.stop()
        await self._questions.close(at_once=at_once)
        await self._store.close()

    def _take(self, tables: Tables) -> None:
        self.tables = tables
        self.source.take(tables)
        self._tell()
