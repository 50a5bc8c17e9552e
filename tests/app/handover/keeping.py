"""What a service manager keeps, in this process; and a kept snapshot taken apart and put together again."""

from __future__ import annotations

import os
import socket
from typing import Any

from turnsvr.app.handover import records
from turnsvr.app.handover.store import Deposit
from turnsvr.app.handover.wire import MOST_DESCRIPTORS

Said = tuple[dict[str, Any], list[int]]
"""A message and its descriptors."""


class Keeper:
    """A store.Manager."""

    def __init__(self, most: int = 16, *, answers: bool = True) -> None:
        self.kept: dict[str, list[int]] = {}
        self.told: list[str] = []
        self._most = most
        self._answers = answers

    def keep(self, descriptor: int, name: str) -> None:
        if sum(map(len, self.kept.values())) < self._most:
            self.kept.setdefault(name, []).append(os.dup(descriptor))

    def forget(self, name: str) -> None:
        for each in self.kept.pop(name, []):
            os.close(each)

    async def settled(self, seconds: float) -> bool:
        return self._answers

    def close(self) -> None:
        for name in list(self.kept):
            self.forget(name)


def take_apart(kept: int) -> list[Said]:
    """All that lies in a kept descriptor, which is empty afterwards, and closed. The descriptors are the caller's."""
    with socket.socket(fileno=kept) as source:
        source.setblocking(False)
        _, [memory], _, _ = socket.recv_fds(source, 1, 1)
        said: list[Said] = []
        for message, count in records.unpack(records.read_all(memory)):
            said.append((message, list(socket.recv_fds(source, 1, MOST_DESCRIPTORS)[1]) if count else []))
        os.close(memory)
    return said


async def put_together(said: list[Said]) -> int:
    """A kept descriptor, in which these lie. Their descriptors are closed."""
    ours, kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    memory = os.memfd_create("test")
    with ours:
        deposit = Deposit(ours, memory)
        for message, descriptors in said:
            await deposit.send(message, descriptors)
            for each in descriptors:
                os.close(each)
    os.close(memory)
    return kept.detach()


def raw(data: bytes, messages: list[list[int]]) -> int:
    """A kept descriptor with this as its snapshot, and descriptors in these messages; they stay the caller's."""
    ours, kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    memory = os.memfd_create("test")
    os.write(memory, data)
    with ours:
        for each in ([memory], *messages):
            socket.send_fds(ours, [b"F"], each)
    os.close(memory)
    return kept.detach()


def open_descriptors() -> set[int]:
    return {int(each) for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")}
