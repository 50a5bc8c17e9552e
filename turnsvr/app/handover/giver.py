"""The server that another process succeeds: what it hands over, when it lets go, and how it goes on where that
fails.

Until the successor says that it serves, this process can go on as before. It does so only once the successor cannot
serve any more: the successor has said so, or has ended.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from turnsvr import __version__
from turnsvr.app.handover import document
from turnsvr.app.handover.beside import Outgoing
from turnsvr.app.handover.document import MovedSession, Staying
from turnsvr.app.handover.steps import reached
from turnsvr.app.handover.wire import MOST_DESCRIPTORS, Closed, Full, Process, Talk, close_all, kind_of
from turnsvr.app.rooms import Rooms
from turnsvr.net.movable import GivenConnection
from turnsvr.relay.moving import Belongings
from turnsvr.relay.sockets import make_room
from turnsvr.stun.address import FiveTuple, Transport
from turnsvr.turn.snapshot import Document, Unreadable, Value, read_int, read_list, read_str, write_five_tuple

ASKING: Final = 10.0
READYING: Final = 30.0
SERVING: Final = 5.0
"""Seconds that a successor may take to ask, to make everything ready, and to serve once it may."""
_GOING: Final = 2.0
"""Seconds in which a successor that was refused, and may not know of it, has to end before it is ended."""

_ROOM: Final = 2 * 1024 * 1024
"""Bytes that each UDP socket asks for while no process reads; what is not used takes no memory."""

_log = structlog.get_logger()


class CannotHandOver(Exception):
    """Nothing has moved, and this server serves as before. The text says why."""


@dataclass(slots=True)
class Given:
    """What has been handed over."""

    pid: int = 0
    version: str = ""
    belongings: Belongings = field(default_factory=Belongings)
    sessions: set[int] = field(default_factory=set)
    stays: set[int] = field(default_factory=set)
    ends: set[int] = field(default_factory=set)
    """Of the sessions that stay those that end, since no socket could be opened for their DTLS clients."""
    connections: list[GivenConnection] = field(default_factory=list)
    missing: set[FiveTuple] = field(default_factory=set)
    took: float = 0.0
    """Seconds from the successor's question to its word that it reads."""
    gap: float = 0.0
    """Seconds between the last packet that was read here and the successor's word that it reads."""


