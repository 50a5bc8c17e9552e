"""Tells Redis of sessions as coturn does: each event at once, traffic at intervals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from turnsvr.app.sinks import PartialSink
from turnsvr.config.settings import StatusSettings
from turnsvr.relay.counts import Counters
from turnsvr.stores.status import CoturnTraffic, Names, StatusMessage, StatusWriter
from turnsvr.stun.address import FiveTuple, Transport
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    EndReason,
)

_AT_A_TIME = 200
"""Sessions whose counters are read before others have their turn."""
_PARTING = 2.0
"""Seconds that Redis may take for the last messages when the server stops."""

_TYPES = {Transport.UDP: "UDP", Transport.TCP: "TCP", Transport.TLS: "TLS/TCP", Transport.DTLS: "DTLS"}


@dataclass(slots=True)
class _Session:
    name: str
    where: str
    until: float
    told: Counters = field(default_factory=Counters)
    """What traffic messages have covered."""


class SessionStatus(PartialSink):
    """An EventSink that publishes sessions as coturn does; failures are not published.

    The allocations bound it; what waits for Redis has a bound of its own.
    """

    def __init__(
        self,
        settings: StatusSettings,
        counters: Callable[[int], Counters],
        *,
        names: Names | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """counters gives those of a live session; names: of the run, new ones where None. Raises BadValue."""
        self._interval = settings.interval
        self._counters = counters
        self._clock = clock
        self._names = names or Names()
        self._sessions: dict[int, _Session] = {}
        self._writer = StatusWriter(settings.redis, self._all)
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """Messages that were given up."""
        return self._writer.dropped

    @property
    def waiting(self) -> int:
        """Events that wait to be told."""
        return len(self._writer)

    def start(self) -> None:
        self._writer.start()
        self._task = asyncio.get_running_loop().create_task(self._tell_traffic_for_ever())

    async def stop(self) -> None:
        """Stopping twice is fine."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._writer.stop(_PARTING)

    def started(self, event: AllocationStarted) -> None:
        session = _Session(
            self._names.session(event.realm, event.username, event.allocation),
            _where(event.five_tuple),
            self._clock() + event.lifetime,
        )
        self._sessions[event.allocation] = session
        self._writer.put(_status(session, "new", event.lifetime))

    def adopted(self, event: AllocationStarted, counters: Counters) -> None:
        """A session that another process has told of until now; counters: what it has told."""
        session = _Session(
            self._names.session(event.realm, event.username, event.allocation),
            _where(event.five_tuple),
            self._clock() + event.lifetime,
        )
        session.told = counters
        self._sessions[event.allocation] = session

    def left(self, number: int) -> None:
        """Another process tells of a session from now on; unknown ones are fine."""
        self._sessions.pop(number, None)

    def refreshed(self, event: AllocationRefreshed) -> None:
        session = self._sessions[event.allocation]
        session.until = self._clock() + event.lifetime
        self._writer.put(_status(session, "refreshed", event.lifetime))

    def moved(self, event: AllocationMoved) -> None:
        self._sessions[event.allocation].where = _where(event.five_tuple)

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        session = self._sessions.pop(event.allocation)
        messages = [*_traffic(session, counters), StatusMessage(f"{session.name}/status", "deleted", 0)]
        messages += _both(f"{session.name}/total_traffic", _as_coturn_counts(counters))
        if event.reason is EndReason.REFRESHED_TO_ZERO:
            messages.insert(0, StatusMessage(f"{session.name}/status", f"refreshed lifetime=0, {session.where}"))
        self._writer.put(*messages)

    async def tell_traffic(self) -> None:
        """Publish what each session has relayed since the last time; what finds no room is told with the next."""
        numbers = list(self._sessions)
        for start in range(0, len(numbers), _AT_A_TIME):
            if not self._writer.has_room:
                return
            for number in numbers[start : start + _AT_A_TIME]:
                session = self._sessions.get(number)
                if session is not None and (messages := _traffic(session, self._counters(number))):
                    self._writer.put(*messages)
            await asyncio.sleep(0)

    async def _tell_traffic_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.tell_traffic()

    def _all(self) -> Iterator[StatusMessage]:
        """What is to be set for the sessions that live."""
        now = self._clock()
        for session in self._sessions.values():
            yield replace(_status(session, "refreshed", max(1, round(session.until - now))), is_published=False)


def _status(session: _Session, what: str, lifetime: int) -> StatusMessage:
    return StatusMessage(f"{session.name}/status", f"{what} lifetime={lifetime}, {session.where}", lifetime)


def _where(five_tuple: FiveTuple) -> str:
    """The connection in coturn's words; the version of TLS is not among them."""
    tls = "UNKNOWN" if five_tuple.transport.is_encrypted else "NONE"
    kind = _TYPES[five_tuple.transport]
    return f"type={kind}, local={five_tuple.server}, remote={five_tuple.client}, ssl={tls}, cipher={tls}"


def _traffic(session: _Session, counters: Counters) -> list[StatusMessage]:
    """What came since the last such message; nothing when that is nothing."""
    told, session.told = session.told, counters
    since = counters - told
    if since.packets_from_client or since.packets_to_client:
        return _both(f"{session.name}/traffic", _as_coturn_counts(since))
    return []


def _as_coturn_counts(counters: Counters) -> CoturnTraffic:
    return CoturnTraffic(
        counters.packets_from_client,
        counters.bytes_from_client,
        counters.packets_to_client,
        counters.bytes_to_client,
    )


def _both(channel: str, client: CoturnTraffic) -> list[StatusMessage]:
    """The client's side and the peers'."""
    return [StatusMessage(channel, str(client)), StatusMessage(f"{channel}/peer", str(client.reversed))]
