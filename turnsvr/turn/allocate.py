"""The Allocate method (RFC 8656 section 7.2): from the request to the relay that is open or could not be opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from turnsvr.plane import OpenRelay
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, FiveTuple, Transport, family_of
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Class, Message
from turnsvr.turn import mobility
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.alternate_server import redirect
from turnsvr.turn.authentication import Proof
from turnsvr.turn.commands import AllocationStarted, CloseRelay, ExtendRelay, ReleaseReservation
from turnsvr.turn.config import ServerConfig
from turnsvr.turn.lifetimes import RESERVATION_LIFETIME, most_lifetime, read_lifetime
from turnsvr.turn.pending import AllocateRequest, PendingAllocation
from turnsvr.turn.quota import check_quotas, check_rate
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import Answer, State, add_software, made_by

UDP_PROTOCOL: Final = 17
"""REQUESTED-TRANSPORT for UDP: the IANA protocol number."""
TCP_PROTOCOL: Final = 6
"""And for TCP (RFC 6062 section 5.1)."""

RESERVATION_TOKEN_SIZE: Final = 8

_BARELY: Final = 0.1
"""Seconds that opening a relay may take of an allocation's lifetime."""


def allocate(state: State, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Answer:
    """RFC 8656 section 7.2; the numbers are its steps, of which authentication.py has step 1.

    Step 5 comes last in part: a request that is refused for another reason does not spend its token.
    """
    # 2: "The server checks if the 5-tuple is currently in use by an existing allocation."
    existing = state.allocations.of(five_tuple)
    if existing is not None:
        return _answer_again(existing, message, proof)
    most, family = most_lifetime(state.config, proof.key.valid_for), state.config.family_for(five_tuple.client)
    request = read_request(message, five_tuple.transport, state.config, most, family)
    # 11: "the server MAY choose to reject the request with a 300 (Try Alternate)"
    redirect(state, five_tuple)
    # 10: "the server MAY choose to reject the request with a 486 (Allocation Quota Reached)"
    check_quotas(state, proof, request)
    check_rate(state, proof, now)
    # 5: "If the token is not valid for some reason, the server rejects the request with a 508"
    if request.token is not None and not state.reservations.remove(request.token):
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)
    _open(state, message, five_tuple, proof, request, now)
    return None


def _answer_again(allocation: Allocation, message: Message, proof: Proof) -> bytes | None:
    """Step 2: a retransmission gets the same answer, as the section's note has it; another Allocate is 437."""
    if allocation.transaction_id != message.transaction_id or not made_by(allocation, proof):
        raise Reject(ErrorCode.ALLOCATION_MISMATCH)
    return allocation.response or None


def read_request(
    message: Message, transport: Transport, config: ServerConfig, max_lifetime: int, default_family: Family
) -> AllocateRequest:
    """Steps 3 to 9, as far as the attributes go; raises Reject 400, 405, 440 or 442, or MalformedMessage.

    Step 4 has nothing to refuse: both pumps send with the DF bit where DONT-FRAGMENT asks for it.
    """
    tcp = _is_for_tcp(message, transport, config)
    mobile = mobility.wanted(message, config)
    # RFC 6062 ties connections to peers to where the allocation was made: it moves nowhere
    if tcp and mobile:
        raise Reject(ErrorCode.MOBILITY_FORBIDDEN)
    lifetime = read_lifetime(message, max_lifetime)
    token = message.get(a.RESERVATION_TOKEN)
    even_port = message.get(a.EVEN_PORT)
    requested = message.get(a.REQUESTED_ADDRESS_FAMILY)
    additional = message.get(a.ADDITIONAL_ADDRESS_FAMILY)
    if additional is None:
        additional = message.get(a.DRAFT_ADDITIONAL_ADDRESS_FAMILY)
    if token is not None:
        # 5: RESERVATION-TOKEN and "an EVEN-PORT or REQUESTED-ADDRESS-FAMILY or ADDITIONAL-ADDRESS-FAMILY": 400
        if even_port is not None or requested is not None or additional is not None:
            raise Reject(ErrorCode.BAD_REQUEST)
        return AllocateRequest((), lifetime, token=token, mobile=mobile)
    # 6: "both REQUESTED-ADDRESS-FAMILY and ADDITIONAL-ADDRESS-FAMILY attributes": 400
    if requested is not None and additional is not None:
        raise Reject(ErrorCode.BAD_REQUEST)
    if additional is not None:
        return _read_dual(additional, even_port, lifetime, config, mobile=mobile, tcp=tcp)
    # 7: "REQUESTED-ADDRESS-FAMILY attribute is absent": IPv4, or what the settings say; one that is not served: 440
    family = _family(requested) if requested is not None else default_family
    if family not in config.families:
        raise Reject(ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED)
    return AllocateRequest(
        (family,),
        lifetime,
        even_port=even_port is not None,
        reserve=even_port is not None and even_port.reserve,
        mobile=mobile,
        tcp=tcp,
    )


def _is_for_tcp(message: Message, transport: Transport, config: ServerConfig) -> bool:
    """Step 3: "If the REQUESTED-TRANSPORT attribute is not included or is malformed": 400; neither UDP nor TCP: 442.

    RFC 6062 section 5.1 for TCP: "If the client connection transport is not TCP or TLS": 400; "DONT-FRAGMENT,
    EVEN-PORT, or RESERVATION-TOKEN": 400. Where the operator has not opened it, the server is one without that RFC.
    """
    requested = message.get(a.REQUESTED_TRANSPORT)
    if requested is None:
        raise Reject(ErrorCode.BAD_REQUEST)
    if requested == UDP_PROTOCOL:
        return False
    if requested != TCP_PROTOCOL or not config.tcp:
        raise Reject(ErrorCode.UNSUPPORTED_TRANSPORT_PROTOCOL)
    if not transport.is_stream or _is_for_udp_alone(message):
        raise Reject(ErrorCode.BAD_REQUEST)
    return True


