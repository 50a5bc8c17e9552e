"""What the kernel delivers to this host, followed as it changes.

On Linux that is what routes of type local say: the kernel keeps one for each address of an interface, and others may be
added, as cloud agents do for load balancers. Where routes cannot be read, the addresses of interfaces stand for them,
and the log says so.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import structlog

from turnsvr.net import hosts, netlink

_log = structlog.get_logger()

_SETTLING: Final = 0.01
"""Seconds between the first word of a change and the look at it: they come in groups."""
_READ: Final = 65_536
_READS: Final = 64
"""Datagrams taken at once; more wait for the loop."""


def delivered_here() -> frozenset[str]:
    """Addresses and CIDR prefixes; the addresses of interfaces alone where routes cannot be read."""
    try:
        return hosts.own_addresses() | netlink.delivered()
    except OSError:
        return hosts.own_addresses()


class OwnAddresses:
    """Keeps an eye on them, on the running loop."""

    def __init__(self, changed: Callable[[frozenset[str]], None]) -> None:
        """changed hears of every state that is another than the one before."""
        self._changed = changed
        self._monitor: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.known: frozenset[str] = frozenset()
        """What is this host's as of the last look."""

    def start(self) -> frozenset[str]:
        """Begin; what is this host's now."""
        try:
            netlink.delivered()
            self._monitor = netlink.open_monitor()
        except OSError as error:
            _log.warning("only the addresses of interfaces are known to be this host's", reason=error.strerror)
        else:
            asyncio.get_running_loop().add_reader(self._monitor, self._hear, self._monitor)
        self.known = delivered_here()
        return self.known

    def stop(self) -> None:
        """Stopping twice is fine."""
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor)
            self._monitor.close()
            self._monitor = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Tell of a change that there has been."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            found = hosts.own_addresses() | netlink.delivered()
        except OSError:
            # What it may have lost since is refused for longer; the next look may find out.
            found = hosts.own_addresses() | (self.known if self._monitor is not None else frozenset())
        if found != self.known:
            self.known = found
            self._changed(found)

    def _hear(self, monitor: socket.socket) -> None:
        for _ in range(_READS):
            try:
                concerns_us = netlink.concerns_delivery(monitor.recv(_READ))
            except BlockingIOError:
                return
            except OSError:
                concerns_us = True  # ENOBUFS: more was said than there was room for
            if concerns_us and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_SETTLING, self.look)