class Giver:
    """One hand-over, from the rooms of this process."""

    def __init__(self, rooms: Rooms, others: Outgoing, wire: Talk) -> None:
        self._rooms = rooms
        self._others = others
        self._wire = wire
        self._given = Given()
        self._written: Document = {}
        self._served = 0.0
        self.can_be_called_off = True
        """Whether hand_over() may be cancelled: not while the successor may serve already, or is being refused."""

    async def hand_over(self, asking: float = ASKING) -> Given:
        """Hand over; raises CannotHandOver, and then this server serves as before, and the successor never will.

        asking: seconds within which the successor asks. To be cancelled only while can_be_called_off.
        """
        rooms = self._rooms
        await self._asked(asking)
        began = time.monotonic()
        reached("asked")
        rooms.streams.freeze()
        rooms.engine.freeze()
        try:
            reached("frozen")
            await self._prepare()
        except (Closed, TimeoutError, Unreadable, OSError) as error:
            await self._refuse(_reason(error))
        except asyncio.CancelledError:
            await self._refuse("this server ends")
        except BaseException:
            self._thaw()
            raise
        await self._switch()
        self._given.took = self._served - began
        return self._given

    async def leave_behind(self) -> Given:
        """Write everything for a process that starts later. Raises CannotHandOver, and then nothing has moved.

        The wire stores each message, and raises Full where it has no room; such sessions stay here.
        """
        self._rooms.streams.freeze()
        self._rooms.engine.freeze()
        try:
            reached("frozen")
            await self._say()
            self._make_room()
            await self._wire.send(self._part())
            reached("told")
        except (Closed, Full, OSError) as error:
            self._rejoin()
            raise CannotHandOver(str(error)) from None
        except BaseException:
            self._rejoin()
            raise
        await self._leave()
        return self._given

    def _make_room(self) -> None:
        """Let packets wait in the sockets for as long as a process takes to start."""
        if self._rooms.plan.pump.socket_buffer:
            return  # the operator has said how many
        belongings = self._given.belongings
        for listeners in belongings.listeners.values():
            for descriptor in listeners:
                make_room(descriptor, _ROOM)
        for state in belongings.sessions.values():
            for relay in state.relays:
                make_room(relay.descriptor, _ROOM)

    async def _asked(self, seconds: float) -> None:
        """Read the successor's question. Raises CannotHandOver where the successor could not go on."""
        try:
            message, descriptors = await self._wire.receive(seconds)
            close_all(descriptors)
            if kind_of(message) != "ask":
                raise Unreadable("a successor that does not ask")
            self._given.pid = read_int(message.get("pid"), "pid")
            self._given.version = read_str(message.get("version"), "version")
            readable = read_list(message.get("reads"), "reads")
            if document.VERSION not in readable:
                known = ", ".join(str(each) for each in readable)
                raise Unreadable(f"turnsvr {self._given.version} reads version {known}, not {document.VERSION}")
            if self._wire.process is None:
                raise Unreadable("it cannot be told here whether the successor lives (pidfd)")
        except (Closed, TimeoutError, Unreadable) as error:
            await self._refuse(_reason(error), frozen=False)

    async def _refuse(self, reason: str, *, frozen: bool = True) -> None:
        """Go on as before; raises CannotHandOver.

        A successor that has sockets, and has not been told, would serve them once this process has ended, whoever has
        them then. So it is ended first.
        """
        self.can_be_called_off = False
        if frozen:
            self._thaw()
        try:
            async with asyncio.timeout(1.0):
                await self._wire.send({"kind": "refused", "reason": reason})
        except (Closed, TimeoutError):
            process = self._wire.process
            if frozen and process is not None and not await process.wait_end(_GOING):
                _log.error("the successor does not answer, and is ended", reason=reason)
                self._kill(process)
        raise CannotHandOver(reason)

    def _kill(self, process: Process) -> None:
        try:
            process.kill()
        except OSError as error:
            _log.error("the successor cannot be ended; end it before this server ends", reason=error.strerror)

    def _thaw(self) -> None:
        self._rooms.streams.thaw()
        self._rooms.engine.thaw()

    # Before the moment

    async def _prepare(self) -> None:
        async with asyncio.timeout(READYING):
            await self._say()
        message, descriptors = await self._wire.receive(READYING)
        close_all(descriptors)
        if kind_of(message) != "ready":
            raise Unreadable(str(message.get("reason") or "the successor is not ready"))

    async def _say(self) -> None:
        """Send the messages `begin` to `end`."""
        rooms, wire, given = self._rooms, self._wire, self._given
        server, streams = rooms.server, rooms.streams
        now = asyncio.get_running_loop().time()
        await rooms.elsewhere.refresh()
        for allocation in server.allocations():
            if allocation.tcp or allocation.five_tuple.transport not in (Transport.UDP, Transport.TCP):
                given.stays.add(allocation.number)
        given.ends = rooms.pump.keep(given.stays)
        reached("kept")
        given.belongings = belongings = rooms.pump.belongings(given.stays)
        given.connections = [each for each in streams.given(belongings.streams) if not server.is_bound(each.five_tuple)]
        moving = {each.five_tuple for each in given.connections}
        for allocation in server.allocations():
            if allocation.five_tuple.transport is Transport.TCP and allocation.five_tuple not in moving:
                given.stays.add(allocation.number)
        await wire.send({"kind": "begin", "version": document.VERSION, "program": __version__})
        self._written = self._others.write()
        await wire.send({"kind": "rules", "rules": server.write(now), "others": self._written})
        await wire.send(
            {
                "kind": "staying",
                "are": document.write_staying(self._staying()),
                "last_connection": streams.last_number,
            }
        )
        await self._send_sockets(belongings)
        reached("half-sent")
        await self._send_sessions(belongings)
        await self._send_connections()
        await wire.send({"kind": "end", "sessions": len(given.sessions), "connections": len(given.connections)})
        reached("sent")

    def _staying(self) -> list[Staying]:
        found = []
        for number in sorted(self._given.stays):
            each = self._rooms.server.allocation(number)
            if each is not None:
                found.append(Staying(number, each.realm, each.key.quota_user, tuple(each.relayed.values())))
        found += [
            Staying(each.number, each.realm, each.key.quota_user, tuple(each.relayed.values()))
            for each in self._rooms.elsewhere.allocations()
        ]
        return found

    async def _send_sockets(self, belongings: Belongings) -> None:
        are: list[tuple[Value, int]] = []
        for address, group in belongings.listeners.items():
            are += [(["udp", *address], each) for each in group]
        are += [(["tcp", *address], each) for address, each in self._rooms.streams.listeners().items()]
        are += [(document.write_held(token, held), held.descriptor) for token, held in belongings.held.items()]
        are += self._others.sockets()
        for at in range(0, len(are), MOST_DESCRIPTORS):
            part = are[at : at + MOST_DESCRIPTORS]
            await self._wire.send({"kind": "sockets", "are": [what for what, _ in part]}, [each for _, each in part])

    async def _send_sessions(self, belongings: Belongings) -> None:
        """Send sessions, some at a time, so that other work of the loop does not wait for all of them."""
        server, given = self._rooms.server, self._given
        numbers = [number for number in belongings.sessions if number not in given.stays]
        for at in range(0, len(numbers), document.SESSIONS_AT_ONCE):
            sessions: list[Value] = []
            descriptors: list[int] = []
            of: set[int] = set()
            for number in numbers[at : at + document.SESSIONS_AT_ONCE]:
                allocation = server.allocation(number)
                if allocation is not None:
                    state = belongings.sessions[number]
                    sessions.append(document.write_session(MovedSession(server.write_allocation(allocation), state)))
                    descriptors += [each.descriptor for each in state.relays]
                    of.add(number)
            try:
                await self._wire.send({"kind": "sessions", "are": sessions}, descriptors)
            except Full as error:
                _log.warning("sessions are left out", sessions=len(numbers) - at, reason=str(error))
                return
            given.sessions |= of
            await asyncio.sleep(0)

    async def _send_connections(self) -> None:
        for at in range(0, len(self._given.connections), MOST_DESCRIPTORS):
            part = self._given.connections[at : at + MOST_DESCRIPTORS]
            are: list[Value] = [document.write_connection(each) for each in part]
            try:
                await self._wire.send({"kind": "connections", "are": are}, [each.descriptor for each in part])
            except Full as error:
                left_out = self._given.connections[at:]
                _log.warning("connections are left out", connections=len(left_out), reason=str(error))
                self._given.missing |= {each.five_tuple for each in left_out}
                del self._given.connections[at:]
                return

    # The moment

    async def _switch(self) -> None:
        """Let the successor serve; raises CannotHandOver once it cannot serve any more."""
        was_enabled = gc.isenabled()
        gc.disable()  # a collection would take longer than the moment
        try:
            began = time.monotonic()
            go = self._part()
            reached("parted")
            self.can_be_called_off = False
            async with asyncio.timeout(SERVING):
                await self._wire.send(go)
            reached("told")
            message, descriptors = await self._wire.receive(SERVING)
            close_all(descriptors)
            if kind_of(message) != "serving":
                raise Unreadable("the successor does not serve")
            self._served = time.monotonic()
            self._given.gap = self._served - began
        except (Closed, TimeoutError, Unreadable) as error:
            await self._take_back(_reason(error))
        finally:
            if was_enabled:
                gc.enable()
        reached("gone")
        await self._leave()

    def _part(self) -> Document:
        """Let go of what moves; returns `go`, the last message that the successor needs."""
        rooms, given = self._rooms, self._given
        given.missing |= rooms.streams.part(given.connections)
        given.missing |= {each.five_tuple for each in given.connections if rooms.server.is_bound(each.five_tuple)}
        for five_tuple in given.missing:
            number = rooms.server.allocation_of(five_tuple)
            if number is not None:
                given.stays.add(number)
        alive = rooms.server.numbers()
        given.stays |= alive - given.sessions
        rest = rooms.pump.part(given.stays)
        connected = {each.five_tuple for each in given.connections} - given.missing
        gone = [each for each in given.connections if rooms.streams.is_gone(each.five_tuple)]
        given.missing |= {each.five_tuple for each in gone}
        rests = rooms.streams.rests(given.connections, given.missing, rest)
        alive = rooms.server.numbers() - given.stays
        return {
            "kind": "go",
            "gone": sorted(given.sessions - alive),
            "missing": [write_five_tuple(each) for each in given.missing],
            "rests": document.write_rests({who: each for who, each in rests.items() if who in connected}),
            "waiting": document.write_waiting(
                {who: each for who, each in rest.waiting.items() if who.transport is Transport.UDP}
            ),
            "others": self._others.write(),
        }

    async def _take_back(self, reason: str) -> None:
        """Serve again; never before the successor has ended. Raises CannotHandOver."""
        process = self._wire.process
        assert process is not None
        if not process.has_ended():
            _log.error("the successor does not answer, and is ended", reason=reason)
            self._kill(process)
            while not await process.wait_end(3600.0):
                pass
        self._rejoin()
        raise CannotHandOver(reason)

    def _rejoin(self) -> None:
        self._rooms.pump.rejoin()
        self._rooms.streams.rejoin(self._given.connections)
        self._thaw()

    # After it

    async def _leave(self) -> None:
        rooms, given = self._rooms, self._given
        clients = [each.five_tuple for each in rooms.server.allocations() if each.number in given.sessions]
        moved = {each.number for each in rooms.server.allocations() if each.number in given.sessions} - given.stays
        last = rooms.pump.leave()
        rooms.server.forget(moved, counted=True)
        rooms.server.forget_reservations()
        rooms.server.forget_answers()
        self._others.handed_over(self._written)
        for five_tuple in (*clients, *(each.five_tuple for each in given.connections)):
            rooms.server.forget_waiting(five_tuple)
        rooms.streams.leave(given.connections, given.missing)
        for number in moved:
            self._others.forget(number)
        rooms.engine.thaw()
        given.sessions = moved
        given.stays = rooms.server.numbers() - given.ends
        if given.ends:
            _log.warning("sessions of DTLS clients have ended, for want of sockets", sessions=len(given.ends))
        early = given.belongings.sessions
        settled: list[Sequence[object]] = [
            [number, *document.write_counters(counters - early[number].counters)]
            for number, counters in last.items()
            if number in early and counters != early[number].counters
        ]
        for at in range(0, len(settled), 1000):
            await self._tell({"kind": "settled", "counters": list(settled[at : at + 1000])})
        await self._tell({"kind": "left"})
        reached("left")

    async def _tell(self, message: Document) -> None:
        """Send what the successor can do without; a failure is logged."""
        try:
            async with asyncio.timeout(SERVING):
                await self._wire.send(message)
        except (Closed, TimeoutError) as error:
            _log.warning("the successor could not be told everything", reason=_reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the successor did not answer in time"
    if isinstance(error, Closed):
        return "the successor has gone"
    return str(error)
