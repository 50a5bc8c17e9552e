"""The traces of one server: few, each for a limited time, and gone when it is not read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Final

import structlog

from turnsvr.credentials.shown import shown
from turnsvr.net.tracing.trace import Trace, Traced, TracedPacket, Wanted
from turnsvr.relay.api import MAX_OBSERVED, Relayed
from turnsvr.stun.address import Address, Family, FiveTuple
from turnsvr.turn.allocation import Allocation

if TYPE_CHECKING:
    from turnsvr.net.engine import Engine

MAX_TRACES: Final = 4
"""At once: each makes every message of every client a little dearer."""
MAX_SECONDS: Final = 3_600.0
"""That a trace may last."""
_UNREAD: Final = 30.0
"""Seconds after which a trace that is not read ends."""
_HOSTS: Final = MAX_OBSERVED // MAX_TRACES
"""IP addresses of each trace for which the pump answers nothing by itself."""
_SESSIONS: Final = 16
"""Sessions of each trace whose packets the pump reports."""

_log = structlog.get_logger()


class TooManyTraces(Exception):
    """There is no room for one more."""


class Traces:
    """An engine.Observer while there is a trace. Methods are called on the engine's loop."""

    def __init__(
        self, engine: Engine, *, loop: asyncio.AbstractEventLoop, wall_time: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._wall_time = wall_time
        self._traces: dict[int, Trace] = {}
        self._relayed: dict[int, Mapping[Family, Address]] = {}
        """Relayed transport addresses of the reported sessions; a packet may come after its session is over."""
        self._numbers = count(1)
        self._timers: dict[int, tuple[asyncio.TimerHandle, asyncio.TimerHandle]] = {}
        """When each is over, and when it has gone unread for too long."""

    def __len__(self) -> int:
        return len(self._traces)

    def open(self, wanted: Wanted, seconds: float) -> int:
        """Follow clients for so long, at most MAX_SECONDS; returns the number of the trace.

        Raises TooManyTraces.
        """
        if len(self._traces) >= MAX_TRACES:
            raise TooManyTraces
        number = next(self._numbers)
        trace = self._traces[number] = Trace(wanted)
        over = self._loop.call_later(min(seconds, MAX_SECONDS), trace.end, "its time is over")
        self._timers[number] = over, self._loop.call_later(_UNREAD, self.close, number)
        self._engine.observer = self
        self._look(trace)
        _log.warning("a client is traced", trace=number, **_words(wanted))
        return number

    async def read(self, number: int, wait: float) -> tuple[list[Traced], int, str] | None:
        """What has come, how much found no room, and why the trace has ended, if it has; None for an unknown one.

        Waits so many seconds for something to come.
        """
        trace = self._traces.get(number)
        if trace is None:
            return None
        over, unread = self._timers[number]
        unread.cancel()
        try:
            async with asyncio.timeout(wait):
                await trace.changed.wait()
        except TimeoutError:
            pass
        if self._traces.get(number) is not trace:
            return None
        self._timers[number][1].cancel()
        self._timers[number] = over, self._loop.call_later(_UNREAD, self.close, number)
        self._look(trace)
        taken, left_out = trace.pop_events()
        ended = trace.ended
        if ended:
            self.close(number)
        return taken, left_out, ended

    def close(self, number: int) -> bool:
        """End a trace; False for an unknown one."""
        trace = self._traces.pop(number, None)
        if trace is None:
            return False
        trace.end("it was ended")
        for timer in self._timers.pop(number):
            timer.cancel()
        still = {session for each in self._traces.values() for session in each.sessions}
        for session in trace.sessions - still:
            self._engine.pump.tell(session, False)
            del self._relayed[session]
        if not self._traces:
            self._engine.observer = None
        self._observe()
        _log.info("a client is traced no longer", trace=number)
        return True

    def close_all(self) -> None:
        """The server ends."""
        for number in list(self._traces):
            self.close(number)

    # What the engine tells

    def received(self, five_tuple: FiveTuple, data: bytes) -> None:
        about = self._engine.server.about(data, five_tuple)
        at = self._wall_time()
        for trace in self._traces.values():
            trace.received(at, five_tuple, data, about)

    def sent(self, five_tuple: FiveTuple, data: bytes) -> None:
        about = self._engine.server.about(data, five_tuple)
        at = self._wall_time()
        for trace in self._traces.values():
            trace.sent(at, five_tuple, data, about)
            if trace.wanted.data and about is not None and trace.covers(about, five_tuple):
                self._tell(trace, about.number, about.relayed)

    def relayed(self, packet: Relayed) -> None:
        relayed = self._relayed.get(packet.session, {}).get(packet.peer.family)
        if relayed is None:
            return
        traced = TracedPacket(
            self._wall_time(), relayed, packet.peer, packet.from_client, packet.session, packet.data, packet.size
        )
        for trace in self._traces.values():
            if packet.session in trace.sessions:
                trace.relayed(traced, packet.untold)

    # What it asks of the pump

    def _look(self, trace: Trace) -> None:
        """Have the pump show what belongs to the trace as things are now."""
        if trace.wanted.session is not None and self._engine.server.allocation(trace.wanted.session) is None:
            trace.end("the session has ended")
        if trace.wanted.data:
            for each in self._followed(trace):
                self._tell(trace, each.number, each.relayed)
        self._observe()

    def _tell(self, trace: Trace, number: int, relayed: Mapping[Family, Address]) -> None:
        if number not in trace.sessions and len(trace.sessions) < _SESSIONS:
            trace.sessions.add(number)
            self._relayed[number] = dict(relayed)
            self._engine.pump.tell(number, True)

    def _followed(self, trace: Trace) -> Iterator[Allocation]:
        every = self._engine.server.allocations()
        return (each for each in every if trace.covers(each, each.five_tuple))

    def _observe(self) -> None:
        hosts: dict[str, None] = {}
        for trace in self._traces.values():
            hosts |= dict.fromkeys(self._hosts_of(trace))
        self._engine.pump.observe(list(hosts))

    def _hosts_of(self, trace: Trace) -> list[str]:
        if trace.wanted.client is not None:
            return [trace.wanted.client[0]]
        found = (each.five_tuple.client.host for each in self._followed(trace))
        return list(dict.fromkeys(found))[:_HOSTS]


def _words(wanted: Wanted) -> dict[str, object]:
    """What a trace follows, for the log."""
    if wanted.user is not None:
        return {"user": shown(wanted.user)}
    if wanted.session is not None:
        return {"session": wanted.session}
    return {"client": wanted.client}
