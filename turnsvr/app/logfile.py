"""A log file that stays open, and is opened again by its name once a log rotation has renamed it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_MODE = 0o640
"""Of a new file; the log names users and their addresses."""


class LogFile:
    """Text appended to a file, each write at once and whole. What the file cannot take raises OSError and is lost."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self._descriptor = _open(path)

    def reopen(self) -> None:
        """Go on in the file that has the name now, in a new one if there is none; raises OSError and keeps the old."""
        new = _open(self.path)
        old, self._descriptor = self._descriptor, new
        os.close(old)

    def write(self, text: str) -> int:
        """What UTF-8 cannot say is escaped."""
        return self.append(text.encode(errors="backslashreplace"))

    def append(self, data: bytes) -> int:
        """How many of the bytes were written."""
        return os.write(self._descriptor, data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        os.close(self._descriptor)


def unwritable(path: Path) -> str:
    """Why this process could not write the file, "" where it could; no file is made.

    A directory that is missing is no reason: systemd makes that of LogsDirectory as it starts the service.
    """
    if path.is_dir():
        return os.strerror(errno.EISDIR)
    wanted = path if path.exists() else path.parent
    if wanted.exists() and not os.access(wanted, os.W_OK):
        return os.strerror(errno.EACCES)
    return ""


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
