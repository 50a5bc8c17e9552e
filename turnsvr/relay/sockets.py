"""Sockets and addresses as both pumps and those that listen use them: opening, emptying, spelling."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys

from turnsvr.stun.address import Address, Family, pack_host, unpack_host

_MOST_WAITING = 65_536
"""More datagrams than a socket holds."""

_NO_LINGER = struct.pack("ii", 1, 0)

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


def wildcard(family: Family) -> str:
    return "::" if family is Family.IPV6 else "0.0.0.0"


def canonical(host: str) -> str:
    """A host as the kernel spells it, zone kept. Raises OSError when it is no IP address."""
    _, percent, zone = host.partition("%")
    return unpack_host(pack_host(host)) + percent + zone


def without_zone(host: str) -> str:
    """A host as the kernel spells it and the wire carries it. Raises OSError when it is no IP address."""
    return unpack_host(pack_host(host))


def socket_address(address: tuple[str, int]) -> SocketAddress:
    """What the socket module wants; a zone becomes the scope id. Raises OSError for an unknown zone."""
    host, port = address
    if "%" not in host:
        return host, port
    host, _, zone = host.partition("%")
    return host, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


def zoned(host: str, scope: int) -> str:
    """A host with the name of its interface, or the number of one that has gone."""
    try:
        return f"{host}%{socket.if_indextoname(scope)}"
    except OSError:
        return f"{host}%{scope}"


def open_udp(address: Address, buffer: int = 0, *, reuse_port: bool = False) -> socket.socket:
    """A bound, nonblocking socket; IPv6 ones carry IPv6 only. reuse_port: it may be one of several. Raises OSError.

    What it sends to a multicast group does not come back to this host, whose every socket at a wildcard address would
    hear what is for all hosts.
    """
    sock = socket.socket(address.family.socket_family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if address.family is Family.IPV6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        sock.bind(socket_address(address))
    except BaseException:
        sock.close()
        raise
    return sock


_SO_RCVBUFFORCE = 33


def make_room(descriptor: int, size: int) -> None:
    """Have a UDP socket hold so many received bytes, or as many as the system grants; never fewer than before."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, fileno=descriptor)
    try:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 2 * size:  # the kernel says twice what it was told
            for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, option, size)
    finally:
        sock.detach()


_RECVERR = {Family.IPV4: (socket.IPPROTO_IP, 11), Family.IPV6: (socket.IPPROTO_IPV6, 25)}
"""IP_RECVERR and IPV6_RECVERR of <linux/in.h> and <linux/in6.h>, which the socket module does not name."""


def hear_errors(descriptor: int, family: Family, wanted: bool) -> None:
    """Whether the kernel is to keep ICMP errors for a UDP socket; those that it keeps are thrown away with False."""
    if sys.platform != "linux":
        return
    sock = socket.socket(family.socket_family, socket.SOCK_DGRAM, fileno=descriptor)
    try:
        sock.setsockopt(*_RECVERR[family], wanted)
    finally:
        sock.detach()


def reset_when_closed(connected: socket.socket) -> None:
    """Have a TCP connection be reset when it is closed: the system forgets it at once, and what it has not sent."""
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def discard(descriptor: int) -> None:
    """Throw away what waits in a UDP socket that does not block, a pending error among it."""
    for _ in range(_MOST_WAITING):
        try:
            os.read(descriptor, 1)
        except BlockingIOError:
            return
        except OSError:
            continue
