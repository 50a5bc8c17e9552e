"""Hosts beyond the relay: some that answer, one that nobody may reach, one that reaches for everybody."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

from turnsvr.stun.address import Address

TOKEN_SIZE = 16
"""Bytes at the start of each payload that say whose it is."""

_BUFFER = 8 << 20
"""Bytes a peer's socket holds while this process is busy with something else."""
_LARGEST = 2_048


class Peer:
    """Counts what arrives, and sends it back at once where it answers: what is late would meet a port's next tenant."""

    def __init__(self, host: str, *, answers: bool = True) -> None:
        """Begins in the running loop."""
        self.received = 0
        self._answers = answers
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((host, 0))
        self._socket.setblocking(False)
        self.address = Address(*self._socket.getsockname())
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            while True:
                data, sender = self._socket.recvfrom(_LARGEST)
                self.received += 1
                if self._answers:
                    self._socket.sendto(data, sender)

    def send(self, data: bytes, to: Address) -> None:
        self._socket.sendto(data, to)

    @property
    def lost(self) -> int:
        """Datagrams that the kernel had no room for (proc(5), the last column of /proc/net/udp)."""
        inode = str(Path(f"/proc/self/fd/{self._socket.fileno()}").readlink())[8:-1]
        rows = (line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:])
        return next(int(row[12]) for row in rows if row[9] == inode)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
