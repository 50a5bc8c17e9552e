"""Sessions as plain data: which peers each may talk to, until when, and how much was relayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from turnsvr.limits import TokenBucket
from turnsvr.ranges import EVERY_PORT, Ports, has_port
from turnsvr.relay.counts import Counters, Drop, Totals
from turnsvr.relay.portable.sockets import RelaySocket, UdpListener
from turnsvr.relay.portable.waiting import WaitingClient
from turnsvr.relay.ports import OpenedPort
from turnsvr.stun.address import Address, Family, FiveTuple

_NAMES = 64
"""Ports of which a session remembers by which name it has called them; of two with one place the later stays."""

HostAndPort = tuple[str, int]
"""An Address or what the socket module gives for one: they are equal and hash alike."""


@dataclass(slots=True)
class Permission:
    """For a peer's host."""

    deadline: float
    ports: Ports = EVERY_PORT
    told: bool = False
    """Whether the Handler has heard of a packet for another port."""

    def covers(self, port: int) -> bool:
        return has_port(self.ports, port)


@dataclass(slots=True)
class Channel:
    number: int
    peer: Address
    deadline: float


@dataclass(slots=True)
class Relay:
    """One relayed transport address of a session."""

    session: Session
    opened: OpenedPort[RelaySocket]


class Session:
    """An allocation as the data plane knows it."""

    __slots__ = (
        "bandwidth",
        "bytes_from_client",
        "bytes_to_client",
        "channels",
        "channels_by_peer",
        "deadline",
        "dropped",
        "five_tuple",
        "from_client",
        "has_moved",
        "is_observed",
        "is_stream",
        "limited_by_itself",
        "listener",
        "names",
        "number",
        "packets_from_client",
        "packets_to_client",
        "permissions",
        "relays",
        "to_client",
        "waiting",
    )

    def __init__(self, number: int, five_tuple: FiveTuple, listener: UdpListener | None, deadline: float) -> None:
        """listener: where a UDP client's packets come from and go to."""
        self.number = number
        self.be_at(five_tuple, listener)
        self.deadline = deadline
        self.has_moved = False
        """Whether another pump serves it, and it is only to be forgotten here."""
        self.is_observed = False
        """Whether the Handler hears of each of its packets."""
        self.permissions: dict[str, Permission] = {}
        self.channels: dict[int, Channel] = {}
        self.channels_by_peer: dict[HostAndPort, Channel] = {}
        self.names: dict[int, tuple[int, str]] = {}
        """By which name the client has called a port of a host of two names last, in the port's place."""
        self.relays: dict[Family, Relay] = {}
        self.waiting: WaitingClient | None = None
        """What waits of the client."""
        self.limited_by_itself = False
        """Whether its bandwidth is its own, and not that of the pump's settings."""
        self.bandwidth = 0.0
        self.from_client: TokenBucket | None = None
        self.to_client: TokenBucket | None = None
        self.packets_from_client = 0
        self.bytes_from_client = 0
        self.packets_to_client = 0
        self.bytes_to_client = 0
        self.dropped = 0

    def be_at(self, five_tuple: FiveTuple, listener: UdpListener | None) -> None:
        """Have the client be here, as the constructor takes it."""
        self.five_tuple = five_tuple
        self.is_stream = five_tuple.transport.is_stream
        self.listener = listener

    def limit(self, bandwidth: float, now: float) -> None:
        """Bytes a second in each direction, 0 for no limit."""
        self.bandwidth = bandwidth
        self.from_client = TokenBucket(bandwidth, bandwidth, now) if bandwidth else None
        self.to_client = TokenBucket(bandwidth, bandwidth, now) if bandwidth else None

    def refusal(self, host: str, now: float) -> Drop | None:
        """Why nothing may pass between the client and a peer at this host, or None."""
        if now > self.deadline:
            return Drop.EXPIRED
        permission = self.permissions.get(host)
        if permission is None:
            return Drop.NO_PERMISSION
        return Drop.EXPIRED if now > permission.deadline else None

    def permit(self, host: str, deadline: float, ports: Ports, most: int, now: float) -> None:
        """Raises RuntimeError when there are so many live permissions already."""
        permission = self.permissions.get(host)
        if permission is not None:
            permission.deadline = deadline
            permission.ports = ports
            return
        if len(self.permissions) >= most:
            self.permissions = {host: old for host, old in self.permissions.items() if now <= old.deadline}
            if len(self.permissions) >= most:
                raise RuntimeError(f"more than {most} permissions in session {self.number}")
        self.permissions[host] = Permission(deadline, ports)

    def move(self, size: int, from_client: bool, now: float) -> float | None:
        """Count bytes of a connection; seconds until more may come, None where the session has ended."""
        if now > self.deadline:
            return None
        if from_client:
            self.packets_from_client += 1
            self.bytes_from_client += size
        else:
            self.packets_to_client += 1
            self.bytes_to_client += size
        bucket = self.from_client if from_client else self.to_client
        if bucket is None:
            return 0.0
        bucket.allow(0.0, now)
        bucket.spend(size)
        return bucket.debt(now)

    def call(self, peer: Address) -> None:
        """The client has sent to this peer, whose host has another name."""
        self.names[peer.port % _NAMES] = peer.port, peer.host

    def known_as(self, here: HostAndPort, elsewhere: str, now: float) -> HostAndPort:
        """How the client calls a peer that is advertised elsewhere: as it has done last, else by that name."""
        host, port = here
        if self.refusal(elsewhere, now) is not None:
            return here
        if self.refusal(host, now) is None and self.names.get(port % _NAMES) == (port, host):
            return here
        return elsewhere, port

    def bind(self, channel: Channel, most: int, now: float) -> None:
        """Take a channel in the place of what its number or its peer had.

        Raises RuntimeError when there are so many live channels already.
        """
        self._unbind(self.channels.get(channel.number))
        self._unbind(self.channels_by_peer.get(channel.peer))
        if len(self.channels) >= most:
            for old in [old for old in self.channels.values() if now > old.deadline]:
                self._unbind(old)
            if len(self.channels) >= most:
                raise RuntimeError(f"more than {most} channels in session {self.number}")
        self.channels[channel.number] = channel
        self.channels_by_peer[channel.peer] = channel

    def forget(self, family: Family) -> None:
        """Remove permissions and channels for peers of a family."""
        for host in [host for host in self.permissions if Address(host, 0).family is family]:
            del self.permissions[host]
        for channel in [channel for channel in self.channels.values() if channel.peer.family is family]:
            self._unbind(channel)

    def add(self, counters: Counters) -> None:
        """Count what another pump has relayed of it."""
        self.packets_from_client += counters.packets_from_client
        self.bytes_from_client += counters.bytes_from_client
        self.packets_to_client += counters.packets_to_client
        self.bytes_to_client += counters.bytes_to_client
        self.dropped += counters.dropped

    def counters(self) -> Counters:
        return Counters(
            self.packets_from_client,
            self.bytes_from_client,
            self.packets_to_client,
            self.bytes_to_client,
            self.dropped,
        )

    def _unbind(self, channel: Channel | None) -> None:
        if channel is not None:
            del self.channels[channel.number]
            del self.channels_by_peer[channel.peer]


class PumpCounts:
    """What the pump did: see Totals."""

    __slots__ = ("_ended", "batches", "binding_answers", "drops", "received", "segments", "sends", "sent_up")

    def __init__(self) -> None:
        self.drops = dict.fromkeys(Drop, 0)
        self.binding_answers = 0
        self.received = 0
        self.sent_up = 0
        self.batches = 0
        self.sends = 0
        self.segments = 0
        self._ended = Counters()

    def end(self, counters: Counters) -> None:
        """Keep what a session relayed that is over."""
        self._ended += counters

    def totals(self, living: Sequence[Counters], waiting: int) -> Totals:
        return Totals(
            relayed=sum(living, self._ended),
            drops=dict(self.drops),
            binding_answers=self.binding_answers,
            received=self.received,
            sent_up=self.sent_up,
            batches=self.batches,
            sends=self.sends,
            segments=self.segments,
            waiting=waiting,
        )
