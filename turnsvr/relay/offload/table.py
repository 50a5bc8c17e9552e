"""The sessions as the programs know them: what the rules say of each, written down as flows where it can be carried.

Carried are channels of UDP clients to peers beyond this host, for which the kernel has a way to the client and to the
peer, within the size of the tables. Everything else is the pump's, and so is what is not certain here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from turnsvr.ranges import Ports, has_port
from turnsvr.relay.counts import Counters
from turnsvr.relay.offload import layout
from turnsvr.relay.offload.kernelroutes import has_flow_labels
from turnsvr.relay.offload.layout import ChannelFlow, Direction, FlowState
from turnsvr.relay.offload.ways import Way, Ways
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

MOST_CHANNELS: Final = 32
"""Channels of one session that are carried; further ones are the pump's."""
MOST_FLOWS: Final = 262_144
"""Of all sessions; two for each channel."""
ALL: Final = 0
"""The slot in which everything is counted that has been carried."""


class ProgramTables(Protocol):
    """The tables of Programs. Methods raise OSError."""

    def update(self, table: str, key: bytes | int, value: bytes) -> None: ...
    def delete(self, table: str, key: bytes) -> bool: ...
    def lookup(self, table: str, key: bytes | int) -> bytes | None: ...


@dataclass(slots=True)
class OffloadChannel:
    """A bound channel; carried while it has ways."""

    number: int
    peer: Address
    until: float
    ways: tuple[Way, Way] | None = None
    """To the client, and to the peer."""


@dataclass(slots=True)
class OffloadSession:
    """What the rules have said of a session; times are seconds of time.monotonic()."""

    number: int
    five_tuple: FiveTuple
    relays: dict[Family, Address]
    """Where its relay sockets are bound."""
    until: float
    bandwidth: float | None
    slot: int = -1
    is_told: bool = False
    """Whether the Handler is told of each packet, which the pump alone can do."""
    channels: dict[int, OffloadChannel] = field(default_factory=dict)
    permissions: dict[str, tuple[float, Ports]] = field(default_factory=dict)
    seen: tuple[int, ...] = (0, 0, 0, 0, 0)
    """Of the slot, as of the last look at what has been carried."""
    spent: tuple[int, int] = (0, 0)
    """Bytes that the pump itself has moved of this session, as far as the programs have been told."""
    carried: Counters = field(default_factory=Counters)
    """What has been carried, as far as the pump has been told."""


def boot_time(deadline: float) -> int:
    """A time of time.monotonic() in nanoseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps."""
    left = deadline - time.monotonic()
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(min(left, 1e9) * 1e9))


