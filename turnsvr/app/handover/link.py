"""What two processes of one server tell each other while the former still serves clients of TLS.

Each hears which relayed transport addresses the other has, and which sessions have begun and ended there, so that
quotas count them and clients of both reach one another. The successor tells the former when the server is to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from turnsvr.app.handover import document, told
from turnsvr.app.handover.told import Told
from turnsvr.app.handover.wire import Closed, Wire, close_all, kind_of
from turnsvr.app.rooms import Rooms
from turnsvr.credentials.revoked import TooManyRevoked
from turnsvr.net.movable import GivenConnection
from turnsvr.relay.counts import Counters
from turnsvr.relay.moving import MovablePump
from turnsvr.stun.address import Address
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    EndReason,
    PeerRefused,
    RequestRefused,
)
from turnsvr.turn.snapshot import (
    Document,
    Unreadable,
    Value,
    read_address,
    read_allocation,
    read_document,
    read_int,
    read_list,
    read_row,
    read_str,
    write_allocation,
)

_MOST_WAITING: Final = 100_000
"""Messages that wait for the other process; where there are more, the link is closed."""
_MOST_PASSED: Final = 200
"""Connections that wait to be passed to it; further ones are not."""

_log = structlog.get_logger()


class Link:
    """One end, from the moment on; an EventSink that tells the other process of sessions."""

    def __init__(self, wire: Wire, rooms: Rooms, ended: Callable[[Link], None]) -> None:
        """ended: called once, when the other process has gone."""
        self.sessions: dict[int, tuple[Address, ...]] = {}
        """Relayed addresses of the other process's sessions, as far as they are known."""
        self.reported: dict[int, tuple[Allocation, Counters]] = {}
        """Its sessions, as it has told of them last."""
        self.figures: Told | None = None
        """What it counts, with the processes beyond it; sessions that have moved are left out."""
        self.forward: Callable[[Link, Document], None] = lambda link, message: None
        """Called with what the processes beyond this one have to know, too."""
        self._rooms = rooms
        self._reports: list[asyncio.Future[None]] = []
        self._answers: set[asyncio.Task[None]] = set()
        self.asked_to_end: Callable[[], None] = lambda: None
        """Called when the other process asks this one to end."""
        self.asked_to_reopen: Callable[[], None] = lambda: None
        """Called when the log file and the file of usage records have new names."""
        self.has_settled_in = asyncio.Event()
        """Set when operators reach the other one where they reached this one, and when it has gone."""
        self._wire = wire
        self._engine = rooms.engine
        self._ended = ended
        self._out: asyncio.Queue[tuple[Document, int | None]] = asyncio.Queue(_MOST_WAITING)
        self._passing = 0
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._tell())]

    @property
    def _pump(self) -> MovablePump:
        return self._engine.pump

    def know(self, number: int, relayed: Iterable[Address]) -> None:
        """Note a session of the other process, which the rules count already."""
        self.sessions[number] = tuple(relayed)

    def put(self, message: Document, descriptor: int | None = None) -> None:
        """Queue a message for the other process. The link owns a descriptor that goes along."""
        try:
            self._out.put_nowait((message, descriptor))
        except asyncio.QueueFull:
            _log.error("the other process does not listen")
            if descriptor is not None:
                os.close(descriptor)
            self.close()

    def pass_back(self, given: GivenConnection) -> bool:
        """Pass a connection of which nothing has been read to the other process; whether it is on its way."""
        if self._passing >= _MOST_PASSED:
            return False
        try:
            descriptor = os.dup(given.descriptor)
        except OSError:
            return False
        self._passing += 1
        self.put({"kind": "passed", "connection": document.write_connection(given)}, descriptor)
        return True

    def __len__(self) -> int:
        return len(self.sessions)

    async def report(self) -> None:
        """Ask the other process for its sessions and figures."""
        told = asyncio.get_running_loop().create_future()
        self._reports.append(told)
        self.put({"kind": "list"})
        await told

    def kick(self, numbers: Iterable[int]) -> None:
        """Have the other process end these sessions."""
        self.put({"kind": "kick", "numbers": list(numbers)})

    def revoke(self, owner: str, name: str, expiry: int) -> None:
        """Have the other process refuse a user name or access token."""
        self.put({"kind": "revoke", "owner": owner, "name": name, "expiry": expiry})

    def reopen_files(self) -> None:
        """Have the other process open its log file and its file of usage records anew."""
        self.put({"kind": "reopen"})

    def tell_everything(self) -> None:
        """Tell the other process of our sessions and figures."""
        rooms = self._rooms
        sessions: list[Value] = []
        for allocation in rooms.server.allocations():
            counters = rooms.pump.counters(allocation.number)
            sessions.append([rooms.server.write_allocation(allocation), document.write_counters(counters)])
        for allocation in rooms.elsewhere.allocations():
            counters = rooms.elsewhere.counters(allocation.number) or Counters()
            sessions.append([write_allocation(allocation, 0.0), document.write_counters(counters)])
        self.put({"kind": "listed", "sessions": sessions, "figures": rooms.told().write()})

    async def told(self) -> None:
        """Wait until everything that was put has been sent."""
        await self._out.join()

    async def end_other(self, seconds: float) -> None:
        """Have the other process end its sessions, and wait so long at the most."""
        self.put({"kind": "end"})
        process = self._wire.process
        if process is not None:
            await process.wait_end(seconds)

    def close(self) -> None:
        """Closing twice is fine."""
        for task in self._tasks:
            task.cancel()
        self._forget_out()
        self._wire.close()

    # Telling

    async def _tell(self) -> None:
        try:
            while True:
                message, descriptor = await self._out.get()
                try:
                    await self._wire.send(message, () if descriptor is None else (descriptor,))
                finally:
                    self._sent(descriptor)
        except Closed:
            self._forget_out()

    def _sent(self, descriptor: int | None) -> None:
        self._out.task_done()
        if descriptor is not None:
            self._passing -= 1
            os.close(descriptor)

    def _forget_out(self) -> None:
        """Drop what has not been sent."""
        while not self._out.empty():
            _, descriptor = self._out.get_nowait()
            self._sent(descriptor)

    def started(self, event: AllocationStarted) -> None:
        allocation = self._engine.server.allocation(event.allocation)
        if allocation is not None:
            realm, user = allocation.owner
            relayed = [list(each) for each in event.relayed]
            number = event.allocation
            self.put({"kind": "started", "number": number, "realm": realm, "user": user, "relayed": relayed})

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        self.put({"kind": "ended", "number": event.allocation})

    def refreshed(self, event: AllocationRefreshed) -> None:
        """The other process does not need it."""

    def moved(self, event: AllocationMoved) -> None:
        """The other process does not need it."""

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        """The other process does not need it."""

    def peer_refused(self, event: PeerRefused) -> None:
        """The other process does not need it."""

    def request_refused(self, event: RequestRefused) -> None:
        """The other process does not need it."""

    # Listening

    async def _listen(self) -> None:
        try:
            while True:
                message, descriptors = await self._wire.receive()
                if kind_of(message) == "passed" and len(descriptors) == 1:
                    self._rooms.streams.take_passed(_read_passed(message, descriptors))
                    continue
                close_all(descriptors)
                self._take(message)
        except (Closed, Unreadable) as error:
            _log.debug("the other process has gone", reason=str(error))
        for number in list(self.sessions):
            self._forget(number)
        self.has_settled_in.set()
        self._ended(self)

    def _take(self, message: Document) -> None:
        kind = kind_of(message)
        if kind == "settled":
            for each in read_list(message.get("counters"), "counters"):
                number, *fields = read_row(each, 6, "counters")
                self._pump.settle(read_int(number, "number"), document.read_counters(fields))
        elif kind == "started":
            number = read_int(message.get("number"), "number")
            relayed = read_list(message.get("relayed"), "relayed")
            self.know(number, [read_address(each) for each in relayed])
            for address in self.sessions[number]:
                self._pump.know(address, True)
            realm, user = read_str(message.get("realm"), "realm"), read_str(message.get("user"), "user")
            self._engine.server.count_elsewhere(number, realm, user)
            self.forward(self, message)
        elif kind == "ended":
            self._forget(read_int(message.get("number"), "number"))
            self.forward(self, message)
        elif kind == "list":
            task = asyncio.create_task(self._answer())
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        elif kind == "listed":
            self._take_report(message)
        elif kind == "kick":
            numbers = [read_int(each, "numbers") for each in read_list(message.get("numbers"), "numbers")]
            self._rooms.end_sessions(numbers, EndReason.REVOKED)
            self._rooms.elsewhere.end(numbers)
        elif kind == "revoke":
            self._revoke(message)
        else:
            self._take_word(kind)

    def _take_word(self, kind: str) -> None:
        """A message that says no more than its kind. Raises Unreadable."""
        if kind == "placed":
            self.has_settled_in.set()
        elif kind == "reopen":
            self.asked_to_reopen()
        elif kind == "end":
            self.asked_to_end()
        elif kind != "left":
            raise Unreadable(f"a message {kind!a}")

    def _revoke(self, message: Document) -> None:
        owner, name = read_str(message.get("owner"), "owner"), read_str(message.get("name"), "name")
        expiry = read_int(message.get("expiry"), "expiry")
        with contextlib.suppress(TooManyRevoked):  # the other one has as much room as we
            self._rooms.revocations.add(name, time.time(), owner=owner, expiry=expiry)

    async def _answer(self) -> None:
        """Tell everything, with what the processes beyond this one have to tell."""
        await self._rooms.elsewhere.refresh()
        self.tell_everything()

    def _take_report(self, message: Document) -> None:
        reported: dict[int, tuple[Allocation, Counters]] = {}
        for each in read_list(message.get("sessions"), "sessions"):
            written, counters = read_row(each, 2, "sessions")
            allocation, _ = read_allocation(read_document(written, "allocation"))
            reported[allocation.number] = allocation, document.read_counters(counters)
        self.reported = reported
        self.figures = told.read(message.get("figures"))
        reports, self._reports = self._reports, []
        for each in reports:
            if not each.done():
                each.set_result(None)

    def _forget(self, number: int) -> None:
        self.reported.pop(number, None)
        self._engine.server.discount_elsewhere(number)
        for address in self.sessions.pop(number, ()):
            self._pump.know(address, False)


def _read_passed(message: Document, descriptors: list[int]) -> GivenConnection:
    """Raises Unreadable, and then the descriptor is closed."""
    try:
        return document.read_connection(message.get("connection"), descriptors[0])
    except Unreadable:
        close_all(descriptors)
        raise
