"""Several sockets at one address, so that a source that floods fills its own and no other's.

Python reads more slowly than a network can send, and what a full socket has no room for is lost, of all sources
alike. The kernel puts each source, an IPv4 address or an IPv6 /64, into the socket that a secret of this process
chooses; the loop reads a bounded number of datagrams of each in turn.
"""

from __future__ import annotations

import ctypes
import secrets
import socket
import struct
import sys
from collections.abc import Iterable

from turnsvr.relay.portable.sockets import BindingAnswer, UdpListener, open_listener
from turnsvr.relay.sockets import open_udp
from turnsvr.stun.address import Address, Family

GROUP_BITS = 4
GROUP = 1 << GROUP_BITS
"""Sockets of a group: with so many, a flood of one source is met by one in sixteen others."""

_SO_ATTACH_REUSEPORT_CBPF = 51
"""<asm-generic/socket.h>"""

# <linux/bpf_common.h>, <linux/filter.h>
_LOAD_WORD = 0x20
_MULTIPLY = 0x24
_ADD_INDEX = 0x0C
_SHIFT_RIGHT = 0x74
_MOVE_TO_INDEX = 0x07
_RETURN = 0x16
_NETWORK_HEADER = 0xFFF00000
_SOURCE_IPV4 = _NETWORK_HEADER + 12
_SOURCE_IPV6 = _NETWORK_HEADER + 8

_INSTRUCTION = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("@HP")


def open_group(address: Address, answer: BindingAnswer, buffer: int) -> list[UdpListener]:
    """Listeners at one address, port 0 picks one; one alone where the system steers none. Raises OSError."""
    if sys.platform != "linux":
        return [open_listener(address, answer, buffer)]
    if address.port:
        open_udp(address).close()  # fails where another process has the address, which a group could bind too
    group: list[UdpListener] = []
    try:
        for _ in range(GROUP):
            group.append(open_listener(address, answer, buffer, reuse_port=True))
            address = group[0].address
        _steer(group[0].socket, address.family)
    except OSError:
        _close(group)
        if len(group) < GROUP:
            raise
        return [open_listener(address, answer, buffer)]
    return group


def _close(group: Iterable[UdpListener]) -> None:
    for each in group:
        each.socket.close()


def _steer(sock: socket.socket, family: Family) -> None:
    """Have sources choose among the sockets of the group. Raises OSError."""
    factor, other = (secrets.randbits(32) | 1 for _ in range(2))
    if family is Family.IPV4:
        code = [(_LOAD_WORD, _SOURCE_IPV4), (_MULTIPLY, factor)]
    else:
        code = [
            (_LOAD_WORD, _SOURCE_IPV6),
            (_MULTIPLY, factor),
            (_MOVE_TO_INDEX, 0),
            (_LOAD_WORD, _SOURCE_IPV6 + 4),
            (_ADD_INDEX, 0),
            (_MULTIPLY, other),
        ]
    code += [(_SHIFT_RIGHT, 32 - GROUP_BITS), (_RETURN, 0)]
    instructions = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(what, 0, 0, value) for what, value in code))
    program = _PROGRAM.pack(len(code), ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)
