"""The log level that holds now: the settings' own, or another for a while."""

from __future__ import annotations

import asyncio

import structlog

from turnsvr.admin.context import Level
from turnsvr.app import log
from turnsvr.config.settings import LogSettings

_TALKATIVE: tuple[Level, ...] = ("debug", "info", "warning", "error")
"""The most first."""

_log = structlog.get_logger()


class LogLevelSwitch:
    """Sets the level of the whole process. Its methods are called on the loop, but for __init__."""

    def __init__(self, settings: LogSettings) -> None:
        """Changes nothing yet."""
        self.level: Level = settings.level
        self._settings = settings
        self._timer: asyncio.TimerHandle | None = None

    @property
    def remaining(self) -> float | None:
        """Seconds until the settings' own level holds again; None when nothing is to change."""
        if self._timer is None:
            return None
        return max(0.0, self._timer.when() - asyncio.get_running_loop().time())

    def apply(self, settings: LogSettings) -> None:
        """Log as the settings say from now on."""
        self.cancel()
        self._settings = settings
        self._configure(settings.level)

    def set(self, level: Level, seconds: float | None) -> None:
        """Log from this level up, for so many seconds or until apply()."""
        self.cancel()
        self._change(level)
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._restore)

    def cancel(self) -> None:
        """Leave the level as it is for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _restore(self) -> None:
        self._timer = None
        self._change(self._settings.level)

    def _change(self, level: Level) -> None:
        """With a line in the log under the more talkative of both levels."""
        if _TALKATIVE.index(level) < _TALKATIVE.index(self.level):
            self._configure(level)
        _log.info("log level changed", to=level)
        self._configure(level)

    def _configure(self, level: Level) -> None:
        self.level = level
        log.configure(self._settings.format, level)
