"""Records that a service has not taken yet: lines of files in a directory, bounded, there after a crash or restart.

A file is locked by the process that writes or sends it. So two processes share the directory, as while one hands over
to the other, and what one has left behind is sent by the other. A record is removed once the service has taken it: what
was taken when the process died is sent again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from turnsvr.credentials.health import Trouble

_SEGMENT = 1024 * 1024
"""Bytes from which on a file is not written any more, so that its place is free once it is sent."""
_SUFFIX = ".jsonl"
_POSITION = ".sent"
"""Of the file that says how many bytes of another were taken."""
_MODE = 0o640
"""Records name users and their addresses."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SpooledLines:
    """Whole lines of one file, up to its byte `end`."""

    lines: tuple[bytes, ...]
    segment: _Segment
    end: int


class Spool:
    """A Place; `woken` is called when there is something to send."""

    def __init__(
        self, directory: Path, limit: int, woken: Callable[[], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """limit in bytes. Makes the directory; raises OSError where it cannot be written."""
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "no permission to write", str(directory))
        self.left_out = 0
        """Records for which there was no room, or that could not be written."""
        self._directory = directory
        self._limit = limit
        self._woken = woken
        self._clock = clock
        self._trouble = Trouble()
        self._writing: _Segment | None = None
        self._reading: _Segment | None = None
        self.size = 0
        """Bytes in the directory, of every process, as of the last look at it."""
        self._look()

    def put(self, lines: Collection[bytes]) -> None:
        data = b"".join(lines)
        try:
            if self.size + len(data) > self._limit:
                raise OSError(f"usage.spool_size of {self._limit} bytes is reached")
            if self._writing is None or self._writing.size >= _SEGMENT:
                self._write_to(_Segment.new(self._directory))
            assert self._writing is not None
            self._writing.append(data)
            self.size += len(data)
        except OSError as error:
            self.left_out += len(lines)
            if self._trouble.begins(self._clock()):
                _log.error("usage records are left out", reason=error.strerror or str(error))
        else:
            if self._trouble.ends(self._clock()):
                _log.info("usage records are kept again", left_out=self.left_out)
            self._woken()

    def next(self, most: int) -> SpooledLines | None:
        """The oldest records that were not taken, at most so many; None when there are none. Raises OSError."""
        while True:
            if self._reading is None:
                self._reading = self._oldest()
            if self._reading is None:
                return None
            lines = self._reading.lines(most)
            if lines:
                return SpooledLines(lines, self._reading, self._reading.taken + sum(map(len, lines)))
            if self._reading is self._writing and self._reading.size < _SEGMENT:
                return None
            self._drop(self._reading)

    def taken(self, batch: SpooledLines) -> None:
        """The service has these. Raises OSError."""
        batch.segment.mark(batch.end)

    def close(self) -> None:
        """Let go of every file; what was taken whole is removed."""
        for segment in {self._reading, self._writing} - {None}:
            assert segment is not None
            if segment.taken >= segment.size:
                segment.remove()
            segment.close()
        self._reading = self._writing = None

    def _write_to(self, segment: _Segment) -> None:
        if self._writing is not None and self._writing is not self._reading:
            self._writing.close()
        self._writing = segment

    def _look(self) -> list[Path]:
        """The files that are there, the oldest first."""
        paths, self.size = sorted(self._directory.glob(f"*{_SUFFIX}")), 0
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self.size += path.stat().st_size
        return paths

    def _oldest(self) -> _Segment | None:
        for path in self._look():
            if self._writing is not None and path == self._writing.path:
                return self._writing
            segment = _Segment.left_behind(path)
            if segment is not None:
                return segment
        return None

    def _drop(self, segment: _Segment) -> None:
        segment.remove()
        self.size = max(0, self.size - segment.size)
        segment.close()
        if segment is self._writing:
            self._writing = None
        self._reading = None


class _Segment:
    """One file, open and locked."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.taken = self._read_position()

    @classmethod
    def new(cls, directory: Path) -> _Segment:
        """One that sorts behind those that are there."""
        while True:
            path = directory / f"{time.time_ns():020}-{secrets.token_hex(4)}{_SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return cls(path, descriptor)
            os.close(descriptor)  # another process has found it empty, before it was locked, and has removed it

    @classmethod
    def left_behind(cls, path: Path) -> _Segment | None:
        """One that another process has left; None where that process lives, or the file is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if not os.fstat(descriptor).st_nlink:  # its process has removed it meanwhile
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def append(self, data: bytes) -> None:
        """Whole or not at all. Raises OSError."""
        if os.write(self._descriptor, data) < len(data):
            os.ftruncate(self._descriptor, self.size)
            raise OSError("the disk is full")
        self.size += len(data)

    def lines(self, most: int) -> tuple[bytes, ...]:
        """The next whole lines; a last one that its process could not end is no record."""
        found: list[bytes] = []
        rest, at = b"", self.taken
        while len(found) < most and (data := os.pread(self._descriptor, 65_536, at)):
            at += len(data)
            *whole, rest = (rest + data).split(b"\n")
            found += (line + b"\n" for line in whole)
        return tuple(found[:most])

    def mark(self, end: int) -> None:
        new = self._position.with_suffix(".new")
        new.write_text(str(end))
        new.replace(self._position)
        self.taken = end

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._position.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def _position(self) -> Path:
        return self.path.with_suffix(_POSITION)

    def _read_position(self) -> int:
        """0 where there is none, and for one that makes no sense."""
        try:
            position = int(self._position.read_text())
        except (FileNotFoundError, ValueError):
            return 0
        return position if 0 <= position <= self.size else 0
