"""Records as lines of a file that log rotation may rename."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import structlog

from turnsvr.app.logfile import LogFile
from turnsvr.credentials.health import Trouble

_log = structlog.get_logger()


class RecordFile:
    """A Place. What the file cannot take is lost, and counted."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.left_out = 0
        self._file = LogFile(path)
        self._trouble = Trouble()

    def put(self, lines: Collection[bytes]) -> None:
        try:
            self._file.append(b"".join(lines))
        except OSError as error:
            self.left_out += len(lines)
            if self._trouble.begins(time.monotonic()):
                _log.error("usage records are lost", file=str(self._file.path), reason=error.strerror or str(error))
        else:
            self._trouble.ends(time.monotonic())

    def reopen(self) -> None:
        """Go on in the file that has the name now; raises OSError and keeps the old."""
        self._file.reopen()

    def close(self) -> None:
        self._file.close()