def _is_for_udp_alone(message: Message) -> bool:
    return a.DONT_FRAGMENT in message or a.EVEN_PORT in message or a.RESERVATION_TOKEN in message


def _family(number: int) -> Family:
    """Step 7: an address family that does not exist is not supported either."""
    try:
        return Family(number)
    except ValueError:
        raise Reject(ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED) from None


def _read_dual(
    additional: int, even_port: a.EvenPort | None, lifetime: int, config: ServerConfig, *, mobile: bool, tcp: bool
) -> AllocateRequest:
    """What a request for an address of each family asks for."""
    # 8: "EVEN-PORT attribute with the R bit set to 1" and "an ADDITIONAL-ADDRESS-FAMILY": 400
    if even_port is not None and even_port.reserve:
        raise Reject(ErrorCode.BAD_REQUEST)
    # 9: "the attribute value is 0x01 (IPv4 address family)": 400
    if additional != Family.IPV6:
        raise Reject(ErrorCode.BAD_REQUEST)
    # 9: "it can only allocate one relayed transport address of a specific address type": ADDRESS-ERROR-CODE
    served = tuple(family for family in (Family.IPV4, Family.IPV6) if family in config.families)
    if not served:
        raise Reject(ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED)
    missing = next((family for family in Family if family not in served), None)
    return AllocateRequest(
        served, lifetime, even_port=even_port is not None, dual=True, missing=missing, mobile=mobile, tcp=tcp
    )


def _open(
    state: State, message: Message, five_tuple: FiveTuple, proof: Proof, request: AllocateRequest, now: float
) -> None:
    """Create the allocation, and have its relay opened: opened() or failed() answers the request."""
    reserve = state.random(RESERVATION_TOKEN_SIZE) if request.reserve else None
    deadline = now + request.lifetime
    number = state.next_number
    state.next_number += 1
    allocation = Allocation(number, five_tuple, proof, now, message.transaction_id, tcp=request.tcp)
    state.allocations.add(allocation)
    state.pending[number] = PendingAllocation(allocation, message, proof, request, reserve, deadline)
    state.emit(
        OpenRelay(
            number,
            five_tuple,
            request.families,
            deadline,
            even_port=request.even_port,
            reserve=reserve,
            claim=request.token,
            bandwidth=state.config.rules_of(proof.realm).bandwidth,
            tcp=request.tcp,
        )
    )


def opened(
    state: State,
    pending: PendingAllocation,
    addresses: Sequence[Address],
    failures: Mapping[Family, ErrorCode],
    now: float,
) -> bytes:
    """The signed success response of an Allocate request whose relay is open.

    "The success response contains" XOR-RELAYED-ADDRESS for each address, LIFETIME, RESERVATION-TOKEN "if a second
    relayed transport address was reserved", and XOR-MAPPED-ADDRESS (section 7.2, its end).
    """
    allocation, request = pending.allocation, pending.request
    response = pending.message.reply(Class.SUCCESS)
    deadline = pending.deadline
    if now + request.lifetime > deadline + _BARELY:
        deadline = now + request.lifetime
        state.emit(ExtendRelay(allocation.number, deadline))
    for address in addresses:
        family = family_of(address.host)
        allocation.relayed[family] = address
        state.allocations.extend(allocation, family, deadline)
        response.add(a.XOR_RELAYED_ADDRESS, address)
    response.add(a.LIFETIME, request.lifetime).add(a.XOR_MAPPED_ADDRESS, allocation.five_tuple.client)
    if pending.reserve is not None:
        state.reservations.add(pending.reserve, allocation.owner, now + RESERVATION_LIFETIME)
        response.add(a.RESERVATION_TOKEN, pending.reserve)
    if request.missing is not None:
        _add_failure(response, request.missing, ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED)
    for family, code in failures.items():
        _add_failure(response, family, code)
    if request.mobile:
        allocation.tickets = 1
        mobility.add_ticket(state, allocation, response)
    add_software(state, response)
    allocation.response = state.sign(pending.message, response, pending.proof)
    state.emit(
        AllocationStarted(
            allocation.number,
            allocation.shown,
            allocation.five_tuple,
            tuple(addresses),
            request.lifetime,
            allocation.realm,
            took=now - pending.proof.claim.arrived,
            tcp=allocation.tcp,
        )
    )
    return allocation.response


def _add_failure(response: Message, family: Family, code: ErrorCode) -> None:
    response.add(a.ADDRESS_ERROR_CODE, a.AddressError(family, int(code), code.reason))


def failed(state: State, pending: PendingAllocation, code: ErrorCode) -> Reject | None:
    """Remove an allocation whose relay could not be opened; the refusal, unless the allocation ended before.

    9: "If the server cannot satisfy the request": 508, where neither family of a dual allocation could be opened.
    """
    if pending.request.token is not None:
        state.emit(ReleaseReservation(pending.request.token))
    if pending.abandoned:
        return None
    state.allocations.remove(pending.allocation)
    no_port = code is ErrorCode.INSUFFICIENT_CAPACITY and pending.request.token is None
    limit = "relay.ports" if no_port else None
    return Reject(ErrorCode.INSUFFICIENT_CAPACITY if pending.request.dual else code, limit=limit)


def close_abandoned(state: State, pending: PendingAllocation) -> None:
    """Close a relay that was opened after its allocation had ended, and release the port that was reserved with it."""
    state.emit(CloseRelay(pending.allocation.number))
    if pending.reserve is not None:
        state.emit(ReleaseReservation(pending.reserve))
