"""Listening sockets for HTTP: bound here, or taken from another process that has bound them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from turnsvr.config.websettings import WebListen

_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}

BoundListener = tuple[WebListen, socket.socket]
"""A listener and its bound socket."""

Inherited = dict[tuple[str, int], int]
"""Descriptors of listening sockets that another process has bound, by host and port; its taker owns it."""


class ListenFailed(Exception):
    """A listener that cannot be opened: which, and what to do about it, in one line."""


def open_listeners(addresses: Iterable[WebListen], inherited: Inherited | None = None) -> list[BoundListener]:
    """Bound sockets, each with where it is; an optional one whose family the host lacks is left out.

    inherited: in place of what would be bound; what is used is taken out. Raises ListenFailed, and then nothing is
    left open.
    """
    opened: list[BoundListener] = []
    for address in addresses:
        descriptor = None if inherited is None else inherited.pop((address.host, address.port), None)
        try:
            bound = _bind(address) if descriptor is None else _inherit(descriptor)
        except OSError as error:
            if address.optional and error.errno in _NO_SUCH_FAMILY:
                continue
            close_all(opened)
            raise ListenFailed(f"{address}: {_reason(address, error)}") from None
        opened.append((WebListen(address.scheme, address.host, bound.getsockname()[1]), bound))
    if not opened:
        raise ListenFailed("this host has no address of that family; name one of its own")
    return opened


def close_all(opened: Iterable[BoundListener]) -> None:
    for _, each in opened:
        each.close()


def _bind(address: WebListen) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address.host, address.port))
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _inherit(descriptor: int) -> socket.socket:
    opened = socket.socket(fileno=descriptor)
    opened.setblocking(False)
    return opened


def _reason(address: WebListen, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {address.port}/tcp is in use; stop what serves there, or name another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not serve on port {address.port}; name a port from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this host has no address {address.host}; name one of its own, or *"
    return f"cannot be opened: {error.strerror}"
