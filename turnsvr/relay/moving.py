"""How sessions move from one pump to another, in the same process or in two of one host, while their packets pass.

The law: two pumps never read one socket, and no packet is relayed twice. So a move has a moment: until part() the giver
relays, from arm() on the taker does, and between the two packets wait in the buffers of the sockets.

    giver                                       taker
    -----                                       -----
    freeze()        it hands up nothing more    made with is_armed=False: it serves nothing
    keep()          who stays has a socket
    belongings()    sockets, counters           listen(), take(), hold(), adopt() on duplicated descriptors
    part()          it touches them no more     feed(), receive(): what the giver had read already
                                                arm()
    leave()         it forgets them             settle(): what the giver counted after belongings()

Until leave() the giver can take everything back with rejoin(), provided that the taker was shut down before arm().
The sessions named in `stays` are served by the giver all the time: those of clients whose connection it keeps. A client
of DTLS has none but an address at the listener, which the taker reads: keep() gives each a socket of its own, connected
to it, and the kernel prefers that.

A permission for a host of this server covers the relayed transport addresses there. With two pumps at work, know()
tells each of those that the other has: packets for them leave over the network, and come in as from inside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from turnsvr.plane import OpenRelay
from turnsvr.relay.api import Pump
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Address, FiveTuple


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """A bound relay socket. The descriptor is the giver's in belongings(), the taker's in take()."""

    descriptor: int
    host: Address
    """Where it is bound."""
    advertised: Address


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a pump alone knows of a session: the rules know the rest, and say it again to the taker."""

    relays: tuple[BoundSocket, ...]
    counters: Counters
    levels: tuple[float, float]
    """Bytes that might have passed at once from the client and to it, within its bandwidth; 0 without a limit."""
    at: float
    """When that was, in seconds of time.monotonic()."""
    bandwidth: float | None = None
    """The session's own, as OpenRelay has it."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a pump can give. The descriptors stay its own; the taker has duplicated them before leave()."""

    listeners: Mapping[Address, tuple[int, ...]] = field(default_factory=dict)
    """UDP sockets by the address that listen() returned, in the order in which the kernel chooses among them."""
    sessions: Mapping[int, SessionState] = field(default_factory=dict)
    held: Mapping[bytes, BoundSocket] = field(default_factory=dict)
    """Reserved ports by token."""
    streams: Mapping[FiveTuple, int] = field(default_factory=dict)
    """Adopted plain TCP connections."""


@dataclass(frozen=True, slots=True)
class StreamRest:
    """What is on its way on a connection: bytes read and not judged, whole frames or not; bytes to be sent."""

    pending: bytes
    output: bytes


@dataclass(frozen=True, slots=True)
class Rest:
    """What the giver had read when it parted, and has neither judged nor relayed."""

    streams: Mapping[FiveTuple, StreamRest] = field(default_factory=dict)
    """Of adopted plain TCP connections, where there is any."""
    waiting: Mapping[FiveTuple, Sequence[bytes]] = field(default_factory=dict)
    """Of UDP clients, in the order in which they came; and of attached clients, who are not adopted."""


class MovablePump(Pump, Protocol):
    """A pump that can give and take sessions. Methods are called on its thread, in the order that the module shows."""

    # The giver

    def freeze(self) -> None:
        """Hand no message of a client to the Handler until thaw(); they wait as ever. Packets that need none pass."""

    def thaw(self) -> None:
        """Go on handing up. Not being frozen is fine."""

    def keep(self, stays: Collection[int]) -> set[int]:
        """Have the DTLS clients among these sessions be read on sockets of their own, some time before part().

        Returns the sessions of those that cannot: there is no descriptor left, or the address may not be bound again by
        this process. Their associations end with leave().
        """

    def belongings(self, stays: Collection[int]) -> Belongings:
        """What can be given; stays: numbers of the sessions that are not."""

    def state_of(self, session: int) -> SessionState | None:
        """What belongings() says of one session; None for an unknown one. At any time."""

    def part(self, stays: Collection[int]) -> Rest:
        """Neither read nor write, from here on, what belongs to sessions that do not stay, nor any listener."""

    def rejoin(self) -> None:
        """Serve again what part() has let go of. Not having parted is fine."""

    def leave(self) -> dict[int, Counters]:
        """Forget what part() has let go of, and close its descriptors. Returns the last counters by session.

        The figures of those sessions are in totals() no longer. Their relayed transport addresses are known from here
        on as if know() had told of each.
        """

    # The taker, before arm() unless another thing is said

    def take(self, request: OpenRelay, state: SessionState) -> None:
        """Open a session on bound sockets, which are the pump's from here on, also where this fails.

        Raises RuntimeError where the session or its five-tuple is open already, OSError where there is no room.
        """

    def hold(self, token: bytes, held: BoundSocket) -> None:
        """Hold a port under a token; the socket is the pump's from here on."""

    def feed(self, five_tuple: FiveTuple, rest: StreamRest) -> None:
        """Go on with an adopted connection: send and judge this before anything else. Unknown ones are fine."""

    def receive(self, five_tuple: FiveTuple, data: bytes) -> None:
        """Serve a datagram that a UDP client sent and the giver has read."""

    def arm(self) -> None:
        """Serve from here on. A pump that was made armed takes no notice."""

    def settle(self, session: int, counters: Counters) -> None:
        """After arm(): add what the giver has counted since belongings(), and take it off the bandwidth's level."""

    def know(self, advertised: Address, is_elsewhere: bool) -> None:
        """Whether a relayed transport address of this server is another pump's, on this host."""
