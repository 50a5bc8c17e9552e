"""What a crash leaves: sessions of UDP clients, kept current in the service manager while the server runs.

The manager keeps one end of each of some socket pairs (store.py says why). In each lies one message: in the first the
journal, a memory file, with the listeners; in each of the others the relay sockets of a hundred sessions. A new message
is put behind the old one, which is then taken out: so one lies there at any time, and a socket that has closed is held
for a tenth of a second at the most. The journal has records as records.py writes them; what is written half at the end
does not count.

What has ended is written at once, what has begun, changed or been revoked within a tenth of a second: a process that
dies in between leaves fewer sessions, never more. Streams do not outlive a crash: what was read of them, and not
judged, is gone.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from turnsvr import __version__
from turnsvr.app.handover import document, records
from turnsvr.app.handover.beside import Outgoing
from turnsvr.app.handover.document import MovedSession
from turnsvr.app.handover.store import CRASH, HostTime, Manager
from turnsvr.app.handover.wire import MOST_DESCRIPTORS
from turnsvr.app.rooms import Rooms
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Transport
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    PeerRefused,
    RequestRefused,
)
from turnsvr.turn.snapshot import Document, Value

JOURNAL: Final = b"J"
"""The message of the first pair."""
MEMBER: Final = struct.Struct("!QB")
"""In a message of another: number of a session, and how many sockets it has."""

_LATE: Final = 0.1
"""Seconds within which a change is written."""
_AT_ONCE: Final = 200
"""Sessions, and revoked names, that are written without letting the loop do anything else."""
_LEAST: Final = 1024 * 1024
"""Bytes below which a journal is not written anew."""
_PATIENCE: Final = 2.0

_log = structlog.get_logger()


class Slot:
    """A socket pair, kept by the manager, in which one message lies."""

    def __init__(self, manager: Manager, name: str) -> None:
        self._ours, self._kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        self._kept.setblocking(False)
        self._size = 0
        manager.keep(self._kept.fileno(), name)

    def put(self, text: bytes, descriptors: Sequence[int]) -> None:
        """Put a message in the place of the one that lies there; without a text there is none. Raises OSError."""
        if text:
            socket.send_fds(self._ours, [text], descriptors)
        if self._size:
            self._kept.recv(self._size)  # without its descriptors, which the kernel closes
        self._size = len(text)

    def close(self) -> None:
        self._ours.close()
        self._kept.close()


class Bundle:
    """The relay sockets of some sessions."""

    def __init__(self, slot: Slot) -> None:
        self.members: dict[int, tuple[int, ...]] = {}
        """Descriptors by session."""
        self._slot = slot

    @property
    def has_room(self) -> bool:
        return len(self.members) < document.SESSIONS_AT_ONCE

    def put(self) -> None:
        """Raises OSError."""
        text = b"".join([MEMBER.pack(number, len(found)) for number, found in self.members.items()])
        self._slot.put(text, [each for found in self.members.values() for each in found])

    def close(self) -> None:
        self._slot.close()


class Journal:
    """An EventSink, on the loop of the server; open between start() and close()."""

    def __init__(self, rooms: Rooms, others: Outgoing, manager: Manager) -> None:
        self._rooms = rooms
        self._others = others
        self._manager = manager
        self._name = f"{CRASH}{time.monotonic_ns()}"
        self._loop = asyncio.get_running_loop()
        self._head: Slot | None = None
        self._memory = -1
        self._size = 0
        self._base = 0
        """Bytes of the journal, and those that it began with."""
        self._written: dict[int, bytes] = {}
        """The last record of each session."""
        self._bundles: dict[int, Bundle] = {}
        self._all: list[Bundle] = []
        self._open: list[Bundle] = []
        self._changed: set[Bundle] = set()
        self._dirty: set[int] = set()
        self._revoked: list[Value] = []
        """Names that are yet to be written, as `others` has them."""
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Write everything, and then every change. Where the manager keeps nothing the log says so."""
        if not await self._is_kept():
            reason = "the service manager keeps nothing (FileDescriptorStoreMax=)"
            _log.warning("no session outlives a crash", reason=reason)
            return
        try:
            self._head = Slot(self._manager, self._name)
            self._begin_anew()
        except OSError as error:
            self._give_up(error)
            return
        self._rooms.events.add(self)
        self._rooms.engine.changed = self.changed
        self._rooms.revocations.heard.append(self._hear)
        self._dirty.update(self._rooms.server.numbers())
        self._flush()

    def close(self) -> None:
        """Have the manager forget everything. Closing twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._head is None:
            return
        self._manager.forget(self._name)
        self._head.close()
        self._head = None
        for bundle in self._all:
            bundle.close()
        if self._memory >= 0:
            os.close(self._memory)
        self._rooms.engine.changed = lambda number: None
        if self._hear in self._rooms.revocations.heard:
            self._rooms.revocations.heard.remove(self._hear)

    def changed(self, number: int) -> None:
        """A session has begun, or something about it has changed."""
        self._dirty.add(number)
        self._soon()

    def _hear(self, owner: str, name: str, expiry: int) -> None:
        self._revoked.append([owner, name, expiry])
        self._soon()

    # Events

    def started(self, event: AllocationStarted) -> None:
        self.changed(event.allocation)

    def refreshed(self, event: AllocationRefreshed) -> None:
        self.changed(event.allocation)

    def moved(self, event: AllocationMoved) -> None:
        self.changed(event.allocation)

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        self._dirty.discard(event.allocation)
        text = self._end(event.allocation)
        if not text or self._head is None:
            return
        try:
            self._append(text)
        except OSError as error:
            self._give_up(error)
            return
        self._soon()

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        """Nothing of it is kept."""

    def peer_refused(self, event: PeerRefused) -> None:
        """Nothing of it is kept."""

    def request_refused(self, event: RequestRefused) -> None:
        """Nothing of it is kept."""

    # Writing

    def _soon(self) -> None:
        if self._timer is None and self._head is not None:
            self._timer = self._loop.call_later(_LATE, self._flush)

    def _flush(self) -> None:
        self._timer = None
        now = [self._dirty.pop() for _ in range(min(len(self._dirty), _AT_ONCE))]
        try:
            text = b"".join([self._record(number) for number in now])
            for bundle in self._changed:
                bundle.put()
            self._changed.clear()
            if revoked := self._revoked[:_AT_ONCE]:
                del self._revoked[:_AT_ONCE]
                text += records.pack({"kind": "revoked", "are": revoked}, 0)
            if text:
                self._append(text)
            if self._size > max(_LEAST, 4 * self._base):
                self._begin_anew()
        except OSError as error:
            self._give_up(error)
            return
        if self._dirty or self._revoked:
            self._timer = self._loop.call_soon(self._flush)  # type: ignore[assignment]

    def _record(self, number: int) -> bytes:
        """The record to append for a session; empty for one that does not outlive a crash. Raises OSError."""
        allocation = self._rooms.server.allocation(number)
        if allocation is None or not allocation.relayed:
            return b""
        state = self._rooms.pump.state_of(number)
        if state is None or allocation.five_tuple.transport is not Transport.UDP:
            return self._end(number)
        descriptors = tuple([each.descriptor for each in state.relays])
        bundle = self._bundles.get(number)
        if bundle is None:
            bundle = self._bundles[number] = self._bundle_with_room()
        if bundle.members.get(number) != descriptors:
            bundle.members[number] = descriptors
            self._changed.add(bundle)
            if not bundle.has_room and bundle in self._open:
                self._open.remove(bundle)
        moved = document.write_session(MovedSession(self._rooms.server.write_allocation(allocation), state))
        packed = self._written[number] = records.pack({"kind": "session", "number": number, "session": moved}, 0)
        return packed

    def _bundle_with_room(self) -> Bundle:
        """Raises OSError."""
        if not self._open:
            bundle = Bundle(Slot(self._manager, self._name))
            self._all.append(bundle)
            self._open.append(bundle)
        return self._open[-1]

    def _end(self, number: int) -> bytes:
        """The record to append for a session that no longer outlives a crash; empty where it never did."""
        if self._written.pop(number, None) is None:
            return b""
        bundle = self._bundles.pop(number)
        del bundle.members[number]
        self._changed.add(bundle)
        if bundle not in self._open:
            self._open.append(bundle)
        return records.pack({"kind": "ended", "number": number}, 0)

    def _append(self, data: bytes) -> None:
        """Raises OSError."""
        records.write_all(self._memory, data)
        self._size += len(data)

    def _begin_anew(self) -> None:
        """Replace the journal by one that holds the present state alone. Raises OSError."""
        assert self._head is not None
        what = [*self._listeners(), *self._others.sockets()]
        what = what[: MOST_DESCRIPTORS - 1]
        server = self._rooms.server
        rules = server.write(self._loop.time()) | {"reservations": [], "finished": []}
        first: list[Document] = [
            HostTime.now().write(),
            {"kind": "begin", "version": document.VERSION, "program": __version__},
            {"kind": "rules", "rules": rules, "others": self._others.write()},
            {"kind": "sockets", "are": [each for each, _ in what]},
        ]
        data = b"".join([*(records.pack(each, 0) for each in first), *self._written.values()])
        before, self._memory = self._memory, os.memfd_create("turnsvr-journal", os.MFD_CLOEXEC)
        try:
            records.write_all(self._memory, data)
            self._head.put(JOURNAL, [self._memory, *(descriptor for _, descriptor in what)])
        finally:
            if before >= 0:
                os.close(before)
        self._size = self._base = len(data)
        self._revoked.clear()

    def _listeners(self) -> Iterable[tuple[Value, int]]:
        for address, group in self._rooms.pump.belongings(self._rooms.server.numbers()).listeners.items():
            for each in group:
                yield ["udp", *address], each
        for address, each in self._rooms.streams.listeners().items():
            yield ["tcp", *address], each

    def _give_up(self, error: OSError) -> None:
        _log.error("no session outlives a crash from here on", reason=error.strerror)
        self.close()

    async def _is_kept(self) -> bool:
        """Whether the manager keeps anything at all."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        name = f"{self._name}-probe"
        with ours, its:
            self._manager.keep(its.fileno(), name)
            settled = await self._manager.settled(_PATIENCE)
            its.close()
            try:
                ours.send(b"?")
            except OSError:
                settled = False
        self._manager.forget(name)
        return settled
