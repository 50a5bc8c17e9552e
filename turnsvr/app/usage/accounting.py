"""Usage records as the settings ask for them: the places, the records, the interval."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from turnsvr.app.errors import StartError
from turnsvr.app.extras import not_installed
from turnsvr.app.usage.recordfile import RecordFile
from turnsvr.app.usage.records import Live, Usage
from turnsvr.app.usage.spool import Spool
from turnsvr.config.usagesettings import UsageSettings

if TYPE_CHECKING:
    from turnsvr.app.usage.sender import UsageSender

_log = structlog.get_logger()


class Accounting:
    """Started and stopped once each; `usage` is the sink that hears of sessions."""

    def __init__(self, settings: UsageSettings, live: Live) -> None:
        """Opens the file and the spool. Raises StartError."""
        self.file: RecordFile | None = None
        self.sender: UsageSender | None = None
        self._every = settings.every
        self._task: asyncio.Task[None] | None = None
        try:
            if settings.file is not None:
                self.file = RecordFile(settings.file)
            if settings.url is not None:
                self.sender = _sender(settings)
        except OSError as error:
            self._close_file()
            raise StartError(f"usage: {error.filename or settings.spool}: {error.strerror}") from None
        except BaseException:
            self._close_file()
            raise
        places = [place for place in (self.file, self.sender) if place is not None]
        self.usage = Usage(places, live)

    @property
    def left_out(self) -> int:
        """Records that no longer reach one of their places."""
        return sum(place.left_out for place in (self.file, self.sender) if place is not None)

    def start(self) -> None:
        if self.sender is not None:
            self.sender.start()
        if self._every:
            self._task = asyncio.get_running_loop().create_task(self._tell_for_ever())

    def reopen(self) -> None:
        """Go on in the file that has the name now."""
        if self.file is not None:
            try:
                self.file.reopen()
            except OSError as error:
                _log.error("usage file not opened again", reason=error.strerror)

    async def stop(self) -> None:
        """Write what is there, and send it within a bound. Stopping twice is fine."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self.usage.flush()
        if self.sender is not None:
            await self.sender.stop()
        self._close_file()

    def _close_file(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    async def _tell_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.usage.tell_live()


def _sender(settings: UsageSettings) -> UsageSender:
    """Raises StartError or OSError."""
    try:
        from turnsvr.app.usage.sender import UsageSender
    except ModuleNotFoundError as error:
        raise StartError(not_installed(error, "usage.url", "hook")) from None
    from turnsvr.credentials.http import BadAddress

    assert settings.url is not None
    assert settings.secret is not None
    try:
        return UsageSender(
            settings.url,
            settings.secret.get_secret_value(),
            lambda woken: Spool(settings.spool, settings.spool_size, woken),
            batch=settings.batch,
            timeout=settings.timeout,
            ca=settings.ca,
        )
    except BadAddress as error:
        raise StartError(f"usage.url: {error}") from None
