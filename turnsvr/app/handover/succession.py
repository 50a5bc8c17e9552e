"""The successors of a server: how one is let in or started, and what becomes of this process then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from turnsvr.admin.context import CannotUpgrade, Upgraded
from turnsvr.app.handover.beside import Outgoing
from turnsvr.app.handover.giver import ASKING, CannotHandOver, Given, Giver
from turnsvr.app.handover.link import Link
from turnsvr.app.handover.taker import Taker
from turnsvr.app.handover.wire import Closed, Process, Wire
from turnsvr.app.rooms import Rooms
from turnsvr.turn.snapshot import Document

STARTING: Final = 60.0
"""Seconds that a new program may take from its start until it asks."""
SETTLING: Final = 15.0
"""Seconds in which a hand-over that is under way comes to its end when the server ends."""
_PLACING: Final = 2.0
"""Seconds that a successor has to take the place of the admin socket in."""
ENDING: Final = 10.0
"""Seconds that the process before this one has to end its sessions in, when the server ends."""

_log = structlog.get_logger()


class Succession:
    """The process before this one, and the one that succeeds it. On the loop of the application."""

    def __init__(self, rooms: Rooms, others: Outgoing, left: Callable[[int], None], end: Callable[[], None]) -> None:
        """left: called when a successor serves, with its number. end: called when it wants this process to end."""
        self.has_left = False
        """Whether another process serves, and this one only those that stay."""
        self.has_lost_successor = False
        """Whether that process has ended by itself, and not had this one end first."""
        self.arguments: Sequence[str] = ()
        """Of `turnsvr run`, for a successor that this process starts."""
        self.reopen_files: Callable[[], None] = lambda: None
        """Called when the successor has log files of this process, and of those before, be opened anew."""
        self.links: list[Link] = []
        """To processes before this one, and to the one after it."""
        self._rooms = rooms
        self._others = others
        self._left = left
        self._end = end
        self._giving: tuple[Giver, asyncio.Task[Given]] | None = None
        self._is_ending = False
        self._tasks: set[asyncio.Task[object]] = set()

    def let_in(self, connected: socket.socket) -> None:
        """Hand over, in a task, to a process that has connected to the admin socket."""
        task = asyncio.create_task(self._hand_over_to(connected))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def upgrade(self, program: str | None) -> Upgraded:
        """Start a successor, and hand over to it. Raises CannotUpgrade."""
        if os.getpid() == 1:
            raise CannotUpgrade("the container would end with this process; let it drain while another one serves")
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with its:
            try:
                child = self._spawn(program, its.fileno())
            except OSError as error:
                ours.close()
                raise CannotUpgrade(f"{program or sys.executable} cannot be started: {error.strerror}") from None
        try:
            given = await self._hand_over(Wire(ours, Process.numbered(child.pid)), STARTING)
        except CannotHandOver as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(child.wait, 2.0)
            if child.poll() is None:
                child.kill()
                await asyncio.to_thread(child.wait)
            status = f"; the new process has ended with status {child.returncode}" if child.returncode > 0 else ""
            raise CannotUpgrade(f"{error}{status}; this server serves as before") from None
        child.returncode = 0  # it lives on, and this process ends before it
        return Upgraded(given.pid, given.version, len(given.sessions), len(given.stays), given.gap)

    def has_taken(self, taker: Taker) -> None:
        """This process serves in the place of another one, which may go on with some clients."""
        wire = taker.wire()
        if wire is not None:
            self._link(wire, taker)
            self._rooms.end_homeless()

    def settled_in(self) -> None:
        """Operators reach this process where they reached the one before."""
        for each in self.links:
            each.put({"kind": "placed"})

    @property
    def has_predecessors(self) -> bool:
        """Whether processes before this one serve clients that stayed there."""
        return bool(self._rooms.elsewhere.others)

    async def report(self) -> None:
        """Tell the successor everything a last time."""
        for each in self.links:
            if each not in self._rooms.elsewhere.others:
                each.tell_everything()
                await each.told()

    async def settle(self) -> bool:
        """Let no process succeed this one from here on. Call off what is under way, or wait for it once it cannot be.

        To be called before anything ends. Whether it is certain that no other process serves in the place of this one.
        """
        self._is_ending = True
        if self._giving is not None:
            giver, task = self._giving
            if giver.can_be_called_off:
                task.cancel()
            await asyncio.wait([task], timeout=SETTLING)
        return not self.has_left and self._giving is None

    async def end(self) -> None:
        """Have the processes before this one end."""
        await asyncio.gather(*(each.end_other(ENDING) for each in self.links if each in self._rooms.elsewhere.others))
        for each in list(self.links):
            each.close()

    def _spawn(self, program: str | None, descriptor: int) -> subprocess.Popen[bytes]:
        command = [program] if program is not None else [sys.executable, "-m", "turnsvr"]
        environment = {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}
        return subprocess.Popen(  # noqa: S603 - who may use the admin socket may do anything
            [*command, "run", *self.arguments, "--take-over", f"fd:{descriptor}"],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            env=environment,
        )

    async def _hand_over_to(self, connected: socket.socket) -> None:
        with contextlib.suppress(CannotHandOver):  # the log has it
            await self._hand_over(Wire(connected))

    async def _hand_over(self, wire: Wire, asking: float = ASKING) -> Given:
        """Raises CannotHandOver. What becomes of the caller does not matter to the hand-over."""
        if reason := self._obstacle():
            with contextlib.suppress(Closed, TimeoutError):
                async with asyncio.timeout(1.0):
                    await wire.send({"kind": "refused", "reason": reason})
            _log.error("not handed over", reason=reason)
            wire.close()
            raise CannotHandOver(reason)
        giver = Giver(self._rooms, self._others, wire)
        task = asyncio.create_task(self._carry_out(giver, wire, asking))
        self._giving = giver, task
        task.add_done_callback(self._given)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise  # it is the caller that is to end
            wire.close()
            raise CannotHandOver("this server ends") from None

    def _obstacle(self) -> str:
        """Why nobody can be let in now; nothing where nothing is in the way."""
        if self.has_left:
            return "another process serves"
        if self._giving is not None:
            return "another process is taking over"
        return "this server ends" if self._is_ending else ""

    def _given(self, task: asyncio.Task[Given]) -> None:
        self._giving = None
        if not task.cancelled():
            task.exception()  # where its caller has gone nobody else asks

    async def _carry_out(self, giver: Giver, wire: Wire, asking: float) -> Given:
        """Raises CannotHandOver."""
        try:
            given = await giver.hand_over(asking)
        except BaseException as error:
            if isinstance(error, CannotHandOver):
                _log.error("not handed over", reason=str(error))
            wire.close()
            raise
        self.has_left = True
        _log.info(
            "handed over",
            pid=given.pid,
            version=given.version,
            sessions=len(given.sessions),
            staying=len(given.stays),
            took=f"{given.took:.2f}s",
            gap=f"{given.gap * 1000:.1f}ms",
        )
        link = self._link(wire, None)
        link.asked_to_end = self._end
        link.asked_to_reopen = self.reopen_files
        with contextlib.suppress(TimeoutError):  # else for a moment nobody would answer operators
            await asyncio.wait_for(link.has_settled_in.wait(), _PLACING)
        self._left(given.pid)
        return given

    def _link(self, wire: Wire, taker: Taker | None) -> Link:
        link = Link(wire, self._rooms, self._unlink)
        link.forward = self._forward
        if taker is not None:
            self._rooms.elsewhere.others.append(link)
            self._rooms.streams.pass_back = link.pass_back
        for each in taker.staying if taker is not None else ():
            link.know(each.number, each.relayed)
        self.links.append(link)
        self._rooms.events.add(link)
        return link

    def _forward(self, link: Link, message: Document) -> None:
        for each in self.links:
            if each is not link:
                each.put(message)

    def _unlink(self, link: Link) -> None:
        if link in self._rooms.elsewhere.others:
            self._rooms.streams.pass_back = None
        else:
            self.has_lost_successor = True
        self._rooms.elsewhere.leave(link)
        self._rooms.events.remove(link)
        self.links.remove(link)
        link.close()
