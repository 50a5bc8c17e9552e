"""A Unix socket to listen on: who may use it, what happens to a dead server's, and its removal at the end.

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
_LOCK_TRIES = 100
_LOCK_PAUSE = 0.05
"""Seconds."""


class Taken(Exception):
    """A living server listens there."""


class UnixListener:
    """A listening socket at a path."""

    def __init__(self, path: Path, *, succeeds: bool = False) -> None:
        """Take the place of a dead server's socket. Raises Taken, and OSError with a text that explains.

        succeeds: the place is a living server's until replace() is called; until then the socket is beside it.
        """
        check(path)
        self.path = path
        self._at = path.with_name(f"{path.name}.next") if succeeds else path
        with _alone_at(self._at):
            _clear(self._at)
            self.socket = _bind(self._at)
        self._identity = _identity(self._at)

    def replace(self) -> None:
        """Take the place of the server that this one succeeds. Raises OSError."""
        if self._at != self.path:
            self._at.replace(self.path)
            self._at = self.path

    def remove(self) -> None:
        """Take the path away, if it still is this socket's."""
        with contextlib.suppress(OSError):
            if _identity(self._at) == self._identity:
                self._at.unlink()


def check(path: Path) -> None:
    """Raises OSError where a directory is, or every user may replace our socket by another."""
    if path.is_dir():
        raise OSError(errno.EISDIR, "it is a directory")
    mode = path.parent.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise OSError(errno.EINVAL, "every user may write to its directory; name another, or have it chmod o-w")


@contextlib.contextmanager
def _alone_at(path: Path) -> Iterator[None]:
    """Hold a path, so that no other server that starts looks at it meanwhile.

    The lock is a file that none but us and root can open, unlike the directory. It is gone afterwards.
    """
    lock = path.with_name(f"{path.name}.lock")
    descriptor = _locked(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(lock: Path) -> int:
    """A descriptor that holds the lock. Raises OSError."""
    for _ in range(_LOCK_TRIES):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, _OWNER_ALONE)
        try:
            if _holds(descriptor, lock):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(_LOCK_PAUSE)
    raise OSError(errno.EBUSY, f"a server that starts there does not come to an end; look who holds {lock}")


def _holds(descriptor: int, lock: Path) -> bool:
    """Whether we have the lock now, and it is still the one that others find there. OSError: it is not ours."""
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EEXIST, f"{lock} belongs to another user; remove it, or name another path")
    os.fchmod(descriptor, _OWNER_ALONE)  # whatever the umask has made of it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _identity(lock) == (found.st_dev, found.st_ino)
    except (BlockingIOError, FileNotFoundError):
        return False


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
