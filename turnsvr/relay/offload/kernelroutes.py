"""What the kernel would do with a packet: its route, its neighbour, the interface; and its changes (rtnetlink(7)).

Everything is asked for when it is needed; nothing is remembered here.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from turnsvr import netlink
from turnsvr.netlink import (
    PATIENCE,
    REQUEST,
    REQUEST_DUMP,
    ROUTE,
    ROUTING_GROUPS,
    RTA_DST,
    RTM_GETROUTE,
    answers,
    attribute,
    attributes,
    messages,
    number,
    open_netlink,
)
from turnsvr.stun.address import Address, Family, pack_host, unpack_host

_LINK: Final = Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""
_NEIGHBOUR: Final = Struct("=B3xiHBB")
"""struct ndmsg: family, index, state, flags, type."""
_ADDRESS: Final = Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
_GENERIC: Final = Struct("=BBH")
"""struct genlmsghdr: command, version."""

_NEWLINK, _GETLINK, _GETADDR = 16, 18, 22
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_GROUPS: Final = 0x1 | 0x4 | ROUTING_GROUPS
"""RTNLGRP_LINK, _NEIGH, and those."""

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_INFO_KIND: Final = 1
_ETHERNET: Final = 1
_IS_UP: Final = 1
_RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA, _RTA_ENCAP = 2, 4, 5, 8, 18, 22
_RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 27, 28, 29
_RTAX_MTU, _RTAX_HOPLIMIT = 2, 10
_UNICAST: Final = 1
_NDA_DST, _NDA_LLADDR = 1, 2
_KNOWN: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
"""NUD_REACHABLE, _STALE, _DELAY, _PROBE, _PERMANENT: there is an address to send to."""
_USE: Final = 1
"""NTF_USE: look whether the neighbour is still there, as if something were sent to it."""
_GLOBAL: Final = 0

_GENERIC_PROTOCOL: Final = 16
_CONTROLLER: Final = 16
_GETFAMILY: Final = 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_DEVICE_GET: Final = 1
_DEVICE_INDEX, _DEVICE_FEATURES = 1, 3
_BASIC, _REDIRECT, _TRANSMITS = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one flow."""

    interface: int
    next_hop: str
    """Address of the neighbour: a router, or the destination itself."""
    mtu: int
    """Bytes of an IP packet, of the path as far as it is known; 0 for that of the interface."""
    hop_limit: int
    """That of the route; 0 for that of the interface."""


@dataclass(frozen=True, slots=True)
class KernelLink:
    """An interface, as the kernel describes it."""

    index: int
    name: str
    mac: bytes
    mtu: int
    is_ethernet: bool
    """Whether it is Ethernet, is up, and is no part of a bridge or a bond."""
    is_pair: bool = False
    """Whether its driver is veth."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What the kernel says of a neighbour: its MAC address, or None where it has none to send to."""

    interface: int
    host: str
    mac: bytes | None


