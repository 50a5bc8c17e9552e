"""The programs at work: their tables, the kernel's routes and neighbours that they follow, and what they have carried.

Every method may raise OSError, and the owner ends the programs then: with tables that are not true none may carry.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol

import structlog

from turnsvr.plane import OpenRelay
from turnsvr.ranges import Ports
from turnsvr.relay.api import PumpSettings
from turnsvr.relay.counts import Counters
from turnsvr.relay.offload import kernelroutes, layout
from turnsvr.relay.offload.interfaces import Interfaces
from turnsvr.relay.offload.kernelroutes import Kernel
from turnsvr.relay.offload.layout import Reason
from turnsvr.relay.offload.programs import Programs
from turnsvr.relay.offload.settings import InterfacePath, OffloadSettings
from turnsvr.relay.offload.table import (
    ALL,
    MOST_CHANNELS,
    MOST_FLOWS,
    FlowTable,
    OffloadSession,
    counters,
)
from turnsvr.relay.offload.ways import HOPS, Ways
from turnsvr.stun.address import Address, Family, FiveTuple

_log = structlog.get_logger()

_TICK: Final = 1.0
"""Seconds between looks at neighbours, and at what was carried of sessions whose bandwidth is limited."""
_SETTLING: Final = 0.01
"""Seconds between word of a change of routes and the look at them: changes come in groups."""
_STEPS: Final = 50
"""Channels whose ways are looked for before the loop's other work has its turn; each takes some 100 µs."""
_LIMITED: Final = 500
"""Sessions with limited bandwidth that are settled in one tick, in turn."""
_VERIFIED: Final = 20
"""Channels whose ways are looked up again in one tick."""
_READ: Final = 65_536
_READS: Final = 64
"""Datagrams of the kernel taken at once; more wait for the loop."""


class SettledPump(Protocol):
    """What is needed of the pump, which is told what was carried."""

    def settle(self, session: int, counters: Counters) -> None: ...
    def counters(self, session: int) -> Counters: ...


Schedule = Callable[..., asyncio.TimerHandle]
"""Seconds, one of the methods of Below, and its arguments."""


