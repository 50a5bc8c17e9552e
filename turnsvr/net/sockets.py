"""Socket addresses as the system gives them, and as this program names them."""

from __future__ import annotations

import socket
from typing import Any

from turnsvr.relay.sockets import socket_address
from turnsvr.stun.address import Address

_LINK_LOCAL = ("fe8", "fe9", "fea", "feb")


def address_of(sockaddr: tuple[Any, ...]) -> Address:
    """The address in a sockaddr of AF_INET or AF_INET6; a link-local host carries its zone ("fe80::1%eth0")."""
    host = str(sockaddr[0])
    if len(sockaddr) > 3 and sockaddr[3] and "%" not in host and host.startswith(_LINK_LOCAL):
        host = f"{host}%{_zone(sockaddr[3])}"
    return Address(host, sockaddr[1])


def open_stream_listener(address: Address, backlog: int = 1024) -> socket.socket:
    """A listening TCP socket of exactly the address's family, not blocking; raises OSError."""
    listener = socket.socket(address.family.socket_family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(socket_address(address))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _zone(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)
