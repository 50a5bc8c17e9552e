"""What becomes of connections to peers after the request that asked for them (RFC 6062): made, failed, late, ended."""

from __future__ import annotations

from turnsvr.ranges import has_port
from turnsvr.stun.address import Address, Family, FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.turn import connect, connectionattempt
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.commands import DisconnectPeer
from turnsvr.turn.peerconnections import PeerConnection
from turnsvr.turn.policy import PeerPolicy
from turnsvr.turn.reject import Reject
from turnsvr.turn.responses import Responses
from turnsvr.turn.state import State


class PeerRelaying:
    """The connections of a server, and the answers that wait for them."""

    def __init__(self, state: State, responses: Responses) -> None:
        self._state = state
        self._responses = responses
        state.end_connections = self.end

    def connected(self, number: int, now: float) -> None:
        """A connection is made; end it where no request waits for it any more."""
        connection = self._state.connections.get(number)
        allocation = self._state.allocations.get(connection.allocation) if connection is not None else None
        if connection is None or allocation is None or connection.request is None:
            self._state.emit(DisconnectPeer(number))
            return
        request = connection.request
        response = connect.connected(self._state, connection, request, now)
        self._responses.answer(request.message, allocation.five_tuple, response)

    def failed(self, number: int, now: float, *, forbidden: bool) -> None:
        """A connection could not be made: answer 447, or 403."""
        connection = self._state.connections.get(number)
        allocation = self._state.allocations.get(connection.allocation) if connection is not None else None
        if connection is None or allocation is None or connection.request is None:
            return
        request = connection.request
        reject = connect.failed(self._state, connection, forbidden=forbidden)
        self._responses.refuse(request.message, allocation.five_tuple, request.proof, reject, now)

    def arrived(self, allocation: int, peer: Address, inside: bool, now: float) -> int | None:
        """A peer has connected; None where it is to be closed."""
        return connectionattempt.arrived(self._state, allocation, peer, inside, now)

    def client_left(self, five_tuple: FiveTuple) -> None:
        """A connection of a client is gone: "the server MUST close the corresponding peer data connection"."""
        connection = self._state.connections.of_client(five_tuple)
        if connection is not None:
            connect.disconnect(self._state, connection)

    def expire(self, now: float) -> None:
        """End what was not made, or not bound, in its time."""
        for number in self._state.connections.deadlines.due(now):
            connection = self._state.connections.get(number)
            allocation = self._state.allocations.get(connection.allocation) if connection is not None else None
            if connection is not None and allocation is not None:
                self._disconnect(connection, allocation)

    def judge_anew(self, allocation: Allocation, policy: PeerPolicy) -> None:
        """End connections to peers that this policy refuses.

        What it grants at an address of this host may be relayed addresses alone, which such a peer need not be.
        """
        for connection in self._state.connections.of(allocation.number):
            peer = connection.peer
            covered = connection.inside or has_port(policy.ports(peer.host), peer.port)
            if policy.refusal(peer.host) is not None or not covered:
                self._disconnect(connection, allocation)

    def end(self, allocation: Allocation, family: Family | None = None, *, answer: bool = True) -> None:
        """End an allocation's connections, or those of one family: "the data connection MUST be closed" with it.

        answer: whether the client is still there, so that its Connect requests are answered.
        """
        for connection in self._state.connections.of(allocation.number):
            if family is None or connection.peer.family is family:
                self._disconnect(connection, allocation, answer=answer)

    def _disconnect(self, connection: PeerConnection, allocation: Allocation, *, answer: bool = True) -> None:
        """End a connection; a Connect request that waits for it gets 447."""
        connect.disconnect(self._state, connection)
        request = connection.request
        if request is not None and answer:
            reject = Reject(ErrorCode.CONNECTION_TIMEOUT_OR_FAILURE)
            arrived = request.proof.claim.arrived
            self._responses.refuse(request.message, allocation.five_tuple, request.proof, reject, arrived)
