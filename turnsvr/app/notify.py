"""Tells the service manager how we are: the protocol of sd_notify(3), and the watchdog of sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

import structlog

_log = structlog.get_logger()


class ServiceManager:
    """Sends states to $NOTIFY_SOCKET; without that variable, or without a listener, nothing happens."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog_seconds(environ)
        """Seconds within which alive() must be called again and again; None without a watchdog."""

    @property
    def is_there(self) -> bool:
        """Whether somebody is told."""
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

    def _send(self, *assignments: str) -> None:
        if not self.is_there:
            return
        path = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.connect(path)
                manager.send("\n".join(assignments).encode())
        except OSError as error:
            _log.warning("the service manager cannot be told", reason=str(error))


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environ["WATCHDOG_USEC"])
        watched = int(environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return microseconds / 1_000_000 if microseconds > 0 and watched == os.getpid() else None
