"""The requests of TURN, once it is known who asks (RFC 8656 sections 7 to 12).

Each handler answers with a success response, with the bytes of one that was signed before, or with None where the
answer comes later, and raises Reject.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, FiveTuple, family_of
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.framing import CHANNEL_FIRST
from turnsvr.stun.message import Class, Message
from turnsvr.turn.allocate import RESERVATION_TOKEN_SIZE, Wish, read_lifetime, read_wish
from turnsvr.turn.allocation import Allocation, Allocations
from turnsvr.turn.authentication import Proof
from turnsvr.turn.commands import (
    AllocationRefreshed,
    AllocationStarted,
    BindChannel,
    CloseRelay,
    Command,
    EndReason,
    ExtendRelay,
    OpenRelay,
    PeerRefused,
    Permit,
    ReleaseReservation,
)
from turnsvr.turn.config import CHANNEL_LIFETIME, PERMISSION_LIFETIME, RESERVATION_LIFETIME, ServerConfig
from turnsvr.turn.reject import Reject
from turnsvr.turn.reservations import Reservations

Answer = Message | bytes | None


_BARELY: Final = 0.1
"""Seconds that opening a relay may take of an allocation's lifetime."""


@final
class Opening:
    """An allocation whose relay is being opened."""

    __slots__ = ("abandoned", "allocation", "deadline", "message", "proof", "reserve", "wish")

    def __init__(
        self,
        allocation: Allocation,
        message: Message,
        proof: Proof,
        wish: Wish,
        reserve: bytes | None,
        deadline: float,
    ) -> None:
        self.allocation: Final = allocation
        self.message: Final = message
        self.proof: Final = proof
        self.wish: Final = wish
        self.reserve: Final = reserve
        self.deadline: Final = deadline
        self.abandoned = False
        """The allocation ended before its relay was there: what is opened is to be closed at once."""


@dataclass(slots=True)
class Desk:
    """What every handler works with."""

    config: ServerConfig
    random: Callable[[int], bytes]
    allocations: Allocations
    reservations: Reservations
    do: Callable[[Command], None]
    end: Callable[[Allocation, EndReason, float], None]
    draining: bool = False
    openings: dict[int, Opening] = field(default_factory=dict)
    next_number: int = 1
    redirected: int = 0

    def sign(self, message: Message, response: Message, proof: Proof) -> bytes:
        """The response to message, encoded."""
        return proof.sign(response, fingerprint=a.FINGERPRINT in message)


def allocate(desk: Desk, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Answer:
    """RFC 8656 section 7.2; the numbers are its steps."""
    existing = desk.allocations.of(five_tuple)
    if existing is not None:  # 2
        return _answer_again(existing, message, proof)
    wish = read_wish(message, desk.config)  # 3 to 9
    _redirect(desk, five_tuple)  # 11
    _check_quotas(desk, proof, wish)  # 10
    if wish.token is not None and not desk.reservations.take(wish.token):  # 5, last: a refused request keeps its token
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)
    _open(desk, message, five_tuple, proof, wish, now)
    return None


def _answer_again(allocation: Allocation, message: Message, proof: Proof) -> bytes | None:
    """A retransmission gets the same answer; another Allocate on the five-tuple is 437."""
    if allocation.transaction_id != message.transaction_id or not _made_by(allocation, proof):
        raise Reject(ErrorCode.ALLOCATION_MISMATCH)
    return allocation.response or None


def _redirect(desk: Desk, five_tuple: FiveTuple) -> None:
    """300 with ALTERNATE-SERVER of the client's family first, then one of the other (RFC 8489 section 10)."""
    redirect = desk.config.redirect
    if redirect is None or not (redirect.always or _is_full(desk)):
        return
    family = five_tuple.client.family
    same = [address for address in redirect.to if address.family is family]
    other = [address for address in redirect.to if address.family is not family]
    if not same:
        return
    turn = desk.redirected
    desk.redirected += 1

    def details(response: Message) -> None:
        response.add(a.ALTERNATE_SERVER, same[turn % len(same)])
        if other:
            response.add(a.ALTERNATE_SERVER, other[turn % len(other)])
        if redirect.domain is not None:
            response.add(a.ALTERNATE_DOMAIN, redirect.domain)

    raise Reject(ErrorCode.TRY_ALTERNATE, details=details)


