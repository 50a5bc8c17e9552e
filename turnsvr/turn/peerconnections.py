"""TCP connections between allocations and their peers (RFC 6062), and the table that holds them.

A connection begins in a Connect request, or with a peer that connects to the relayed transport address. It is unbound
until the client gives it a connection of its own with ConnectionBind. Each state but the last has a deadline. Every
change of the table goes through PeerConnections, so that its indexes, counts and deadlines always agree.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, final

from turnsvr.stun.address import Address, FiveTuple
from turnsvr.stun.message import Message
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.authentication import Proof
from turnsvr.turn.counts import Counts
from turnsvr.turn.deadlines import Deadlines
from turnsvr.turn.reservations import Owner

CONNECTION_ID_SIZE: Final = 4
"""Bytes of CONNECTION-ID (RFC 6062 section 6.2.1)."""


class Stage(Enum):
    """How far a connection has come."""

    CONNECTING = "connecting"
    UNBOUND = "unbound"
    BOUND = "bound"

    # As that of Transport.
    __hash__ = object.__hash__


@final
class ConnectRequest:
    """A Connect request that has no answer yet."""

    __slots__ = ("message", "proof")

    def __init__(self, message: Message, proof: Proof) -> None:
        self.message: Final = message
        self.proof: Final = proof


@final
class PeerConnection:
    """One connection to a peer. number is its CONNECTION-ID."""

    __slots__ = ("allocation", "client", "inside", "number", "owner", "peer", "request", "stage")

    def __init__(
        self,
        number: int,
        allocation: Allocation,
        peer: Address,
        stage: Stage,
        request: ConnectRequest | None = None,
        *,
        inside: bool,
    ) -> None:
        """request: what is to be answered once the connection is there, or cannot be made.

        inside: whether the peer can only be a relayed transport address of this server.
        """
        self.number: Final = number
        self.allocation: Final = allocation.number
        self.owner: Final = allocation.owner
        self.peer: Final = peer
        self.stage = stage
        self.inside: Final = inside
        self.request = request
        self.client: FiveTuple | None = None
        """The client's connection that it is bound to."""


@final
class PeerConnections:
    """The connections of a server, found by number, by allocation and peer, and by the client's connection."""

    def __init__(self) -> None:
        self._by_number: dict[int, PeerConnection] = {}
        self._by_allocation: dict[int, dict[Address, PeerConnection]] = {}
        self._by_client: dict[FiveTuple, PeerConnection] = {}
        self._by_owner: Counts[Owner] = Counts()
        self.deadlines: Deadlines[int] = Deadlines()

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> PeerConnection | None:
        return self._by_number.get(number)

    def of(self, allocation: int) -> list[PeerConnection]:
        """All of an allocation."""
        return list(self._by_allocation.get(allocation, {}).values())

    def to(self, allocation: int, peer: Address) -> PeerConnection | None:
        """That of an allocation to this peer."""
        return self._by_allocation.get(allocation, {}).get(peer)

    def of_client(self, five_tuple: FiveTuple) -> PeerConnection | None:
        """The one that a connection of a client is bound to."""
        return self._by_client.get(five_tuple)

    def count(self, allocation: int, stage: Stage | None = None) -> int:
        """How many an allocation has, or has in this stage."""
        connections = self._by_allocation.get(allocation, {})
        return len(connections) if stage is None else sum([each.stage is stage for each in connections.values()])

    def count_owner(self, owner: Owner) -> int:
        """How many this user of a realm has."""
        return self._by_owner.of(owner)

    def count_host(self, allocation: int, stage: Stage, host: str) -> int:
        """How many an allocation has in this stage with a peer's IP address."""
        connections = self._by_allocation.get(allocation, {})
        return sum([each.stage is stage and each.peer.host == host for each in connections.values()])

    def new_number(self, random: Callable[[int], bytes]) -> int:
        """An unpredictable number that no connection has. random(n) gives n unpredictable bytes."""
        while True:
            number = int.from_bytes(random(CONNECTION_ID_SIZE), "big")
            if number not in self._by_number:
                return number

    def add(self, connection: PeerConnection, deadline: float) -> None:
        """Add one to a peer to which the allocation has none."""
        self._by_number[connection.number] = connection
        self._by_owner.increment(connection.owner)
        self._by_allocation.setdefault(connection.allocation, {})[connection.peer] = connection
        self.deadlines.set(connection.number, deadline)

    def established(self, connection: PeerConnection, deadline: float) -> None:
        """It is there, and is to be bound until the deadline."""
        connection.stage = Stage.UNBOUND
        connection.request = None
        self.deadlines.set(connection.number, deadline)

    def bind(self, connection: PeerConnection, client: FiveTuple) -> None:
        """It belongs to this connection of the client from now on, and lives as long as its allocation."""
        connection.stage = Stage.BOUND
        connection.client = client
        self._by_client[client] = connection
        self.deadlines.discard(connection.number)

    def remove(self, connection: PeerConnection) -> None:
        del self._by_number[connection.number]
        self._by_owner.decrement(connection.owner)
        siblings = self._by_allocation[connection.allocation]
        del siblings[connection.peer]
        if not siblings:
            del self._by_allocation[connection.allocation]
        if connection.client is not None:
            del self._by_client[connection.client]
        self.deadlines.discard(connection.number)
