"""The Connect method (RFC 6062 section 5.2): from the request to the connection that is there or could not be made.

A Connect request neither needs a permission nor installs one: the RFC asks for permissions where peers connect. The
peer policy is asked for both.
"""

from __future__ import annotations

from turnsvr.plane import ConnectPeer
from turnsvr.ranges import has_port
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Class, Message
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.authentication import Proof
from turnsvr.turn.commands import DisconnectPeer
from turnsvr.turn.lifetimes import CONNECT_LIFETIME, UNBOUND_LIFETIME
from turnsvr.turn.peerbounds import check_connect
from turnsvr.turn.peerconnections import ConnectRequest, PeerConnection, Stage
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import Answer, State, allocation_for, check_peer, refuse_peer


def connect(state: State, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Answer:
    """RFC 6062 section 5.2."""
    # "a TCP connection for which no allocation exists": 437, and so where that is none for TCP
    allocation = allocation_for(state, five_tuple, proof)
    if not allocation.tcp:
        raise Reject(ErrorCode.ALLOCATION_MISMATCH)
    # "does not contain an XOR-PEER-ADDRESS attribute, or if such attribute is invalid": 400
    peer = message.get(a.XOR_PEER_ADDRESS)
    if peer is None or peer.port == 0:
        raise Reject(ErrorCode.BAD_REQUEST)
    # "currently processing a Connect request for this allocation with the same XOR-PEER-ADDRESS", or "already
    # successfully processed" one, whose connections "are either pending or active": 446
    if state.connections.to(allocation.number, peer) is not None:
        raise Reject(ErrorCode.CONNECTION_ALREADY_EXISTS)
    # "forbidden by local policy": 403
    check_peer(state, allocation, peer, peer.port)
    check_connect(state, allocation, now)
    # "Otherwise, the server MUST initiate an outgoing TCP connection": connected() or failed() answers the request
    number = state.connections.new_number(state.random)
    inside = not has_port(state.config.rules_of(allocation.realm).policy.ports(peer.host), peer.port)
    request = ConnectRequest(message, proof)
    connection = PeerConnection(number, allocation, peer, Stage.CONNECTING, request, inside=inside)
    state.connections.add(connection, now + CONNECT_LIFETIME)
    state.emit(ConnectPeer(allocation.number, number, peer, inside=inside))
    return None


def connected(state: State, connection: PeerConnection, request: ConnectRequest, now: float) -> bytes:
    """The signed success response of a Connect request whose connection is there.

    "The server MUST include the CONNECTION-ID attribute in the Connect success response." "If no ConnectionBind
    request ... is received after 30 seconds, the peer data connection MUST be closed."
    """
    state.connections.established(connection, now + UNBOUND_LIFETIME)
    response = request.message.reply(Class.SUCCESS).add(a.CONNECTION_ID, connection.number)
    return state.sign(request.message, response, request.proof)


def failed(state: State, connection: PeerConnection, *, forbidden: bool) -> Reject:
    """Forget a connection that could not be made; "fails or times out": 447.

    forbidden: what is there is none of this server's relayed transport addresses, and the policy opens nothing else.
    """
    state.connections.remove(connection)
    if not forbidden:
        return Reject(ErrorCode.CONNECTION_TIMEOUT_OR_FAILURE)
    allocation = state.allocations.get(connection.allocation)
    if allocation is not None:
        refuse_peer(state, allocation, connection.peer, "a port of this server where no client is relayed")
    return Reject(ErrorCode.FORBIDDEN)


def disconnect(state: State, connection: PeerConnection) -> None:
    """End a connection in any stage. A request that waits for it is the caller's to answer."""
    state.connections.remove(connection)
    state.emit(DisconnectPeer(connection.number))


def may_come_from(state: State, allocation: Allocation, peer: Address, inside: bool, now: float) -> bool:
    """Whether a permission covers a peer that connects. inside: it is one of this server's relayed addresses."""
    if now >= allocation.expires.get(peer.family, 0.0) or not allocation.may_reach(peer.host, now):
        return False
    policy = state.config.rules_of(allocation.realm).policy
    return policy.refusal(peer.host) is None and (inside or has_port(policy.ports(peer.host), peer.port))
