"""A log file that stays open, and is opened again by its name once a log rotation has renamed it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_MODE = 0o640
"""Of a new file; the log names users and their addresses."""
_DIRECTORIES = ("/var/log/turnsvr", "/var/lib/turnsvr", "/run/turnsvr")
_VARIABLES = ("LOGS_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY")


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
    """Why this process could not write the file, "" where it could; no file is made."""
    if path.is_dir():
        return os.strerror(errno.EISDIR)
    return lacks(path.parent) if not path.exists() or not path.parent.exists() else _refuses(path)


def lacks(directory: Path) -> str:
    """Why this process could not put a file into a directory, "" where it could.

    That one of the service's own is missing is no reason: systemd makes it as it starts the service.
    """
    if not directory.exists():
        return "" if directory in _of_the_service() else os.strerror(errno.ENOENT)
    return _refuses(directory) if directory.is_dir() else os.strerror(errno.ENOTDIR)


def _of_the_service() -> set[Path]:
    """What systemd/turnsvr.service has made, and what a service manager says that it has."""
    named = [name for variable in _VARIABLES for name in os.environ.get(variable, "").split(":") if name]
    return {Path(name) for name in (*_DIRECTORIES, *named)}


def _refuses(path: Path) -> str:
    return "" if os.access(path, os.W_OK) else os.strerror(errno.EACCES)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
