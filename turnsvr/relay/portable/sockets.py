"""UDP sockets as the systems have them: which address a datagram was for, where an answer leaves from, ICMP errors, DF.

What a system lacks is left out: without packet info a wildcard listener answers from the address that the
kernel picks, without an error queue no ICMP error is heard, without a DF switch packets go as the system sends them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from turnsvr.relay.sockets import canonical, discard, hear_errors, open_udp, socket_address, zoned
from turnsvr.stun.address import Address, Family, unpack_host
from turnsvr.stun.icmp import ICMP_TYPES

_LINUX = sys.platform == "linux"

# <linux/in.h>, <linux/in6.h>, <linux/errqueue.h>; the socket module does not name them.
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50
_IP_PMTUDISC_DONT = 0
_IP_PMTUDISC_DO = 2
_MSG_ERRQUEUE = 0x2000
_ORIGIN_ICMP = frozenset((2, 3))

_IN_PKTINFO = struct.Struct("=I4s4s")
_IN6_PKTINFO = struct.Struct("=16sI")
_EXTENDED_ERR = struct.Struct("=IBBBBII")

_DATAGRAM = 65_536
_ANCILLARY = 128
_MAX_SERVER_ADDRESSES = 1024
"""Local addresses that a wildcard listener remembers the encoding of."""

_TOO_BIG = {(Family.IPV4, 3, 4), (Family.IPV6, 2, 0)}

_WILDCARDS = frozenset(("0.0.0.0", "::"))

Ancillary = list[tuple[int, int, bytes]]


class IcmpError(NamedTuple):
    """An ICMP error about a packet that was sent to peer. data: 4 bytes, the MTU when it was too big, else zeros."""

    peer: Address
    type: int
    code: int
    data: bytes


class BindingAnswer(NamedTuple):
    """What an answer to a plain Binding request says besides XOR-MAPPED-ADDRESS."""

    suffix: bytes
    mapped_address: bool


_SO_RCVBUFFORCE = 33
_SOL_UDP = 17
_UDP_GRO = 104
_LISTENER_ROOM = 2 * 1024 * 1024
"""Bytes that a listener asks to receive into where the settings name no size: hundreds of clients may come at once."""


def _enlarge(sock: socket.socket) -> None:
    try:
        if not _LINUX:
            raise OSError
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _LISTENER_ROOM)
    except OSError:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LISTENER_ROOM)


def open_listener(address: Address, answer: BindingAnswer, buffer: int, *, reuse_port: bool = False) -> UdpListener:
    """A listener of the kind that its address needs; reuse_port: it may be one of several. Raises OSError."""
    sock = open_udp(address, buffer, reuse_port=reuse_port)
    if not buffer:
        _enlarge(sock)
    return _listener(sock, address, answer)


def serve_listener(descriptor: int, address: Address, answer: BindingAnswer) -> UdpListener:
    """A listener on a socket that is bound there already, and that is its own from here on."""
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    _receive_one_by_one(sock)
    return _listener(sock, address, answer)


def _listener(sock: socket.socket, address: Address, answer: BindingAnswer) -> UdpListener:
    bound = Address(canonical(address.host), sock.getsockname()[1])
    if bound.host in _WILDCARDS and _LINUX:
        return WildcardListener(sock, bound, answer)
    return UdpListener(sock, bound, answer)


def _receive_one_by_one(sock: socket.socket) -> None:
    """Have the kernel join no datagrams of a socket that the compiled pump has had, nor tell of their TOS."""
    if not _LINUX:
        return
    is_ipv6 = sock.family == socket.AF_INET6
    level, option = (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) if is_ipv6 else (socket.IPPROTO_IP, socket.IP_RECVTOS)
    sock.setsockopt(level, option, 0)
    with contextlib.suppress(OSError):
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 0)


class UdpListener:
    """A socket that clients send to, at one address."""

    def __init__(self, sock: socket.socket, address: Address, answer: BindingAnswer) -> None:
        self.socket = sock
        self.address = address
        self.answer = answer
        self._is_ipv6 = address.family is Family.IPV6

    def receive(self) -> tuple[bytes, tuple[str, int], Address]:
        """A datagram, the client, and the server address that it was sent to. Raises OSError."""
        data, sender = self.socket.recvfrom(_DATAGRAM)
        return data, self._client(sender) if self._is_ipv6 else sender, self.address

    def send(self, data: bytes, client: tuple[str, int], server: Address) -> None:
        """Send to the client from the server address. Raises OSError."""
        self.socket.sendto(data, socket_address(client) if self._is_ipv6 else client)

    @staticmethod
    def _client(sender: tuple[str, int, int, int]) -> tuple[str, int]:
        host, port, _, scope = sender
        return (zoned(host, scope) if scope else host), port


class WildcardListener(UdpListener):
    """A socket at every address of a family: tells which one a datagram was for, answers from that one."""

    def __init__(self, sock: socket.socket, address: Address, answer: BindingAnswer) -> None:
        super().__init__(sock, address, answer)
        if self._is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._server = lru_cache(_MAX_SERVER_ADDRESSES)(self._read_packet_info)
        self._from = lru_cache(_MAX_SERVER_ADDRESSES)(self._write_packet_info)

    def receive(self) -> tuple[bytes, tuple[str, int], Address]:
        data, ancillary, _, sender = self.socket.recvmsg(_DATAGRAM, _ANCILLARY)
        client = self._client(sender) if self._is_ipv6 else sender
        return data, client, self._server(ancillary[0][2]) if ancillary else self.address

    def send(self, data: bytes, client: tuple[str, int], server: Address) -> None:
        destination = socket_address(client) if self._is_ipv6 else client
        self.socket.sendmsg((data,), self._from(server), 0, destination)

    def _read_packet_info(self, info: bytes) -> Address:
        if not self._is_ipv6:
            _, local, _ = _IN_PKTINFO.unpack(info)
            return Address(unpack_host(local), self.address.port)
        packed, interface = _IN6_PKTINFO.unpack(info)
        host = unpack_host(packed)
        is_link_local = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
        return Address(zoned(host, interface) if is_link_local else host, self.address.port)

    def _write_packet_info(self, server: Address) -> Ancillary:
        if server.host in _WILDCARDS:
            return []
        if not self._is_ipv6:
            return [(socket.IPPROTO_IP, _IP_PKTINFO, _IN_PKTINFO.pack(0, server.packed, bytes(4)))]
        local = socket_address(server)
        interface = local[3] if len(local) == 4 else 0
        return [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, _IN6_PKTINFO.pack(server.packed, interface))]


class RelaySocket:
    """A socket that peers send to: a relayed transport address as this host knows it."""

    def __init__(self, address: Address, buffer: int = 0) -> None:
        """Bind to exactly this address. Raises OSError."""
        self._serve(open_udp(address, buffer), address)

    @classmethod
    def of(cls, descriptor: int, address: Address) -> RelaySocket:
        """One that is bound there already, and this one's from here on."""
        made = cls.__new__(cls)
        opened = socket.socket(fileno=descriptor)
        opened.setblocking(False)
        _receive_one_by_one(opened)
        made._serve(opened, address)
        return made

    def _serve(self, opened: socket.socket, address: Address) -> None:
        self.address = address
        self.family = address.family
        self.socket = opened
        self._is_ipv6 = self.family is Family.IPV6
        self._dont_fragment: bool | None = None

    def receive(self) -> tuple[bytes, tuple[str, int]]:
        """A datagram and the peer. Raises OSError, once for each pending error too."""
        data, sender = self.socket.recvfrom(_DATAGRAM)
        return data, sender[:2] if self._is_ipv6 else sender

    def send(self, data: bytes, peer: tuple[str, int], dont_fragment: bool) -> None:
        """Send with DF set or clear (IPv4). Raises OSError; that may be a pending error, and then nothing was sent."""
        if dont_fragment is not self._dont_fragment:
            self._set_dont_fragment(dont_fragment)
        self.socket.sendto(data, peer)

    def _set_dont_fragment(self, wanted: bool) -> None:
        self._dont_fragment = wanted
        if _LINUX and not self._is_ipv6:
            mode = _IP_PMTUDISC_DO if wanted else _IP_PMTUDISC_DONT
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, mode)

    def errors(self, most: int) -> Iterator[IcmpError]:
        """Take at most so many entries from the error queue; yields those that a client may be told of."""
        if not _LINUX:
            return
        for _ in range(most):
            try:
                _, ancillary, _, destination = self.socket.recvmsg(0, 512, _MSG_ERRQUEUE)
            except OSError:
                return
            for level, option, value in ancillary:
                if (level, option) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                    error = self._read_error(value, destination)
                    if error is not None:
                        yield error

    def discard(self) -> None:
        discard(self.socket.fileno())

    def hear_errors(self, wanted: bool) -> None:
        hear_errors(self.socket.fileno(), self.family, wanted)

    def _read_error(self, value: bytes, destination: tuple[str, int]) -> IcmpError | None:
        _, origin, icmp_type, code, _, info, _ = _EXTENDED_ERR.unpack_from(value)
        if origin not in _ORIGIN_ICMP or icmp_type not in ICMP_TYPES[self.family]:
            return None
        mtu = info if (self.family, icmp_type, code) in _TOO_BIG else 0
        return IcmpError(Address(*destination[:2]), icmp_type, code, mtu.to_bytes(4, "big"))

    def close(self) -> None:
        self.socket.close()
