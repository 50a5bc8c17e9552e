"""Hosts beyond the relay: some that answer, one that nobody may reach, one that reaches for everybody."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import cast

from turnsvr.stun.address import Address

TOKEN_SIZE = 16
"""Bytes at the start of each payload that say whose it is."""

_BUFFER = 8 << 20
"""Bytes a peer's socket holds while this process is busy with something else."""


class Peer(asyncio.DatagramProtocol):
    """Counts what arrives, and sends it back where it answers."""

    def __init__(self, *, answers: bool) -> None:
        self.received = 0
        self._answers = answers

    @classmethod
    async def open(cls, host: str, *, answers: bool = True) -> Peer:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.bind((host, 0))
        sock.setblocking(False)
        _, peer = await asyncio.get_running_loop().create_datagram_endpoint(lambda: cls(answers=answers), sock=sock)
        return peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        host, port = transport.get_extra_info("sockname")
        self.address = Address(host, port)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received += 1
        if self._answers:
            self._transport.sendto(data, addr)

    def send(self, data: bytes, to: Address) -> None:
        self._transport.sendto(data, tuple(to))

    @property
    def lost(self) -> int:
        """Datagrams that the kernel had no room for (proc(5), the last column of /proc/net/udp)."""
        inode = str(Path(f"/proc/self/fd/{self._transport.get_extra_info('socket').fileno()}").readlink())[8:-1]
        rows = (line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:])
        return next(int(row[12]) for row in rows if row[9] == inode)

    def close(self) -> None:
        self._transport.close()
