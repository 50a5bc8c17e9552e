"""Ends a process that is to end within some seconds, even if a part of it hangs.

Everything ends by itself in less time where it can. What cannot be told to is a thread of the system's resolver that
waits for a name server, of which the interpreter would wait for the end.
"""

from __future__ import annotations

import os
import sys
from threading import Timer
from typing import NoReturn

import structlog

END_SECONDS = 3.5
"""From the order to end to the end of the process."""

_log = structlog.get_logger()


class LastResort:
    """Ends this process so many seconds after begin(), unless cancel() says that it has ended by itself."""

    def __init__(self, seconds: float = END_SECONDS) -> None:
        self.status = 1
        """The exit status: set to 0 once nothing is lost any more."""
        self._timer = Timer(seconds, self._end)
        self._timer.daemon = True

    def begin(self) -> None:
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def end(self) -> NoReturn:
        """End now, without what the interpreter does at its end: another process waits for it."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.status)

    def _end(self) -> None:
        _log.warning("ended without waiting any longer", lost="nothing" if self.status == 0 else "what was under way")
        self.end()
