"""Tells the service manager how we are: the protocol of sd_notify(3), and the watchdog of sd_watchdog_enabled(3).

And gives it descriptors to keep for the process after this one: sd_pid_notify_with_fds(3), sd_listen_fds(3).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

import structlog

_FIRST: Final = 3
"""The number of the first descriptor that is handed over: SD_LISTEN_FDS_START."""
_MOST: Final = 4096
"""More than any manager keeps."""

_log = structlog.get_logger()


class ServiceManager:
    """Sends states to $NOTIFY_SOCKET; without that variable, or without a listener, nothing happens."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog_seconds(environ)
        """Seconds within which alive() must be called again and again; None without a watchdog."""

    @property
    def is_there(self) -> bool:
        """Whether a service manager is told."""
        return self._path.startswith(("/", "@"))

    def succeeded_by(self, pid: int) -> None:
        """Another process serves in the place of this one."""
        self._send(f"MAINPID={pid}")

    def ready(self, status: str, *, is_successor: bool = False) -> None:
        """is_successor: this process takes the place of the one that was started (NotifyAccess=all lets it say so)."""
        main = [f"MAINPID={os.getpid()}"] if is_successor else []
        self._send("READY=1", f"STATUS={status}", *main)

    def reloading(self) -> None:
        """To be followed by ready(). The time stamp is what Type=notify-reload asks for."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def keep(self, descriptor: int, name: str) -> None:
        """Have a descriptor kept for the process after this one (FileDescriptorStoreMax=), whatever becomes of it.

        No answer comes: after settled() it is kept, or closed there.
        """
        self._send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=[descriptor])

    def forget(self, name: str) -> None:
        """Have what is kept under a name be closed. None of that name is fine."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    async def settled(self, seconds: float) -> bool:
        """Wait until everything that was told is done; false where that takes longer."""
        ours, its = os.pipe()
        try:
            self._send("BARRIER=1", descriptors=[its])
        finally:
            os.close(its)
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(ours, closed.set)
        try:
            async with asyncio.timeout(seconds):
                await closed.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(ours)
            os.close(ours)
        return True

    def _send(self, *assignments: str, descriptors: Sequence[int] = ()) -> None:
        if not self.is_there:
            return
        path = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.connect(path)
                socket.send_fds(manager, ["\n".join(assignments).encode()], descriptors)
        except OSError as error:
            _log.warning("the service manager cannot be told", reason=str(error))


def inherited(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[int]]:
    """Descriptors that the manager hands to this process, by name; they are the caller's. A second call finds none."""
    whose, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if whose != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, list[int]] = {}
    for at in range(min(int(count), _MOST)):
        try:
            os.set_inheritable(_FIRST + at, False)
        except OSError:
            break
        found.setdefault(names[at] if at < len(names) else "", []).append(_FIRST + at)
    return found


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environ["WATCHDOG_USEC"])
        watched = int(environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return microseconds / 1_000_000 if microseconds > 0 and watched == os.getpid() else None
