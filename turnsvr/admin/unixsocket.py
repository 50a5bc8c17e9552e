"""A Unix socket to listen on: whose it may be, what becomes of a dead server's, and that it goes when we do.

Only the server's own user may connect, and root. A directory with its set-group-ID bit on lets its group in, too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

_OWNER_ALONE = 0o600
_OWNER_AND_GROUP = 0o660
_BACKLOG = 100
_LOCK_TRIES = 20
_LOCK_PAUSE = 0.05
"""Seconds."""


class Taken(Exception):
    """A living server listens there."""


class UnixListener:
    """A listening socket at a path."""

    def __init__(self, path: Path) -> None:
        """Take the place of a dead server's socket. Raises Taken, and OSError with a text that explains."""
        self.path = path
        with _alone_in(path.parent):
            _clear(path)
            self.socket = _bind(path)
        self._identity = _identity(path)

    def remove(self) -> None:
        """Take the path away, if it still is this socket's."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """While no other server that starts looks at the same place.

    Whoever may read the directory can hold the lock, so it is waited for only so long.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _clear(path: Path) -> None:
    """Remove what a dead server left."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is a file of that name that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.setblocking(False)
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full: it lives
        raise Taken


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~_OWNER_ALONE)
    try:
        listener.bind(str(path))
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError) and error.errno is None:
            raise OSError(errno.ENAMETOOLONG, "the path is too long for a socket") from None
        raise
    finally:
        os.umask(before)
    if path.parent.stat().st_mode & stat.S_ISGID:
        path.chmod(_OWNER_AND_GROUP)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
