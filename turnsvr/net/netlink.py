"""Linux's rtnetlink, as far as it tells what the kernel delivers to this host (rtnetlink(7), linux/fib_rules.h)."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import Final

from turnsvr import netlink
from turnsvr.netlink import (
    INTERRUPTED,
    PATIENCE,
    REQUEST_DUMP,
    ROUTE,
    ROUTING_GROUPS,
    RTA_DST,
    RTM_GETROUTE,
    Attributes,
    answers,
    attributes,
    messages,
    number,
    open_netlink,
)

_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_RTM_GETRULE: Final = 34
_SOL_NETLINK: Final = 270
_GET_STRICT_CHK: Final = 12
"""Makes the kernel select routes by the request's header."""

_TABLE: Final = 15
"""RTA_TABLE, FRA_TABLE."""
_FRA_IIFNAME: Final = 3
_FRA_FWMARK: Final = 10
_DELIVERED: Final = (2, 4)
"""RTN_LOCAL, RTN_ANYCAST."""
_USUAL_TABLES: Final = frozenset((253, 254, 255))
"""Default, main, local."""

_ATTEMPTS: Final = 5


def delivered() -> frozenset[str]:
    """CIDR prefixes by whose routes the kernel delivers packets of this process to this host. Raises OSError.

    A default route counts in the usual tables alone: elsewhere it is for what a proxy diverts.
    """
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        tables = _USUAL_TABLES.union(*(_tables(rule) for rule in _dump(_RTM_GETRULE, family, 0)))
        for kind in _DELIVERED:
            for header, told in _dump(RTM_GETROUTE, family, kind):
                if header[7] in _DELIVERED and _table(header, told) in (tables if header[1] else _USUAL_TABLES):
                    found.add(_destination(family, header[1], told))
    return frozenset(found)


def open_monitor() -> socket.socket:
    """A socket that gets word of changes of addresses, routes and rules; it does not block. Raises OSError."""
    return netlink.open_monitor(ROUTING_GROUPS)


def concerns_delivery(told: bytes) -> bool:
    """Whether a datagram of the monitor tells of anything but routes by which packets go elsewhere."""
    return any(
        kind not in (_RTM_NEWROUTE, _RTM_DELROUTE) or len(body) < ROUTE.size or body[7] in _DELIVERED
        for kind, _, body in messages(told)
    )


def _dump(kind: int, family: int, route_type: int) -> list[tuple[tuple[int, ...], Attributes]]:
    """Headers and attributes of all that there is; of a route_type where the kernel can choose. Raises OSError."""
    body = ROUTE.pack(family, 0, 0, 0, 0, 0, 0, route_type, 0)
    for _ in range(_ATTEMPTS):
        found, is_whole = [], True
        with open_netlink() as asking:
            asking.settimeout(PATIENCE)
            with suppress(OSError):  # kernels before 4.20 tell everything
                asking.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
            for _, flags, answer in answers(asking, kind, body, REQUEST_DUMP):
                is_whole = is_whole and not flags & INTERRUPTED
                if len(answer) >= ROUTE.size:
                    found.append((ROUTE.unpack_from(answer), attributes(answer[ROUTE.size :])))
        if is_whole:
            return found
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _tables(rule: tuple[tuple[int, ...], Attributes]) -> frozenset[int]:
    """The table in which a rule has packets looked up that have no mark and have come in nowhere; none else."""
    header, told = rule
    is_marked = any(told.get(_FRA_FWMARK, b""))
    comes_in = told.get(_FRA_IIFNAME, b"lo").rstrip(b"\0") != b"lo"
    return frozenset() if is_marked or comes_in else frozenset((_table(header, told),))


def _table(header: tuple[int, ...], told: Attributes) -> int:
    whole = number(told.get(_TABLE, b""))
    return header[4] if whole is None else whole


def _destination(family: int, length: int, told: Attributes) -> str:
    packed = told.get(RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
    return f"{socket.inet_ntop(family, packed)}/{length}"
