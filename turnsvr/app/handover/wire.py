"""Messages between two processes of one host: objects of JSON, each with descriptors, over a Unix socket.

A message is its size in 4 bytes, the number of its descriptors in 2, the text, and after it, where there are any, one
byte that carries them (SCM_RIGHTS). Nothing is read beyond a message, so no descriptor comes along with another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from turnsvr.turn.snapshot import Document, Unreadable, read_document, read_str

MOST_DESCRIPTORS: Final = 253
"""In one message: SCM_MAX_FD of the kernel."""

_HEAD: Final = struct.Struct("!IH")
_MOST_BYTES: Final = 32 * 1024 * 1024
_CARRIER: Final = b"F"
_SO_PEERPIDFD: Final = 77


class Closed(ConnectionError):
    """The other process has closed the connection, or is gone."""


class Full(Exception):
    """What stands in the place of a wire takes no more descriptors; the text says why."""


class Talk(Protocol):
    """A wire, or what stands in its place where no other process answers. A Wire's methods have the contracts."""

    process: Process | None

    async def send(self, message: Document, descriptors: Sequence[int] = ()) -> None: ...

    async def receive(self, seconds: float | None = None) -> tuple[Document, list[int]]: ...

    def close(self) -> None: ...


class Wire:
    """One end. The receiver of descriptors owns them."""

    def __init__(self, connected: socket.socket, process: Process | None = None) -> None:
        """connected: ours from here on. process: the one at the other end, found by the socket where it is None."""
        connected.setblocking(False)
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._is_cut_off = False
        """Whether a message was begun and not sent to its end, behind which no other one can be understood."""
        self.process = process or Process.behind(connected)
        """The one at the other end."""

    async def send(self, message: Document, descriptors: Sequence[int] = ()) -> None:
        """Raises Closed, or TimeoutError where the caller bounds it; after that it raises Closed."""
        text = json.dumps(message, separators=(",", ":")).encode()
        if self._is_cut_off:
            raise Closed("the message before was cut off")
        self._is_cut_off = True
        try:
            await self._loop.sock_sendall(self._socket, _HEAD.pack(len(text), len(descriptors)) + text)
            if descriptors:
                await self._send_descriptors(descriptors)
        except OSError as error:
            raise Closed(error.strerror or "closed") from None
        self._is_cut_off = False

    async def receive(self, seconds: float | None = None) -> tuple[Document, list[int]]:
        """Raises Closed, TimeoutError, and Unreadable for what is no message."""
        async with asyncio.timeout(seconds):
            size, count = _HEAD.unpack(await self._read(_HEAD.size))
            if size > _MOST_BYTES or count > MOST_DESCRIPTORS:
                raise Unreadable("a message of a size that none has")
            text = await self._read(size)
            descriptors = await self._read_descriptors(count) if count else []
        try:
            return read_document(json.loads(text, parse_constant=no_constant), "message"), descriptors
        except (ValueError, RecursionError) as error:
            close_all(descriptors)
            raise error if isinstance(error, Unreadable) else Unreadable("a message that is no JSON") from None

    def close(self) -> None:
        self._socket.close()
        if self.process is not None:
            self.process.close()
            self.process = None

    def detach(self) -> tuple[int, int]:
        """Descriptors of the connection and of the process, -1 without; the wire is not to be used any more."""
        process, self.process = self.process, None
        return self._socket.detach(), -1 if process is None else process.detach()

    async def _send_descriptors(self, descriptors: Sequence[int]) -> None:
        """Raises OSError."""
        while True:
            try:
                socket.send_fds(self._socket, [_CARRIER], descriptors)
                return
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    async def _read(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = await self._loop.sock_recv(self._socket, size)
            except OSError as error:
                raise Closed(error.strerror or "closed") from None
            if not part:
                raise Closed("closed")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    async def _read_descriptors(self, count: int) -> list[int]:
        """All of them, or none: where this process may open no more they are closed, and Unreadable is raised."""
        while True:
            try:
                data, descriptors, flags, _ = socket.recv_fds(self._socket, len(_CARRIER), count)
                break
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                raise Closed(error.strerror or "closed") from None
        if not data:
            raise Closed("closed")
        if flags & socket.MSG_CTRUNC or len(descriptors) != count:
            close_all(descriptors)
            raise Unreadable(f"{count} sockets, of which this process could open {len(descriptors)} (LimitNOFILE)")
        for each in descriptors:
            os.set_inheritable(each, False)
        return list(descriptors)

    async def _ready(self, add: Any, remove: Any) -> None:
        ready = self._loop.create_future()
        add(self._socket, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            remove(self._socket)


class Process:
    """Another process, by its pidfd: its number may name another process once it has ended, a pidfd never does."""

    def __init__(self, descriptor: int) -> None:
        """descriptor: a pidfd, ours from here on."""
        self._descriptor = descriptor

    @classmethod
    def numbered(cls, pid: int) -> Process | None:
        """None where there is none, or the system has no pidfd."""
        try:
            return cls(os.pidfd_open(pid))
        except (AttributeError, OSError):
            return None

    @classmethod
    def behind(cls, connected: socket.socket) -> Process | None:
        """The one that has connected, or listens, at the other end of a Unix socket; None where it cannot be told."""
        with contextlib.suppress(OSError):
            return cls(connected.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        try:
            credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except (AttributeError, OSError):
            return None
        pid = struct.unpack("3i", credentials)[0]
        return cls.numbered(pid) if pid > 0 else None

    def has_ended(self) -> bool:
        return bool(select.select([self._descriptor], [], [], 0)[0])

    async def wait_end(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        loop.add_reader(self._descriptor, lambda: None if ended.done() else ended.set_result(None))
        try:
            async with asyncio.timeout(seconds):
                await ended
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._descriptor)
        return True

    def kill(self) -> None:
        """Raises OSError where we may not. One that has ended is fine."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def detach(self) -> int:
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def kind_of(message: Document) -> str:
    """What a message is. Raises Unreadable."""
    return read_str(message.get("kind"), "kind")


def close_all(descriptors: Iterable[int]) -> None:
    for each in descriptors:
        os.close(each)


def no_constant(name: str) -> object:
    """For json.loads(): raises Unreadable for infinity and NaN."""
    raise Unreadable(f"a number {name}")
