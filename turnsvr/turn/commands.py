"""What the rules want done. Decisions leave the rules as these values, which never change; one engine carries them out,
in order. OpenRelay and ConnectPeer, which a pump takes as they are, are in turnsvr/plane.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from turnsvr.plane import ConnectPeer, OpenRelay
from turnsvr.ranges import EVERY_PORT, Ports
from turnsvr.stun.address import Address, Family, FiveTuple


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a client: from five_tuple.server to five_tuple.client."""

    five_tuple: FiveTuple
    data: bytes


@dataclass(frozen=True, slots=True, repr=False)
class FindCredential:
    """Look up who this is; answer with Server.credential(request, …), now or later.

    username is None where the client sent a USERHASH instead (RFC 8489 section 14.4). token: ACCESS-TOKEN (RFC 7635),
    for which the value shows nothing of itself.
    """

    request: int
    five_tuple: FiveTuple
    username: str | None
    userhash: bytes | None
    realm: str
    token: bytes | None = None


@dataclass(frozen=True, slots=True)
class CloseRelay:
    """Close an allocation's relay, or that of one family only."""

    allocation: int
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class ExtendRelay:
    """The allocation now lives until deadline."""

    allocation: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Permit:
    """Install or refresh a permission for these ports of a peer's IP address; a deadline of 0 ends it.

    It always covers relayed transport addresses of this server at that host, at any port.
    """

    allocation: int
    host: str
    deadline: float
    ports: Ports = EVERY_PORT


@dataclass(frozen=True, slots=True)
class BindChannel:
    """Install or refresh a channel."""

    allocation: int
    channel: int
    peer: Address
    deadline: float


@dataclass(frozen=True, slots=True)
class SendToPeer:
    """Relay one packet that no route covered but the rules allow."""

    allocation: int
    peer: Address
    data: bytes
    dont_fragment: bool


@dataclass(frozen=True, slots=True)
class ExpectClient:
    """Data from here are for the rules to see, until MoveRelay: they show that an allocation's client has moved."""

    five_tuple: FiveTuple
    expected: bool = True


@dataclass(frozen=True, slots=True)
class MoveRelay:
    """The allocation's client is at this five-tuple from now on."""

    allocation: int
    five_tuple: FiveTuple


@dataclass(frozen=True, slots=True)
class JoinPeer:
    """Have a client's connection and the one to a peer be one: bytes go from each to the other, as they are."""

    connection: int
    allocation: int
    five_tuple: FiveTuple


@dataclass(frozen=True, slots=True)
class DisconnectPeer:
    """End a connection to a peer, and the client's connection if they are joined; unknown ones are fine."""

    connection: int


@dataclass(frozen=True, slots=True)
class ReleaseReservation:
    """Give up the port that is held under this token."""

    token: bytes


class EndReason(Enum):
    """Why an allocation ended."""

    REFRESHED_TO_ZERO = "client ended it"
    EXPIRED = "expired"
    DISCONNECTED = "connection closed"
    SHUTDOWN = "server stopped"
    REVOKED = "ended by the operator"

    # As that of Transport.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class AllocationStarted:
    """An event for the log: an allocation is live."""

    allocation: int
    username: str
    """As it may be shown."""
    five_tuple: FiveTuple
    relayed: tuple[Address, ...]
    lifetime: int
    """Seconds."""
    realm: str
    took: float
    """Seconds from the arrival of its request to the answer, the look-up of its user among them."""
    tcp: bool = False
    """Whether it reaches its peers over TCP."""


@dataclass(frozen=True, slots=True)
class AllocationRefreshed:
    """An event for sinks that follow deadlines: a client has extended its allocation, or one family of it."""

    allocation: int
    lifetime: int
    """Seconds from now."""


@dataclass(frozen=True, slots=True)
class AllocationMoved:
    """An event for the log: an allocation's client is somewhere else now."""

    allocation: int
    username: str
    """As it may be shown."""
    left: FiveTuple
    five_tuple: FiveTuple
    realm: str


@dataclass(frozen=True, slots=True)
class AllocationEnded:
    """An event for the log; it comes before the CloseRelay of the same allocation."""

    allocation: int
    username: str
    """As it may be shown."""
    five_tuple: FiveTuple
    relayed: tuple[Address, ...]
    duration: float
    """Seconds."""
    reason: EndReason
    realm: str


@dataclass(frozen=True, slots=True)
class AuthenticationFailed:
    """An event for the log: a client offered credentials, and they were wrong."""

    five_tuple: FiveTuple
    username: str
    """As the client wrote it: hostile text, or a secret where tokens are user names."""
    reason: str
    realm: str


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """An event for the log: a peer address that the policy forbids, or a packet for a port that it does not open."""

    allocation: int
    username: str
    """As it may be shown."""
    five_tuple: FiveTuple
    peer: Address
    reason: str
    realm: str


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """An event for the log: a user met a bound, and got this error code."""

    five_tuple: FiveTuple
    method: int
    username: str
    """As it may be shown; the one that quotas count by."""
    code: int
    limit: str
    """The bound: the name of its setting where it has one."""
    realm: str


Event = (
    AllocationStarted
    | AllocationRefreshed
    | AllocationMoved
    | AllocationEnded
    | AuthenticationFailed
    | PeerRefused
    | RequestRefused
)

Command = (
    Send
    | FindCredential
    | OpenRelay
    | CloseRelay
    | ExtendRelay
    | Permit
    | BindChannel
    | SendToPeer
    | ExpectClient
    | MoveRelay
    | ConnectPeer
    | JoinPeer
    | DisconnectPeer
    | ReleaseReservation
    | Event
)
