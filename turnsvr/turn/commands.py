"""What the rules want done. Decisions leave the rules as these values, that nobody changes; one engine carries them
out, in order.

Each has an __init__ of its own because that is compiled, and the one that dataclass makes is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from turnsvr.ranges import EVERY_PORT, Ports
from turnsvr.stun.address import Address, Family, FiveTuple


@dataclass(init=False, slots=True)
class Send:
    """Send a message to a client: from five_tuple.server to five_tuple.client."""

    five_tuple: Final[FiveTuple]
    data: Final[bytes]

    def __init__(self, five_tuple: FiveTuple, data: bytes) -> None:
        self.five_tuple = five_tuple
        self.data = data


@dataclass(init=False, slots=True)
class FindCredential:
    """Look up who this is; answer with Server.credential(request, …), now or later.

    username is None where the client sent a USERHASH instead (RFC 8489 section 14.4).
    """

    request: Final[int]
    five_tuple: Final[FiveTuple]
    username: Final[str | None]
    userhash: Final[bytes | None]
    realm: Final[str]

    def __init__(
        self, request: int, five_tuple: FiveTuple, username: str | None, userhash: bytes | None, realm: str
    ) -> None:
        self.request = request
        self.five_tuple = five_tuple
        self.username = username
        self.userhash = userhash
        self.realm = realm


@dataclass(init=False, slots=True)
class OpenRelay:
    """Open relayed transport addresses; answer with Server.relay_opened() or Server.relay_failed().

    families in the order wanted. With reserve, for one family only, the next port is to be held under that token;
    with claim the port held under that token is to be used. bandwidth in bytes a second each way, 0 for no limit;
    None for what the data plane is set to.
    """

    allocation: Final[int]
    five_tuple: Final[FiveTuple]
    families: Final[tuple[Family, ...]]
    deadline: Final[float]
    even_port: Final[bool]
    reserve: Final[bytes | None]
    claim: Final[bytes | None]
    bandwidth: Final[float | None]

    def __init__(
        self,
        allocation: int,
        five_tuple: FiveTuple,
        families: tuple[Family, ...],
        deadline: float,
        even_port: bool = False,
        reserve: bytes | None = None,
        claim: bytes | None = None,
        bandwidth: float | None = None,
    ) -> None:
        self.allocation = allocation
        self.five_tuple = five_tuple
        self.families = families
        self.deadline = deadline
        self.even_port = even_port
        self.reserve = reserve
        self.claim = claim
        self.bandwidth = bandwidth


@dataclass(init=False, slots=True)
class CloseRelay:
    """Close an allocation's relay, or that of one family only."""

    allocation: Final[int]
    family: Final[Family | None]

    def __init__(self, allocation: int, family: Family | None = None) -> None:
        self.allocation = allocation
        self.family = family


@dataclass(init=False, slots=True)
class ExtendRelay:
    """The allocation now lives until deadline."""

    allocation: Final[int]
    deadline: Final[float]

    def __init__(self, allocation: int, deadline: float) -> None:
        self.allocation = allocation
        self.deadline = deadline


@dataclass(init=False, slots=True)
class Permit:
    """Install or refresh a permission for these ports of a peer's IP address; a deadline of 0 ends it.

    Whatever the ports, it covers relayed transport addresses of this server at that host.
    """

    allocation: Final[int]
    host: Final[str]
    deadline: Final[float]
    ports: Final[Ports]

    def __init__(self, allocation: int, host: str, deadline: float, ports: Ports = EVERY_PORT) -> None:
        self.allocation = allocation
        self.host = host
        self.deadline = deadline
        self.ports = ports


@dataclass(init=False, slots=True)
class BindChannel:
    """Install or refresh a channel."""

    allocation: Final[int]
    channel: Final[int]
    peer: Final[Address]
    deadline: Final[float]

    def __init__(self, allocation: int, channel: int, peer: Address, deadline: float) -> None:
        self.allocation = allocation
        self.channel = channel
        self.peer = peer
        self.deadline = deadline


@dataclass(init=False, slots=True)
class SendToPeer:
    """Relay one packet that no route covered but the rules allow."""

    allocation: Final[int]
    peer: Final[Address]
    data: Final[bytes]
    dont_fragment: Final[bool]

    def __init__(self, allocation: int, peer: Address, data: bytes, dont_fragment: bool) -> None:
        self.allocation = allocation
        self.peer = peer
        self.data = data
        self.dont_fragment = dont_fragment


@dataclass(init=False, slots=True)
class ReleaseReservation:
    """Give up the port that is held under this token."""

    token: Final[bytes]

    def __init__(self, token: bytes) -> None:
        self.token = token