class Below:
    """Programs, and what they are told. They are attached by start()."""

    def __init__(self, settings: PumpSettings, offload: OffloadSettings, pump: SettledPump, schedule: Schedule) -> None:
        """Raises Absent, OSError."""
        self._settings = settings
        self._pump = pump
        self._schedule = schedule
        flows = min(2 * settings.max_sessions * min(settings.max_channels, MOST_CHANNELS), MOST_FLOWS)
        slots = settings.max_sessions + 1
        sizes = {"flows": flows, "sessions": slots, "buckets": slots, "traffic": slots, "hops": HOPS}
        self._programs = Programs(sizes)
        self._monitor: socket.socket | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turns: Iterator[OffloadSession] = iter(())
        self._verified: Iterator[None] = iter(())
        self._settled = Counters()
        """The part of what has been carried that the pump knows."""
        try:
            self._kernel = Kernel()
            self._interfaces = Interfaces(self._programs, self._kernel, offload.mode, offload.interfaces)
            self._ways = Ways(self._kernel, self._write_hop, self._interfaces.frames)
            self._table = FlowTable(
                self._programs,
                self._ways,
                sessions=settings.max_sessions,
                flows=flows,
                bandwidth=settings.bandwidth,
                own_hosts=_hosts(settings),
            )
        except BaseException:
            self._programs.close()
            raise

    # What the rules say

    def open(self, request: OpenRelay, addresses: tuple[Address, ...]) -> None:
        """addresses: as advertised."""
        relays = {each.family: host for each in addresses if (host := self._bound(each)) is not None}
        self.enter(request, relays)

    def enter(self, request: OpenRelay, relays: dict[Family, Address]) -> None:
        """relays: as bound."""
        self._table.open(request.allocation, request.five_tuple, relays, request.deadline, request.bandwidth)

    def close(self, number: int, family: Family | None) -> None:
        session = self._table.close(number, family)
        if session is not None:
            self._settle(session)
            if family is None or not session.relays:
                self._table.forget(session)

    def refresh(self, number: int, until: float) -> None:
        self._table.refresh(number, until)

    def permit(self, number: int, host: str, until: float, ports: Ports) -> None:
        self._table.permit(number, host, until, ports)

    def bind(self, number: int, channel: int, peer: Address, until: float) -> None:
        self._table.bind(number, channel, peer, until)

    def move(self, number: int, five_tuple: FiveTuple) -> None:
        self._table.move(number, five_tuple)

    def tell(self, number: int, wanted: bool) -> None:
        self._table.tell(number, wanted)

    def reconfigure(self, settings: PumpSettings) -> None:
        self._settings = settings
        self._table.bandwidth = settings.bandwidth
        for session in self._table.sessions.values():
            self._settle(session)
            self._table.write_session(session)
        hosts = _hosts(settings)
        if not hosts <= self._table.own_hosts:
            self._table.own_hosts |= hosts  # sessions of the former ones may live on
            self._change()

    # What has been carried

    def settle(self, number: int) -> None:
        """Tell the pump all that has been carried of a session. An unknown number is fine."""
        session = self._table.sessions.get(number)
        if session is not None:
            self._settle(session)

    def settle_all(self) -> None:
        for session in self._table.sessions.values():
            self._settle(session)

    def carried(self) -> Counters:
        """What the programs have carried since they were loaded."""
        return counters(self._table.read_slot(ALL))

    def unsettled(self) -> Counters:
        """The part of carried() that the pump does not know."""
        return self.carried() - self._settled

    def reasons(self) -> dict[Reason, int]:
        """Packets of known flows, by what became of them."""
        found = {}
        for reason in Reason:
            values = self._programs.lookup("reasons", reason) or b""
            found[reason] = sum(number for (number,) in layout.REASON.iter_unpack(values))
        return found

    @property
    def channels(self) -> int:
        return self._table.flows // 2

    @property
    def full(self) -> int:
        """Channels for which there was no room."""
        return self._table.full

    @property
    def interfaces(self) -> list[InterfacePath]:
        return self._interfaces.paths

    # The kernel

    def start(self, hear: Callable[[socket.socket], None]) -> None:
        """Attach, and follow what the kernel says; hear: called with a socket that is to be read. Twice is fine."""
        if self._monitor is not None:
            return
        self._monitor = kernelroutes.open_monitor()
        hear(self._monitor)
        self._look()
        self._change()
        self._timer = self._schedule(_TICK, Below.tick)

    def stop(self, unhear: Callable[[socket.socket], None]) -> None:
        """Carry nothing from here on. Not having started is fine."""
        self._interfaces.detach()
        self._table.stop()
        for handle in (self._renewal, self._timer):
            if handle is not None:
                handle.cancel()
        self._renewal = self._timer = None
        if self._monitor is not None:
            unhear(self._monitor)
            self._monitor.close()
            self._monitor = None

    def close_all(self, unhear: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):
            self.stop(unhear)
        self._kernel.close()
        self._programs.close()

    def hear(self) -> None:
        """Read what the kernel says of links, addresses, neighbours and routes."""
        for _ in range(_READS if self._monitor is not None else 0):
            assert self._monitor is not None
            try:
                told = self._monitor.recv(_READ)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: more was said than there was room for
                self._change()
                return
            for neighbour in kernelroutes.changes(told):
                if neighbour is None:
                    self._change()
                else:
                    self._ways.hear(neighbour)

    def tick(self) -> None:
        self._ways.keep_alive()
        for _ in range(_VERIFIED):
            if next(self._verified, self) is self:
                self._verified = self._table.verify()
                break
        for _ in range(_LIMITED):
            session = next(self._turns, None)
            if session is None:
                self._turns = iter(list(self._table.limited()))
                break
            self._settle(session)
        self._timer = self._schedule(_TICK, Below.tick)

    def renew(self, steps: Iterator[None] | None = None) -> None:
        """Look for ways anew, some in each turn of the loop."""
        if steps is None:
            self._look()
            self._ways.look()
            steps = self._table.renew()
        for _ in range(_STEPS):
            if next(steps, self) is self:
                self._renewal = None
                return
        self._renewal = self._schedule(0, Below.renew, steps)

    def _change(self) -> None:
        """Routes may have changed: the pump carries until they are found anew."""
        self._table.invalidate()
        if self._renewal is not None:
            self._renewal.cancel()
        self._renewal = self._schedule(_SETTLING, Below.renew)

    def _look(self) -> None:
        """Look at the interfaces, and log what has changed."""
        if not self._interfaces.look():
            return
        for each in self._interfaces.paths:
            reason = {"reason": each.reason} if each.reason else {}
            if each.path == "pump":
                _log.warning("channels are not offloaded", interface=each.name, reason=each.reason)
            else:
                _log.info("channels are offloaded", interface=each.name, path=each.path, **reason)

    def _write_hop(self, slot: int, value: bytes) -> None:
        self._programs.update("hops", slot, value)

    def _bound(self, advertised: Address) -> Address | None:
        """Where the relay socket is bound that has this advertised address; None where two hosts share it."""
        hosts = [each.host for each in self._settings.relay_addresses if each.advertised == advertised.host]
        return Address(hosts[0], advertised.port) if len(hosts) == 1 else None

    def _settle(self, session: OffloadSession) -> None:
        """Tell the pump what has been carried, and the programs what the pump has spent of the bandwidth."""
        more = self._table.read(session)
        if more != Counters():
            self._settled += more
            session.carried += more
            self._pump.settle(session.number, more)
        if self._table.limit_of(session):
            own = self._pump.counters(session.number) - session.carried
            spent = own.bytes_from_client, own.bytes_to_client
            if spent != session.spent:
                session.spent = spent
                self._table.write_session(session)


def _hosts(settings: PumpSettings) -> frozenset[str]:
    """The hosts of relays, as bound and as advertised."""
    return frozenset(host for each in settings.relay_addresses for host in (each.host, each.advertised))