class FlowTable:
    """Sessions, and the flows of theirs that are in the programs' table. Its methods raise OSError where that fails."""

    def __init__(
        self, store: ProgramTables, ways: Ways, *, sessions: int, flows: int, bandwidth: float, own_hosts: Iterable[str]
    ) -> None:
        """own_hosts: of this server's relays, by each name; peers there are the pump's. flows: room in the table."""
        self._store = store
        self._ways = ways
        self._room = flows
        self._slots = deque(range(ALL + 1, sessions + 1))
        self._labels = has_flow_labels()
        self.bandwidth = bandwidth
        self.own_hosts = frozenset(own_hosts)
        self.sessions: dict[int, OffloadSession] = {}
        self.flows = 0
        self.full = 0
        """Channels for which there was no room."""
        self._generation = 0
        self.invalidate()

    def open(
        self, number: int, five_tuple: FiveTuple, relays: dict[Family, Address], until: float, bandwidth: float | None
    ) -> OffloadSession:
        made = self.sessions[number] = OffloadSession(number, five_tuple, relays, until, bandwidth)
        return made

    def close(self, number: int, family: Family | None = None) -> OffloadSession | None:
        """End a session, or its relay of one family; what was carried is still to be read, then forget() it."""
        session = self.sessions.get(number)
        if session is None:
            return None
        for channel in [each for each in session.channels.values() if family in (None, each.peer.family)]:
            self._remove(session, channel)
            del session.channels[channel.number]
        if family is not None:
            session.relays.pop(family, None)
        return session

    def forget(self, session: OffloadSession) -> None:
        """It is over, and what it has carried is known."""
        if self.sessions.pop(session.number, None) is not None and session.slot >= 0:
            self._store.update("sessions", session.slot, bytes(layout.SESSION.size))
            self._slots.append(session.slot)

    def refresh(self, number: int, until: float) -> None:
        session = self.sessions.get(number)
        if session is not None:
            session.until = until
            self.write_session(session)

    def permit(self, number: int, host: str, until: float, ports: Ports) -> None:
        session = self.sessions.get(number)
        if session is None:
            return
        session.permissions[host] = until, ports
        for channel in session.channels.values():
            if channel.peer.host == host:
                self._renew(session, channel)
        self._forget_old(session)

    def bind(self, number: int, channel: int, peer: Address, until: float) -> None:
        session = self.sessions.get(number)
        if session is None:
            return
        bound = session.channels.get(channel)
        if bound is not None and bound.peer != peer:
            self._remove(session, bound)
            bound = None
        if bound is None:
            for other in [each for each in session.channels.values() if each.peer == peer]:
                self._remove(session, other)
                del session.channels[other.number]
            bound = session.channels[channel] = OffloadChannel(channel, peer, until)
        bound.until = until
        self._renew(session, bound)

    def move(self, number: int, five_tuple: FiveTuple) -> None:
        """A session's client is elsewhere from here on."""
        session = self.sessions.get(number)
        if session is None:
            return
        for channel in session.channels.values():
            self._remove(session, channel)
        session.five_tuple = five_tuple
        for channel in session.channels.values():
            self._renew(session, channel)

    def tell(self, number: int, wanted: bool) -> None:
        """Whether each packet of a session is to be told of: then the pump carries it."""
        session = self.sessions.get(number)
        if session is not None:
            session.is_told = wanted
            for channel in session.channels.values():
                self._renew(session, channel)

    def invalidate(self) -> None:
        """Every route may have changed: nothing is carried until renew()."""
        self._generation = self._generation % 0xFFFFFFFF + 1
        self._store.update("rules", 0, layout.RULES.pack(self._generation))

    def stop(self) -> None:
        """Carry nothing until invalidate() and renew()."""
        self._store.update("rules", 0, layout.RULES.pack(0))

    def renew(self) -> Iterator[None]:
        """Look for each channel's ways anew, one in a step."""
        for number in list(self.sessions):
            for channel in list(self.sessions[number].channels.values()) if number in self.sessions else ():
                session = self.sessions.get(number)
                if session is not None and session.channels.get(channel.number) is channel:
                    self._remove(session, channel)
                    self._renew(session, channel)
                    yield

    def verify(self) -> Iterator[None]:
        """Look up each channel's ways again, one in a step: the kernel does not report changes of a path's MTU."""
        for number in list(self.sessions):
            for channel in list(self.sessions[number].channels.values()) if number in self.sessions else ():
                session = self.sessions.get(number)
                if session is None or session.channels.get(channel.number) is not channel or channel.ways is None:
                    continue
                found = self._find_ways(session, channel)
                for way in found or ():
                    self._ways.release(way)  # they have them twice now
                if found != channel.ways:
                    self._remove(session, channel)
                    self._renew(session, channel)
                yield

    def write_session(self, session: OffloadSession) -> None:
        """Have the programs know what is new of it."""
        if session.slot < 0:
            return
        bandwidth = self.limit_of(session)
        up, down = (int(spent * 1e9 / bandwidth) if bandwidth else 0 for spent in session.spent)
        until = boot_time(session.until)
        self._store.update("sessions", session.slot, layout.pack_session(until, session.number, bandwidth, (up, down)))

    def limit_of(self, session: OffloadSession) -> float:
        """Bytes a second in each direction, 0 for no limit."""
        return self.bandwidth if session.bandwidth is None else session.bandwidth

    def limited(self) -> Iterator[OffloadSession]:
        """Those that the programs know, and whose bandwidth has a limit."""
        return (each for each in self.sessions.values() if each.slot >= 0 and self.limit_of(each))

    def read(self, session: OffloadSession) -> Counters:
        """What has been carried since the last time."""
        if session.slot < 0:
            return Counters()
        now = self.read_slot(session.slot)
        before, session.seen = session.seen, now
        return counters(tuple(new - old for new, old in zip(now, before, strict=True)))

    def read_slot(self, slot: int) -> tuple[int, ...]:
        """Packets and bytes in each direction, and what was dropped, of all processors."""
        values = self._store.lookup("traffic", slot) or b""
        return tuple(sum(each) for each in zip(*layout.TRAFFIC.iter_unpack(values), strict=True))

    def _renew(self, session: OffloadSession, channel: OffloadChannel) -> None:
        """Have a channel be carried, with its deadlines as they are now, or not at all."""
        if not self._may_carry(session, channel):
            self._remove(session, channel)
            return
        if channel.ways is not None:
            self._write(session, channel, channel.ways)
            return
        if self.flows + 2 > self._room or (session.slot < 0 and not self._slots):
            self.full += 1
            return
        ways = self._find_ways(session, channel)
        if ways is None:
            return
        if session.slot < 0:
            self._pop_slot(session)
        channel.ways = ways
        self.flows += 2
        try:
            self._write(session, channel, ways)
        except OSError:
            self.full += 1
            self._remove(session, channel)

    def _may_carry(self, session: OffloadSession, channel: OffloadChannel) -> bool:
        until, ports = session.permissions.get(channel.peer.host, (0.0, ()))
        client, peer = session.five_tuple.client, channel.peer
        if session.is_told or session.five_tuple.transport is not Transport.UDP or peer.family not in session.relays:
            return False
        if peer.host in self.own_hosts or "%" in client.host + session.five_tuple.server.host + peer.host:
            return False
        if channel.ways is None and sum(each.ways is not None for each in session.channels.values()) >= MOST_CHANNELS:
            return False
        return has_port(ports, peer.port) and min(until, channel.until) > time.monotonic()

    def _find_ways(self, session: OffloadSession, channel: OffloadChannel) -> tuple[Way, Way] | None:
        to_client = self._ways.acquire(session.five_tuple.server, session.five_tuple.client)
        if to_client is None:
            return None
        to_peer = self._ways.acquire(session.relays[channel.peer.family], channel.peer)
        if to_peer is None:
            self._ways.release(to_client)
            return None
        return to_client, to_peer

    def _pop_slot(self, session: OffloadSession) -> None:
        session.slot = self._slots.popleft()
        session.seen = self.read_slot(session.slot)
        self._store.update("buckets", session.slot, bytes(layout.BUCKET.size))
        self.write_session(session)

    def _write(self, session: OffloadSession, channel: OffloadChannel, ways: tuple[Way, Way]) -> None:
        permitted, _ = session.permissions[channel.peer.host]
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for flow in _flows(session, channel):
            is_up = flow.direction is Direction.FROM_CLIENT
            came, leaves = ways if is_up else (ways[1], ways[0])
            state = FlowState(
                session.number,
                session.slot,
                boot_time(channel.until),
                boot_time(permitted),
                came.slot,
                leaves.slot,
                self._generation,
                leaves.mtu,
                leaves.ttl,
                hash((flow.source, flow.destination)) if self._labels else 0,
                now,
            )
            key, value = flow.key(), layout.pack_flow(flow, state)
            old = self._store.lookup("flows", key)
            self._store.update("flows", key, value if old is None else layout.with_order_of(old, value))

    def _remove(self, session: OffloadSession, channel: OffloadChannel) -> None:
        """Carry it no more; not being carried is fine."""
        if channel.ways is None:
            return
        for flow in _flows(session, channel):
            self._store.delete("flows", flow.key())
        for way in channel.ways:
            self._ways.release(way)
        channel.ways = None
        self.flows -= 2

    def _forget_old(self, session: OffloadSession) -> None:
        """Drop permissions and channels whose time has passed, as the rules do."""
        now = time.monotonic()
        for host in [host for host, (until, _) in session.permissions.items() if until < now]:
            del session.permissions[host]
        for channel in [each for each in session.channels.values() if each.until < now]:
            self._remove(session, channel)
            del session.channels[channel.number]


def counters(fields: tuple[int, ...]) -> Counters:
    """As read_slot() has them."""
    packets_up, packets_down, bytes_up, bytes_down, dropped = fields
    return Counters(packets_up, bytes_up, packets_down, bytes_down, dropped)


def _flows(session: OffloadSession, channel: OffloadChannel) -> tuple[ChannelFlow, ChannelFlow]:
    client, server = session.five_tuple.client, session.five_tuple.server
    relay, peer = session.relays[channel.peer.family], channel.peer
    return (
        ChannelFlow(Direction.FROM_CLIENT, channel.number, client, server, relay, peer),
        ChannelFlow(Direction.TO_CLIENT, channel.number, peer, relay, server, client),
    )
