"""Where the marathon runs: where no other program sends, since a permission is by IP address alone.

A network namespace of its own is best; where the system grants none, addresses of 127/8 that are drawn for this run.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import socket
import struct
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
_REQUEST = struct.Struct("16sh14x")
"""A struct ifreq (netdevice(7))."""


def enter() -> tuple[str, str]:
    """Go where nobody else is: the first three numbers of the hosts to use, and in words what that is.

    Must come before this process has a second thread.
    """
    user, group = os.getuid(), os.getgid()
    for flags in (_CLONE_NEWNET, _CLONE_NEWNET | _CLONE_NEWUSER):
        if not _unshare(flags):
            continue
        if flags & _CLONE_NEWUSER:
            _stay_who_we_are(user, group)
        _set_up("lo")
        return "127.0.0", "a network namespace of its own"
    prefix = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(256)}"
    return prefix, f"{prefix}.0/24, addresses that no test uses, for want of a network namespace"


def _unshare(flags: int) -> bool:
    """Whether the system grants it; os.unshare is too new."""
    return bool(ctypes.CDLL(None).unshare(flags) == 0)


def _stay_who_we_are(user: int, group: int) -> None:
    """In a user namespace of its own, where nobody is known otherwise."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _set_up(device: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name, flags = _REQUEST.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, _REQUEST.pack(device.encode(), 0)))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _REQUEST.pack(name, flags | _IFF_UP))