def _check_quotas(desk: Desk, proof: Proof, wish: Wish) -> None:
    """The bounds of the server, of the realm, and of the user, for whom as many ports may be held as be allocated."""
    config, realm = desk.config, desk.config.rules_of(proof.realm)
    if _is_full(desk):
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)
    opening = [one.allocation.owner for one in desk.openings.values() if one.reserve is not None]
    if wish.reserve and len(desk.reservations) + len(opening) >= config.reservations:
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)
    if realm.allocations and desk.allocations.count_realm(proof.realm) >= realm.allocations:
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED)
    most = proof.key.quota if proof.key.quota is not None else realm.allocations_per_user or None
    if most is None:
        return
    owner = (proof.realm, proof.key.quota_user)
    reserved = desk.reservations.count(owner) + opening.count(owner)
    if desk.allocations.count(owner) >= most or (wish.reserve and reserved >= most):
        raise Reject(ErrorCode.ALLOCATION_QUOTA_REACHED)


def _is_full(desk: Desk) -> bool:
    """Whether there is no room for another allocation; relays that are still to be closed count."""
    abandoned = sum(opening.abandoned for opening in desk.openings.values())
    return desk.draining or len(desk.allocations) + abandoned >= desk.config.allocations


def _open(desk: Desk, message: Message, five_tuple: FiveTuple, proof: Proof, wish: Wish, now: float) -> None:
    reserve = desk.random(RESERVATION_TOKEN_SIZE) if wish.reserve else None
    deadline = now + wish.lifetime
    number = desk.next_number
    desk.next_number += 1
    allocation = Allocation(number, five_tuple, proof.realm, proof.key, now, message.transaction_id)
    desk.allocations.add(allocation)
    desk.openings[number] = Opening(allocation, message, proof, wish, reserve, deadline)
    desk.do(
        OpenRelay(
            number,
            five_tuple,
            wish.families,
            deadline,
            even_port=wish.even_port,
            reserve=reserve,
            claim=wish.token,
            bandwidth=desk.config.rules_of(proof.realm).bandwidth,
        )
    )


def relay_opened(
    desk: Desk, opening: Opening, addresses: Sequence[Address], failures: Mapping[Family, ErrorCode], now: float
) -> bytes:
    """The signed success response of an Allocate request whose relay is open (RFC 8656 section 7.2, its end)."""
    allocation, wish = opening.allocation, opening.wish
    response = opening.message.reply(Class.SUCCESS)
    deadline = opening.deadline
    if now + wish.lifetime > deadline + _BARELY:
        deadline = now + wish.lifetime
        desk.do(ExtendRelay(allocation.number, deadline))
    for address in addresses:
        family = family_of(address.host)
        allocation.relayed[family] = address
        desk.allocations.extend(allocation, family, deadline)
        response.add(a.XOR_RELAYED_ADDRESS, address)
    response.add(a.LIFETIME, wish.lifetime).add(a.XOR_MAPPED_ADDRESS, allocation.five_tuple.client)
    if opening.reserve is not None:
        desk.reservations.add(opening.reserve, allocation.owner, now + RESERVATION_LIFETIME)
        response.add(a.RESERVATION_TOKEN, opening.reserve)
    if wish.missing is not None:
        _add_failure(response, wish.missing, ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED)
    for family, code in failures.items():
        _add_failure(response, family, code)
    add_software(desk, response)
    allocation.response = desk.sign(opening.message, response, opening.proof)
    desk.do(
        AllocationStarted(
            allocation.number,
            allocation.shown,
            allocation.five_tuple,
            tuple(addresses),
            wish.lifetime,
            allocation.realm,
            took=now - opening.proof.claim.arrived,
        )
    )
    return allocation.response