class EndReason(Enum):
    """Why an allocation ended."""

    REFRESHED_TO_ZERO = "client ended it"
    EXPIRED = "expired"
    DISCONNECTED = "connection closed"
    SHUTDOWN = "server stopped"
    REVOKED = "ended by the operator"

    # As that of Transport.
    __hash__ = object.__hash__


@dataclass(init=False, slots=True)
class AllocationStarted:
    """An event for the log: an allocation is live."""

    allocation: Final[int]
    username: Final[str]
    """As it may be shown."""
    five_tuple: Final[FiveTuple]
    relayed: Final[tuple[Address, ...]]
    lifetime: Final[int]
    """Seconds."""
    realm: Final[str]
    took: Final[float]
    """Seconds from the arrival of its request to the answer, the look-up of its user among them."""

    def __init__(
        self,
        allocation: int,
        username: str,
        five_tuple: FiveTuple,
        relayed: tuple[Address, ...],
        lifetime: int,
        realm: str,
        took: float,
    ) -> None:
        self.allocation = allocation
        self.username = username
        self.five_tuple = five_tuple
        self.relayed = relayed
        self.lifetime = lifetime
        self.realm = realm
        self.took = took


@dataclass(init=False, slots=True)
class AllocationRefreshed:
    """An event for who keeps account of deadlines: a client has extended its allocation, or one family of it."""

    allocation: Final[int]
    lifetime: Final[int]
    """Seconds from now."""

    def __init__(self, allocation: int, lifetime: int) -> None:
        self.allocation = allocation
        self.lifetime = lifetime


@dataclass(init=False, slots=True)
class AllocationEnded:
    """An event for the log; it comes before the CloseRelay of the same allocation."""

    allocation: Final[int]
    username: Final[str]
    """As it may be shown."""
    five_tuple: Final[FiveTuple]
    relayed: Final[tuple[Address, ...]]
    duration: Final[float]
    """Seconds."""
    reason: Final[EndReason]
    realm: Final[str]

    def __init__(
        self,
        allocation: int,
        username: str,
        five_tuple: FiveTuple,
        relayed: tuple[Address, ...],
        duration: float,
        reason: EndReason,
        realm: str,
    ) -> None:
        self.allocation = allocation
        self.username = username
        self.five_tuple = five_tuple
        self.relayed = relayed
        self.duration = duration
        self.reason = reason
        self.realm = realm


@dataclass(init=False, slots=True)
class AuthenticationFailed:
    """An event for the log: a client offered credentials, and they were wrong."""

    five_tuple: Final[FiveTuple]
    username: Final[str]
    """As the client wrote it: hostile text, or a secret where tokens are user names."""
    reason: Final[str]
    realm: Final[str]

    def __init__(self, five_tuple: FiveTuple, username: str, reason: str, realm: str) -> None:
        self.five_tuple = five_tuple
        self.username = username
        self.reason = reason
        self.realm = realm


@dataclass(init=False, slots=True)
class PeerRefused:
    """An event for the log: a peer address that the policy forbids, or a packet for a port that it does not open."""

    allocation: Final[int]
    username: Final[str]
    """As it may be shown."""
    five_tuple: Final[FiveTuple]
    peer: Final[Address]
    reason: Final[str]
    realm: Final[str]

    def __init__(
        self, allocation: int, username: str, five_tuple: FiveTuple, peer: Address, reason: str, realm: str
    ) -> None:
        self.allocation = allocation
        self.username = username
        self.five_tuple = five_tuple
        self.peer = peer
        self.reason = reason
        self.realm = realm


@dataclass(init=False, slots=True)
class RequestRefused:
    """An event for the log: a user met a bound, and got this error code."""

    five_tuple: Final[FiveTuple]
    method: Final[int]
    username: Final[str]
    """As it may be shown; the one that quotas count by."""
    code: Final[int]
    limit: Final[str]
    """The bound: the name of its setting where it has one."""
    realm: Final[str]

    def __init__(self, five_tuple: FiveTuple, method: int, username: str, code: int, limit: str, realm: str) -> None:
        self.five_tuple = five_tuple
        self.method = method
        self.username = username
        self.code = code
        self.limit = limit
        self.realm = realm


Event = AllocationStarted | AllocationRefreshed | AllocationEnded | AuthenticationFailed | PeerRefused | RequestRefused

Command = (
    Send
    | FindCredential
    | OpenRelay
    | CloseRelay
    | ExtendRelay
    | Permit
    | BindChannel
    | SendToPeer
    | ReleaseReservation
    | Event
)
