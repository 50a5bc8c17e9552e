"""The UDP sockets of this process, whoever opened them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress


def udp_sockets() -> Iterator[tuple[int, socket.socket]]:
    """Each one's descriptor, and a duplicate that is closed when the next is asked for."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    if sock.type == socket.SOCK_DGRAM and sock.family in (socket.AF_INET, socket.AF_INET6):
                        yield int(name), sock
