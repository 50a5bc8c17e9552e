"""A pump with programs of the kernel below it: they carry what they can, and it does the rest and counts all.

The law: what the pump is told is told to the programs as well. What they have carried is settled with the pump, so that
its counters and its bandwidth are of both. Where the programs fail, they are let go, and the pump does everything.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import structlog

from turnsvr.plane import OpenRelay
from turnsvr.ranges import EVERY_PORT, Ports
from turnsvr.relay.api import Opened, PumpSettings
from turnsvr.relay.counts import Counters, Drop, Totals
from turnsvr.relay.moving import MovablePump, Rest, SessionState
from turnsvr.relay.offload.below import Below
from turnsvr.relay.offload.programs import Absent
from turnsvr.relay.offload.settings import OffloadSettings, OffloadStatus
from turnsvr.stun.address import Address, Family, FiveTuple

_log = structlog.get_logger()

_P = ParamSpec("_P")
_T = TypeVar("_T")


class OffloadedPump:
    """A MovablePump around another one. What is not defined here is the other's own."""

    def __init__(
        self,
        pump: MovablePump,
        settings: PumpSettings,
        offload: OffloadSettings,
        *,
        loop: asyncio.AbstractEventLoop,
        is_armed: bool = True,
    ) -> None:
        """Never fails: without programs it is the pump alone, and the log says why."""
        self._pump = pump
        self._loop = loop
        self._problem = ""
        self._gone = Counters()
        """Carried by programs that are gone."""
        self._below: Below | None = None
        try:
            self._below = Below(settings, offload, pump, self._schedule)
        except (Absent, OSError) as error:
            self._problem = str(error)
            _log.warning("channels are not offloaded", reason=self._problem)
        if is_armed:
            self._tell(Below.start, self._watch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pump, name)

    @property
    def offload(self) -> OffloadStatus:
        below = self._below
        if below is None:
            return OffloadStatus(problem=self._problem, carried=self._gone)
        reasons = {reason.name.lower(): count for reason, count in (self._tell(Below.reasons) or {}).items()}
        carried = self._tell(Below.carried) or Counters()
        return OffloadStatus(tuple(below.interfaces), "", below.channels, below.full, carried, tuple(reasons.items()))

    # What the rules say

    def open(self, request: OpenRelay) -> Opened:
        opened = self._pump.open(request)
        if opened.addresses and not request.tcp:
            self._tell(Below.open, request, opened.addresses)
        return opened

    def close(self, session: int, family: Family | None = None) -> Counters:
        self._tell(Below.close, session, family)
        return self._pump.close(session, family)

    def refresh(self, session: int, deadline: float) -> None:
        self._pump.refresh(session, deadline)
        self._tell(Below.refresh, session, deadline)

    def permit(self, session: int, host: str, deadline: float, ports: Ports = EVERY_PORT) -> None:
        self._pump.permit(session, host, deadline, ports)
        self._tell(Below.permit, session, host, deadline, ports)

    def bind_channel(self, session: int, channel: int, peer: Address, deadline: float) -> None:
        self._pump.bind_channel(session, channel, peer, deadline)
        self._tell(Below.bind, session, channel, peer, deadline)

    def move(self, session: int, five_tuple: FiveTuple) -> None:
        self._pump.move(session, five_tuple)
        self._tell(Below.move, session, five_tuple)

    def tell(self, session: int, wanted: bool) -> None:
        self._tell(Below.tell, session, wanted)
        self._pump.tell(session, wanted)

    def reconfigure(self, settings: PumpSettings) -> None:
        self._pump.reconfigure(settings)
        self._tell(Below.reconfigure, settings)

    def counters(self, session: int) -> Counters:
        self._tell(Below.settle, session)
        return self._pump.counters(session)

    def totals(self) -> Totals:
        totals = self._pump.totals()
        unsettled = self._tell(Below.unsettled) or Counters()
        carried = self._tell(Below.carried) or self._gone
        drops = {**totals.drops, Drop.BANDWIDTH: totals.drops[Drop.BANDWIDTH] + carried.dropped}
        return replace(totals, relayed=totals.relayed + unsettled, drops=drops)

    def shutdown(self) -> None:
        self._tell(Below.stop, self._unwatch)
        self._tell(Below.settle_all)
        self._end()
        self._pump.shutdown()

    # Sessions that move between processes: the old one lets go before the move, the new one attaches after it, and
    # packets go by the pumps meanwhile.

    def part(self, stays: Collection[int]) -> Rest:
        self._tell(Below.stop, self._unwatch)
        self._tell(Below.settle_all)
        return self._pump.part(stays)

    def rejoin(self) -> None:
        self._pump.rejoin()
        self._tell(Below.start, self._watch)

    def leave(self) -> dict[int, Counters]:
        self._end()
        return self._pump.leave()

    def take(self, request: OpenRelay, state: SessionState) -> None:
        self._pump.take(request, state)
        self._tell(Below.enter, request, {each.host.family: each.host for each in state.relays})

    def arm(self) -> None:
        self._pump.arm()
        self._tell(Below.start, self._watch)

    # The programs

    def _tell(self, method: Callable[Concatenate[Below, _P], _T], *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        """What a method of Below returns; None where the programs are gone. A failure ends them, and nothing else."""
        below = self._below
        if below is None:
            return None
        try:
            return method(below, *args, **kwargs)
        except OSError as error:
            self._problem = f"it has failed: {error.strerror or error}"
            _log.error("channels are not offloaded any more", reason=self._problem)
            self._end()
            return None

    def _schedule(self, seconds: float, method: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, self._tell, method, *args)

    def _watch(self, monitor: socket.socket) -> None:
        self._loop.add_reader(monitor, self._tell, Below.hear)

    def _unwatch(self, monitor: socket.socket) -> None:
        self._loop.remove_reader(monitor)

    def _end(self) -> None:
        below, self._below = self._below, None
        if below is not None:
            with suppress(OSError):
                below.settle_all()
                self._gone += below.carried()
            below.close_all(self._unwatch)