class Kernel:
    """A socket to ask through; close() it."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = open_netlink()
        self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._socket.close()

    def route(self, source: Address, destination: Address) -> Route | None:
        """The route of UDP from an address of this host; None where it ends here, does not exist, or encapsulates."""
        packed, family = pack_host(destination.host), destination.family.socket_family
        bits = len(packed) * 8
        body = (
            ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0)
            + attribute(RTA_DST, packed)
            + attribute(_RTA_SRC, pack_host(source.host))
            + attribute(_RTA_IP_PROTO, bytes([socket.IPPROTO_UDP]))
            + attribute(_RTA_SPORT, source.port.to_bytes(2))
            + attribute(_RTA_DPORT, destination.port.to_bytes(2))
        )
        for _, _, answer in self._ask(RTM_GETROUTE, body):
            return _read_route(answer, destination.host)
        return None

    def neighbour(self, interface: int, host: str) -> bytes | None:
        """Its MAC address, or None."""
        packed, family = pack_host(host), Address(host, 0).family.socket_family
        body = _NEIGHBOUR.pack(family, interface, 0, 0, 0) + attribute(_NDA_DST, packed)
        for _, _, answer in self._ask(_GETNEIGH, body):
            told = _read_neighbour(_NEWNEIGH, answer)
            return told.mac if told is not None else None
        return None

    def look_for(self, interface: int, host: str) -> None:
        """Have the kernel find out whether a neighbour that it knows is still there. Unknown ones are fine."""
        packed, family = pack_host(host), Address(host, 0).family.socket_family
        body = _NEIGHBOUR.pack(family, interface, 0, _USE, 0) + attribute(_NDA_DST, packed)
        list(self._ask(_NEWNEIGH, body, REQUEST | 0x4))  # NLM_F_ACK

    def link(self, interface: int) -> KernelLink | None:
        for _, _, answer in self._ask(_GETLINK, _LINK.pack(0, 0, interface, 0, 0)):
            return _read_link(answer)
        return None

    def links(self) -> list[KernelLink]:
        """Every Ethernet interface that is up, is no part of another one, and has an address beyond its link."""
        addressed = set()
        for _, _, answer in self._ask(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), REQUEST_DUMP):
            _, _, _, scope, index = _ADDRESS.unpack_from(answer)
            if scope == _GLOBAL:
                addressed.add(index)
        found = [_read_link(answer) for _, _, answer in self._ask(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), REQUEST_DUMP)]
        return [link for link in found if link.is_ethernet and link.index in addressed]

    def _ask(self, kind: int, body: bytes, flags: int = REQUEST) -> list[tuple[int, int, bytes]]:
        """What the kernel answers; empty where it refuses, since there is no such thing."""
        try:
            return list(answers(self._socket, kind, body, flags))
        except TimeoutError:
            # A late answer would be taken for that of the next question.
            self._socket.close()
            self._socket = open_netlink()
            self._socket.settimeout(PATIENCE)
            return []
        except OSError:
            return []


def open_monitor() -> socket.socket:
    """A socket that hears of links, neighbours, addresses, routes and rules; it does not block. Raises OSError."""
    return netlink.open_monitor(_GROUPS)


def changes(told: bytes) -> Iterator[Neighbour | None]:
    """What a datagram of the monitor says of neighbours; None for anything else, which may change routes."""
    for kind, _, body in messages(told):
        if kind in (_NEWNEIGH, _DELNEIGH):
            neighbour = _read_neighbour(kind, body)
            if neighbour is not None:
                yield neighbour
        else:
            yield None


class Features:
    """What drivers say of XDP, by generic netlink's family `netdev` (Linux 6.3)."""

    def __init__(self) -> None:
        self._family = 0
        with suppress(OSError):
            name = attribute(_FAMILY_NAME, b"netdev\0")
            told = self._ask(_CONTROLLER, _GENERIC.pack(_GETFAMILY, 1, 0) + name)
            self._family = int.from_bytes(told.get(_FAMILY_ID, b""), sys.byteorder)

    def takes_programs(self, interface: int) -> bool | None:
        """Whether the driver has XDP; None where it does not say."""
        features = self._of(interface)
        return None if features is None else features & (_BASIC | _REDIRECT) == _BASIC | _REDIRECT

    def takes_frames(self, interface: int) -> bool:
        """Whether frames of another interface may leave by this one; False where the driver does not say."""
        return bool((self._of(interface) or 0) & _TRANSMITS)

    def _of(self, interface: int) -> int | None:
        if not self._family:
            return None
        index = attribute(_DEVICE_INDEX, interface.to_bytes(4, sys.byteorder))
        try:
            told = self._ask(self._family, _GENERIC.pack(_DEVICE_GET, 1, 0) + index)
        except OSError:
            return None
        return int.from_bytes(told.get(_DEVICE_FEATURES, b""), sys.byteorder)

    def _ask(self, family: int, body: bytes) -> dict[int, bytes]:
        with open_netlink(protocol=_GENERIC_PROTOCOL) as asking:
            asking.settimeout(PATIENCE)
            for _, _, answer in answers(asking, family, body):
                return attributes(answer[_GENERIC.size :])
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def hop_limit(family: Family, interface: str) -> int:
    """What the kernel gives a packet that leaves by this interface, where its route does not say."""
    if family is Family.IPV4:
        return _setting("/proc/sys/net/ipv4/ip_default_ttl", 64)
    return _setting(f"/proc/sys/net/ipv6/conf/{interface}/hop_limit", 64)


def has_flow_labels() -> bool:
    """Whether the kernel gives flows of IPv6 labels of their own accord."""
    return _setting("/proc/sys/net/ipv6/auto_flowlabels", 1) in (1, 3)


def _setting(path: str, usual: int) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return usual


def _read_route(answer: bytes, destination: str) -> Route | None:
    told, kind = attributes(answer[ROUTE.size :]), ROUTE.unpack_from(answer)[7]
    if kind != _UNICAST or _RTA_OIF not in told or _RTA_ENCAP in told:
        return None
    via = told.get(_RTA_GATEWAY) or told.get(_RTA_VIA, b"")[2:]
    metrics = {kind: number(value) or 0 for kind, value in attributes(told.get(_RTA_METRICS, b"")).items()}
    return Route(
        number(told[_RTA_OIF]) or 0,
        unpack_host(via) if via else destination,
        metrics.get(_RTAX_MTU, 0),
        metrics.get(_RTAX_HOPLIMIT, 0),
    )


def _read_neighbour(kind: int, body: bytes) -> Neighbour | None:
    """None where it is not of IP."""
    if len(body) < _NEIGHBOUR.size:
        return None
    _, interface, state, _, _ = _NEIGHBOUR.unpack_from(body)
    told = attributes(body[_NEIGHBOUR.size :])
    host, mac = told.get(_NDA_DST, b""), told.get(_NDA_LLADDR, b"")
    if len(host) not in (4, 16):
        return None
    is_known = kind == _NEWNEIGH and state & _KNOWN and len(mac) == 6
    return Neighbour(interface, unpack_host(host), mac if is_known else None)


def _read_link(answer: bytes) -> KernelLink:
    _, kind, index, flags, _ = _LINK.unpack_from(answer)
    told = attributes(answer[_LINK.size :])
    mac = told.get(_IFLA_ADDRESS, b"")
    is_ethernet = kind == _ETHERNET and bool(flags & _IS_UP) and len(mac) == 6 and _IFLA_MASTER not in told
    name = told.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    driver = attributes(told.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"").rstrip(b"\0")
    return KernelLink(index, name, mac, number(told.get(_IFLA_MTU, b"")) or 0, is_ethernet, driver == b"veth")
