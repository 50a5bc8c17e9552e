"""Sessions that wait in the service manager while no process serves: between the end of one and the start of the next.

The manager keeps one descriptor, an end of a socket pair. In its buffer lie the descriptors of sockets, hundreds a
message, and before them a memory file with the messages of a hand-over. What lies there can be taken out once. So the
manager has to look after one descriptor, however many sessions there are, and a snapshot is never read twice.

No process answers: what cannot be understood is not taken up, and the next process begins with nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from turnsvr.app.errors import StartError
from turnsvr.app.handover import document, records
from turnsvr.app.handover.beside import Incoming, Outgoing
from turnsvr.app.handover.giver import CannotHandOver, Giver
from turnsvr.app.handover.steps import reached
from turnsvr.app.handover.taker import Taker
from turnsvr.app.handover.wire import MOST_DESCRIPTORS, Closed, Full, Process, Talk, close_all, kind_of
from turnsvr.app.rooms import Rooms
from turnsvr.net.engine import Engine
from turnsvr.net.movable import MovableStreams
from turnsvr.turn.snapshot import (
    Document,
    Unreadable,
    check_names,
    read_float,
    read_int,
    read_list,
    read_row,
    read_str,
)

NAME: Final = "turnsvr-sessions"
"""Of the descriptor that the manager keeps."""
CRASH: Final = "turnsvr-crash-"
"""Prefix of the names under which a running server keeps things: a time follows, later in a later process."""
PREFIX: Final = "turnsvr-"
"""Prefix of every name that this program has ever used."""

_PATIENCE: Final = 2.0
"""Seconds that the manager may take to keep a descriptor."""
_BUFFER: Final = 4 * 1024 * 1024
"""Bytes that a socket pair asks for; a message with descriptors takes about one thousand."""
_CARRIER: Final = b"F"
_CLOCKS_APART: Final = 0.5
"""Seconds that the two clocks may part by, where the machine has not slept."""

_log = structlog.get_logger()


class Manager(Protocol):
    """The service manager."""

    def keep(self, descriptor: int, name: str) -> None: ...

    def forget(self, name: str) -> None: ...

    async def settled(self, seconds: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class HostTime:
    """A time that another process of this host can judge."""

    boot: str
    """The run of the kernel, in which alone times and sockets mean something."""
    monotonic: float
    since_boot: float
    """The same with the time that the machine has slept."""

    @classmethod
    def now(cls) -> HostTime:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot = ""
        return cls(boot, time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))

    def write(self) -> Document:
        return {"kind": "kept", "boot": self.boot, "monotonic": self.monotonic, "since_boot": self.since_boot}

    @classmethod
    def read(cls, value: Document) -> HostTime:
        """Raises Unreadable."""
        check_names(value, "kind boot monotonic since_boot")
        return cls(
            read_str(value["boot"], "boot"),
            read_float(value["monotonic"], "monotonic"),
            read_float(value["since_boot"], "since_boot"),
        )

    def check(self, now: HostTime) -> None:
        """Raises Unreadable where deadlines of that time do not mean the same now."""
        if self.boot != now.boot:
            raise Unreadable("it is of another run of this machine")
        if self.monotonic > now.monotonic or self.since_boot > now.since_boot:
            raise Unreadable("it is of a time to come")
        if now.since_boot - self.since_boot - (now.monotonic - self.monotonic) > _CLOCKS_APART:
            raise Unreadable("the machine has slept since")


# The process that ends


class Deposit:
    """Stands in the place of a wire, and stores each message where a later process finds it."""

    process: Process | None = None

    def __init__(self, sink: socket.socket, memory: int) -> None:
        """sink: an end of a pair whose other end is kept. memory: a memory file. Both stay the caller's.

        Raises Full.
        """
        sink.setblocking(False)
        self._sink = sink
        self._memory = memory
        self._pass([memory])

    async def send(self, message: Document, descriptors: Sequence[int] = ()) -> None:
        """Raises Full, Closed where the other end is not kept, and OSError where there is no memory."""
        if descriptors:
            self._pass(descriptors)
        records.write_all(self._memory, records.pack(message, len(descriptors)))

    async def receive(self, seconds: float | None = None) -> tuple[Document, list[int]]:
        raise Closed("no process answers")

    def close(self) -> None:
        """Nothing to close: the caller owns both."""

    def _pass(self, descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self._sink, [_CARRIER], descriptors)
        except BrokenPipeError:
            raise Closed("the service manager keeps nothing (FileDescriptorStoreMax=)") from None
        except OSError as error:  # EAGAIN: the buffer is full; ETOOMANYREFS: more on their way than LimitNOFILE allows
            raise Full(error.strerror or "no room") from None


async def leave(rooms: Rooms, others: Outgoing, manager: Manager) -> int:
    """Leave sessions with the manager; returns how many. Raises CannotHandOver, and then all is as before."""
    ours, kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    memory = os.memfd_create("turnsvr-snapshot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with ours, kept:
            with contextlib.suppress(OSError):
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            manager.forget(NAME)
            manager.keep(kept.fileno(), NAME)
            if not await manager.settled(_PATIENCE):
                raise CannotHandOver("the service manager does not answer")
            kept.close()
            deposit = Deposit(ours, memory)
            await deposit.send(HostTime.now().write())
            given = await Giver(rooms, others, deposit).leave_behind()
            _seal(memory)
            reached("sealed")
    except (Closed, Full, OSError) as error:
        manager.forget(NAME)
        raise CannotHandOver(str(error)) from None
    except CannotHandOver:
        manager.forget(NAME)
        raise
    finally:
        os.close(memory)
    return len(given.sessions)


def _seal(memory: int) -> None:
    """Seal a memory file against every further write."""
    import fcntl  # which not every system has

    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)


# The process that begins


class Kept:
    """Stands in the place of a wire, and returns the messages that lie in a kept descriptor."""

    process: Process | None = None

    def __init__(self, kept: int) -> None:
        """kept: ours from here on."""
        self._source = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=kept)
        self._messages: list[tuple[Document, int]] = []
        self._taken: dict[int, tuple[int, int]] = {}
        """Descriptors that receive() has returned, each with the identity of its file."""

    def open(self, now: HostTime) -> None:
        """Read the snapshot, but no socket. Raises Unreadable for one that is not whole, or not of this time."""
        self._source.setblocking(False)
        [memory] = self._take(1)
        try:
            messages = records.unpack(records.read_all(memory))
        except OSError as error:
            raise Unreadable(error.strerror or "it cannot be read") from None
        finally:
            os.close(memory)
        if not messages or messages[0][0].get("kind") != "kept" or messages[-1][0].get("kind") != "left":
            raise Unreadable("the process before this one has not written it to its end")
        HostTime.read(messages[0][0]).check(now)
        self._messages = messages[:0:-1]

    async def send(self, message: Document, descriptors: Sequence[int] = ()) -> None:
        """Drop the message: no process reads it."""

    async def receive(self, seconds: float | None = None) -> tuple[Document, list[int]]:
        """Raises Unreadable, also where the sockets of a message are not there."""
        if not self._messages:
            raise Unreadable("it has no end")
        message, count = self._messages.pop()
        return message, self._take(count) if count else []

    def close(self) -> None:
        self._source.close()

    def discard(self) -> None:
        """Close the descriptors that receive() has returned and that are still open. Call it once nothing uses them."""
        for descriptor, what in self._taken.items():
            with contextlib.suppress(OSError):
                if identity(descriptor) == what:
                    os.close(descriptor)
        self._taken.clear()
        self._empty()
        self.close()

    def _empty(self) -> None:
        """Close what lies there still; else it stays open, and bound, until the manager forgets it."""
        self._source.setblocking(False)
        with contextlib.suppress(OSError):
            while socket.recv_fds(self._source, 1, 0)[0]:
                pass

    def _take(self, count: int) -> list[int]:
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._source, len(_CARRIER), MOST_DESCRIPTORS)
        except OSError:
            raise Unreadable("its sockets are not there") from None
        for each in descriptors:
            os.set_inheritable(each, False)
        if not data:
            raise Unreadable("its sockets are not there")
        if data != _CARRIER or flags & socket.MSG_CTRUNC or len(descriptors) != count:
            close_all(descriptors)
            raise Unreadable(f"of {count} sockets {len(descriptors)} are there, or may be open here (LimitNOFILE)")
        self._taken.update({each: identity(each) for each in descriptors})
        return list(descriptors)


def identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


class StoredHandOver(Talk, Protocol):
    """What lies in the manager, as one hand-over."""

    def open(self, now: HostTime) -> None:
        """Raises Unreadable."""

    def discard(self) -> None:
        """Close every descriptor that receive() has returned, and what lies there still."""


class StoredTaker(Taker):
    """Adopts what an ended process has left. Where it cannot, its methods raise StartError; then discard() it."""

    serves_first = True

    def __init__(self, kept: StoredHandOver) -> None:
        super().__init__(kept)
        self._kept = kept

    async def read(self) -> None:
        try:
            self._kept.open(HostTime.now())
            await super().read()
        except ValueError as error:
            await self.give_up(str(error))
        self.staying.clear()  # they have ended

    async def give_up(self, reason: str) -> None:
        raise StartError(f"the sessions of the process before this one are not taken up: {reason}")

    async def _alone_or_not(self, reason: str) -> None:
        await self.give_up(reason)

    async def serve(self, engine: Engine, streams: MovableStreams, others: Incoming) -> None:
        await super().serve(engine, streams, others)
        try:
            await self._settle(engine)
        except Unreadable as error:
            _log.error("what the process before this one has counted last was not understood", reason=str(error))
        self._kept.close()

    def discard(self) -> None:
        """Close all that it has read, where this process could not start with it."""
        self._kept.discard()

    async def _settle(self, engine: Engine) -> None:
        """Raises Unreadable."""
        while True:
            message, descriptors = await self._kept.receive()
            close_all(descriptors)
            kind = kind_of(message)
            if kind == "left":
                return
            if kind != "settled":
                raise Unreadable(f"a message {kind!a}")
            for each in read_list(message.get("counters"), "counters"):
                number, *fields = read_row(each, 6, "counters")
                engine.pump.settle(read_int(number, "number"), document.read_counters(fields))

    def wire(self) -> None:
        """None: no other process serves sessions of this server."""
