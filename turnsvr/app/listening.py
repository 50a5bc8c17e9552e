"""Opens the listeners that the settings name, and says in one line why one cannot be opened."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

import structlog

from turnsvr.config.settings import ListenAddress
from turnsvr.stun.address import Address

_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}

_log = structlog.get_logger()

OpenStream = Callable[[Address, str], Address]
"""Opens a listener and returns where it is, port 0 replaced, told the transport of the settings; raises OSError."""


class OpenUdp(Protocol):
    """The same for UDP, with DTLS besides if so."""

    def __call__(self, address: Address, *, dtls: bool) -> Address: ...


class ListenError(Exception):
    """A listener that cannot be opened: which, why, and what to do about it, in one line."""


def open_listeners(
    addresses: Collection[ListenAddress], open_udp: OpenUdp, open_stream: OpenStream
) -> Iterator[ListenAddress]:
    """Open each and yield where it is; an optional one whose address family the host lacks is left out.

    UDP and DTLS at one address are one listener. Raises ListenError.
    """
    missing = None
    opened = False
    secured = {(each.host, each.port) for each in addresses if each.transport == "dtls"}
    shared: dict[Address, Address] = {}
    for address in addresses:
        where = Address(address.host, address.port)
        try:
            if not address.is_datagram:
                bound = open_stream(where, address.transport)
            elif where.port and where in shared:
                bound = shared[where]
            else:
                bound = open_udp(where, dtls=where in secured if where.port else address.transport == "dtls")
                shared[where] = bound
        except OSError as error:
            if not (address.optional and error.errno in _NO_SUCH_FAMILY):
                raise ListenError(_explain(address, error)) from None
            missing = ListenError(_explain(address, error))
            _log.warning("address family not served", listener=str(address), reason=error.strerror)
            continue
        opened = True
        yield ListenAddress(address.transport, bound.host, bound.port)
    if missing is not None and not opened:
        raise missing


def _explain(address: ListenAddress, error: OSError) -> str:
    protocol = "udp" if address.is_datagram else "tcp"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address}: port {address.port}/{protocol} is in use; stop what serves there "
            f"(ss -{protocol[0]}lnp sport = :{address.port} names it), or name another port under listen"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{address}: this user may not serve on port {address.port}; give CAP_NET_BIND_SERVICE "
            "(systemd/turnsvr.service does), or name a port from 1024 on under listen"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address}: this host has no address {address.host}; name one of its own, or * for all, under listen"
    return f"{address}: cannot be opened: {error.strerror}"
