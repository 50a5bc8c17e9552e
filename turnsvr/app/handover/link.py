"""What two processes of one server tell each other while the former still serves clients of TLS.

Each hears which relayed transport addresses the other has, and which sessions have begun and ended there, so that
quotas count them and clients of both reach one another. The successor tells the former when the server is to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from turnsvr.app.handover import document
from turnsvr.app.handover.wire import Closed, Wire, close_all, kind_of
from turnsvr.net.engine import Engine
from turnsvr.relay.api import Counters
from turnsvr.relay.moving import MovablePump
from turnsvr.stun.address import Address
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    PeerRefused,
    RequestRefused,
)
from turnsvr.turn.snapshot import Document, Unreadable, read_address, read_int, read_list, read_row

_MOST_WAITING: Final = 100_000
"""Messages that wait for the other process; where there are more, it is told nothing any more."""

_log = structlog.get_logger()


class Link:
    """One end, from the moment on; an EventSink that tells the other one of sessions."""

    def __init__(self, wire: Wire, engine: Engine, ended: Callable[[Link], None]) -> None:
        """ended: called once, when the other process has gone."""
        self.sessions: dict[int, tuple[Address, ...]] = {}
        """Relayed addresses of the other process's sessions, as far as they are known."""
        self.asked_to_end: Callable[[], None] = lambda: None
        """Called when the other one wants this process to end."""
        self._wire = wire
        self._engine = engine
        self._ended = ended
        self._out: asyncio.Queue[Document] = asyncio.Queue(_MOST_WAITING)
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._tell())]

    @property
    def _pump(self) -> MovablePump:
        return self._engine.pump

    def know(self, number: int, relayed: Iterable[Address]) -> None:
        """A session of the other process, that the rules count already."""
        self.sessions[number] = tuple(relayed)

    def put(self, message: Document) -> None:
        """Tell the other process, some time."""
        try:
            self._out.put_nowait(message)
        except asyncio.QueueFull:
            _log.error("the other process does not listen")
            self.close()

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
        self._wire.close()

    # Telling

    async def _tell(self) -> None:
        try:
            while True:
                await self._wire.send(await self._out.get())
        except Closed:
            pass  # whoever listens hears of it

    def started(self, event: AllocationStarted) -> None:
        self.put({"kind": "started", "number": event.allocation, "relayed": [list(each) for each in event.relayed]})

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        self.put({"kind": "ended", "number": event.allocation})

    def refreshed(self, event: AllocationRefreshed) -> None:
        """The other one need not know."""

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        """The other one need not know."""

    def peer_refused(self, event: PeerRefused) -> None:
        """The other one need not know."""

    def request_refused(self, event: RequestRefused) -> None:
        """The other one need not know."""

    # Listening

    async def _listen(self) -> None:
        try:
            while True:
                message, descriptors = await self._wire.receive()
                close_all(descriptors)
                self._take(message)
        except (Closed, Unreadable) as error:
            _log.debug("the other process has gone", reason=str(error))
        for number in list(self.sessions):
            self._forget(number)
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
        elif kind == "ended":
            self._forget(read_int(message.get("number"), "number"))
        elif kind == "end":
            self.asked_to_end()
        elif kind != "left":
            raise Unreadable(f"a message {kind!a}")

    def _forget(self, number: int) -> None:
        self._engine.server.discount_elsewhere(number)
        for address in self.sessions.pop(number, ()):
            self._pump.know(address, False)