def _add_failure(response: Message, family: Family, code: ErrorCode) -> None:
    response.add(a.ADDRESS_ERROR_CODE, a.AddressError(family, int(code), code.reason))


def relay_failed(desk: Desk, opening: Opening, code: ErrorCode) -> Reject | None:
    """Forget an allocation whose relay could not be opened; neither family of a dual one is 508 (step 9)."""
    if opening.wish.token is not None:
        desk.do(ReleaseReservation(opening.wish.token))
    if opening.abandoned:
        return None
    desk.allocations.remove(opening.allocation)
    return Reject(ErrorCode.INSUFFICIENT_CAPACITY if opening.wish.dual else code)


def close_abandoned(desk: Desk, opening: Opening) -> None:
    """Close a relay, and give up the port held with it, that came after its allocation had ended."""
    desk.do(CloseRelay(opening.allocation.number))
    if opening.reserve is not None:
        desk.do(ReleaseReservation(opening.reserve))


def refresh(desk: Desk, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Answer:
    """RFC 8656 section 8.2."""
    finished = desk.allocations.finished(five_tuple, message.transaction_id, now)
    if finished is not None:
        return finished
    allocation = _allocation(desk, five_tuple, proof)
    families = _refreshed_families(allocation, message)
    if message.get(a.LIFETIME) == 0:
        return _delete(desk, allocation, families, message, proof, now)
    lifetime = read_lifetime(message, desk.config)
    for family in families:
        desk.allocations.extend(allocation, family, now + lifetime)
    desk.do(ExtendRelay(allocation.number, max(allocation.expires.values())))
    desk.do(AllocationRefreshed(allocation.number, lifetime))
    response = message.reply(Class.SUCCESS).add(a.LIFETIME, lifetime)
    add_software(desk, response)
    return response


def _refreshed_families(allocation: Allocation, message: Message) -> list[Family]:
    requested = message.get(a.REQUESTED_ADDRESS_FAMILY)
    if requested is None:
        return list(allocation.relayed)
    family = next((family for family in allocation.relayed if family == requested), None)
    if family is None:
        raise Reject(ErrorCode.PEER_ADDRESS_FAMILY_MISMATCH)
    return [family]


def _delete(
    desk: Desk, allocation: Allocation, families: list[Family], message: Message, proof: Proof, now: float
) -> bytes:
    """End these families, and keep the answer: the same request again finds nothing to end."""
    response = message.reply(Class.SUCCESS).add(a.LIFETIME, 0)
    add_software(desk, response)
    if len(families) < len(allocation.relayed):
        _close_family(desk, allocation, families[0])
    else:
        desk.end(allocation, EndReason.REFRESHED_TO_ZERO, now)
    data = desk.sign(message, response, proof)
    desk.allocations.finish(allocation.five_tuple, message.transaction_id, data, now)
    return data


def expire_family(desk: Desk, allocation: Allocation, family: Family, now: float) -> None:
    """The relay of one family is past its deadline; the last one takes the allocation along."""
    if len(allocation.relayed) > 1:
        _close_family(desk, allocation, family)
    else:
        desk.end(allocation, EndReason.EXPIRED, now)


def _close_family(desk: Desk, allocation: Allocation, family: Family) -> None:
    desk.allocations.drop_family(allocation, family)
    desk.do(CloseRelay(allocation.number, family))


def create_permission(desk: Desk, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Message:
    """RFC 8656 section 10.2: all of the addresses or none."""
    allocation = _allocation(desk, five_tuple, proof)
    peers = list(message.all(a.XOR_PEER_ADDRESS))
    if not peers:
        raise Reject(ErrorCode.BAD_REQUEST)
    for peer in peers:
        _check_peer(desk, allocation, peer)
    hosts = dict.fromkeys([peer.host for peer in peers])
    added = sum([host not in allocation.permissions for host in hosts])
    _check_room(len(allocation.permissions) + added, desk.config.permissions_per_allocation)
    for host in hosts:
        _permit(desk, allocation, host, now + PERMISSION_LIFETIME)
    return message.reply(Class.SUCCESS)


def channel_bind(desk: Desk, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Message:
    """RFC 8656 section 12.2, but that the permission lives as long as the channel, not for 5 minutes.

    coturn does so, and there are clients that refresh their channels alone.
    """
    allocation = _allocation(desk, five_tuple, proof)
    number, peer = message.get(a.CHANNEL_NUMBER), message.get(a.XOR_PEER_ADDRESS)
    if number is None or peer is None or peer.port == 0:
        raise Reject(ErrorCode.BAD_REQUEST)
    if not CHANNEL_FIRST <= number <= desk.config.channel_last:
        raise Reject(ErrorCode.BAD_REQUEST)
    if allocation.channel(number, now) not in (None, peer) or allocation.channel_of(peer, now) not in (None, number):
        raise Reject(ErrorCode.BAD_REQUEST)
    _check_peer(desk, allocation, peer)
    _check_room(len(allocation.channels) + (number not in allocation.channels), desk.config.channels_per_allocation)
    added = peer.host not in allocation.permissions
    _check_room(len(allocation.permissions) + added, desk.config.permissions_per_allocation)
    deadline = now + CHANNEL_LIFETIME
    desk.allocations.bind(allocation, number, peer, deadline)
    _permit(desk, allocation, peer.host, deadline)
    desk.do(BindChannel(allocation.number, number, peer, deadline))
    return message.reply(Class.SUCCESS)


def release(desk: Desk, token: bytes) -> None:
    """Give up a held port."""
    desk.reservations.take(token)
    desk.do(ReleaseReservation(token))


def _allocation(desk: Desk, five_tuple: FiveTuple, proof: Proof) -> Allocation:
    """The allocation that a request is about; its user must have made it (RFC 8656 section 5)."""
    allocation = desk.allocations.of(five_tuple)
    if allocation is None or not allocation.relayed:
        raise Reject(ErrorCode.ALLOCATION_MISMATCH)
    if not _made_by(allocation, proof):
        raise Reject(ErrorCode.WRONG_CREDENTIALS)
    return allocation


def _made_by(allocation: Allocation, proof: Proof) -> bool:
    """Users of one name in two realms are two."""
    return allocation.realm == proof.realm and allocation.username == proof.key.username


def _check_peer(desk: Desk, allocation: Allocation, peer: Address) -> None:
    if family_of(peer.host) not in allocation.relayed:
        raise Reject(ErrorCode.PEER_ADDRESS_FAMILY_MISMATCH)
    reason = desk.config.rules_of(allocation.realm).policy.refusal(peer.host)
    if reason is not None:
        number, realm = allocation.number, allocation.realm
        desk.do(PeerRefused(number, allocation.shown, allocation.five_tuple, peer, reason, realm))
        raise Reject(ErrorCode.FORBIDDEN)


def _check_room(size: int, bound: int) -> None:
    if size > bound:
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY)


def _permit(desk: Desk, allocation: Allocation, host: str, deadline: float) -> None:
    """Install a permission, or extend it: that of a channel, which lives longer, is never shortened."""
    deadline = max(deadline, allocation.permissions.get(host, deadline))
    desk.allocations.permit(allocation, host, deadline)
    desk.do(Permit(allocation.number, host, deadline))


def add_software(desk: Desk, response: Message) -> None:
    """SOFTWARE, where the operator lets it be told."""
    if desk.config.software is not None:
        response.add(a.SOFTWARE, desk.config.software)
