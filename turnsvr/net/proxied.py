"""The beginning of a connection that a balancer has made: its header is read, and tells whose connection it is.

No byte behind the header is taken: the server of the connection reads what follows.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable

import structlog

from turnsvr.net.proxyheader import MAX_HEADER, BadHeader, HeaderReader, HeaderRefusal
from turnsvr.ranges import RangeSet
from turnsvr.stun.address import Address

HEADER_SECONDS = 5.0
"""For all of the header; a segment that was lost has been sent again by then."""

_log = structlog.get_logger()


class HeaderRefusals:
    """How many connections were refused for want of a header, by reason, of one part of the server."""

    def __init__(self) -> None:
        self.counts: Counter[HeaderRefusal] = Counter()

    def add(self, host: str, why: HeaderRefusal | None) -> None:
        """One from this IP address; None for one that ended before its first byte, as checks of balancers do."""
        if why is None:
            return
        self.counts[why] += 1
        _log.warning("PROXY header refused", client=host, reason=why.value)


def may_tell(host: str, trusted: RangeSet) -> bool:
    """Whether headers from this IP address are believed."""
    return ipaddress.ip_address(host.partition("%")[0]) in trusted


class HeaderWait:
    """Waits for the header of a connected socket that does not block, and tells what it says; cancel() ends that."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        *,
        told: Callable[[Address | None], None],
        refused: Callable[[HeaderRefusal | None], None],
    ) -> None:
        """told is given what HeaderReader.client is, refused what HeaderRefusals.add() takes. Either ends the wait."""
        self._loop = loop
        self._socket = connected
        self._told = told
        self._refused = refused
        self._reader = HeaderReader()
        self._is_silent = True
        self._timer = loop.call_later(HEADER_SECONDS, self._refuse, HeaderRefusal.LATE)
        loop.add_reader(connected, self._readable)

    def cancel(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        try:
            while not self._reader.whole:
                came = self._socket.recv(MAX_HEADER, socket.MSG_PEEK)
                if not came:
                    self._refuse(None if self._is_silent else HeaderRefusal.ENDED)
                    return
                self._is_silent = False
                self._socket.recv(self._reader.feed(came))
        except (BlockingIOError, InterruptedError):
            return
        except BadHeader as error:
            self._refuse(error.refusal)
            return
        except OSError:
            self._refuse(HeaderRefusal.ENDED)
            return
        self.cancel()
        self._told(self._reader.client)

    def _refuse(self, why: HeaderRefusal | None) -> None:
        self.cancel()
        self._refused(why)
