"""The measurements of RFC 5780, each a coroutine over sockets of its own, so that none spoils another's state."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from turnsvr.client import nat_rules
from turnsvr.client.link import DatagramLink, new_request
from turnsvr.client.nat_model import Finding, Fragments, Possible
from turnsvr.client.nat_rules import Behaviour, Seen
from turnsvr.client.nat_sockets import BindingResponse, NatSockets, mtu_towards
from turnsvr.client.transaction import TransactionFailed, TransactionTimeout
from turnsvr.stun.address import Address
from turnsvr.stun.attributes import CHANGE_REQUEST, PADDING
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Method

_CHANGE_IP = 0x04
_CHANGE_PORT = 0x02
_PORT_SAMPLES = 8
"""Sockets for port preservation and parity: that chance keeps the parity of all eight is 1 in 256."""
_LARGEST_PADDING = 9216
"""Bytes; with a larger MTU (loopback has 64 KiB) nothing is fragmented."""

UNANSWERED = (TransactionTimeout, TransactionFailed, MalformedMessage, OSError)
LOSSY = "too many packets are lost here to tell silence from filtering"


_NO_SECOND = "the server has no second address to answer from"

_NOT_MAPPED = Possible(frozenset({Behaviour.ENDPOINT_INDEPENDENT}))
"""Without a NAT the mapped address is the local one at every server (RFC 5780 section 4.3)."""


@dataclass(frozen=True, slots=True)
class Behaviours:
    """How the NAT maps and filters."""

    mapping: Possible
    filtering: Possible


async def behaviours(
    sockets: NatSockets, link: DatagramLink, first: BindingResponse, second: Address | None
) -> Behaviours:
    """The tests of RFC 5780 sections 4.3 and 4.4; a second server stands in where the first has no other address.

    first is the answer that the server's primary address gave to link. That link asks every other address of the
    server directly, which tells the mapping. It also tells which of them work, so that an answer from there that
    does not arrive at a fresh socket has been filtered and was not missing.
    """
    server, other = sockets.server, first.other
    mapped, both, port = await asyncio.gather(
        _ask(sockets, link, _destinations(server, other, second)),
        _changed(sockets, _CHANGE_IP | _CHANGE_PORT),
        _changed(sockets, _CHANGE_PORT),
    )
    alive = [Seen(destination, address) for destination, address in mapped.items() if address is not None]
    works = {each.destination for each in alive}
    same_host = other is not None and other.host == server.host
    both = _trusted(both, None if same_host else other, works)
    port = _trusted(port, Address(server.host, other.port) if other else None, works)
    filtered = nat_rules.filtering(both.value, port.value)
    filtering = Possible(filtered, "" if len(filtered) == 1 else both.note or port.note)
    if first.mapped == link.local:
        return Behaviours(_NOT_MAPPED, filtering)
    silent = [destination for destination in mapped if destination not in works]
    return Behaviours(_mapping([Seen(server, first.mapped), *alive], silent, other), filtering)


def _destinations(server: Address, other: Address | None, second: Address | None) -> list[Address]:
    found = []
    if other is not None:
        found = [Address(other.host, server.port), other, Address(server.host, other.port)]
    if second is not None:
        found.append(second)
    return [destination for destination in dict.fromkeys(found) if destination != server]


async def _ask(
    sockets: NatSockets, link: DatagramLink, destinations: Iterable[Address]
) -> dict[Address, Address | None]:
    """The mapped address that each destination saw; None where nothing came back."""

    async def ask(destination: Address) -> Address | None:
        try:
            return (await sockets.persistent_binding(link, destination)).mapped
        except UNANSWERED:
            return None

    asked = tuple(destinations)
    return dict(zip(asked, await asyncio.gather(*map(ask, asked)), strict=True))


def _mapping(seen: Sequence[Seen], silent: Sequence[Address], other: Address | None) -> Possible:
    possible = nat_rules.mapping(seen)
    if len(possible) == 1:
        return Possible(possible)
    if not possible:
        return Possible(possible, "the mapped address differed from test to test in a way that fits no rule")
    if silent:
        return Possible(possible, f"nothing answered at {', '.join(map(str, silent))}")
    if len({each.destination.host for each in seen}) > 1:
        return Possible(possible, "two servers tell no more")
    has = "one address only" if other else "no second address"
    return Possible(possible, f"the server has {has}; name a second server")


def _trusted(arrived: Finding[bool], origin: Address | None, alive: Collection[Address]) -> Finding[bool]:
    """What a CHANGE-REQUEST test says, given where its answer should have come from and which addresses work."""
    if arrived.value is not False:
        return arrived
    if origin is None:
        return Finding(None, _NO_SECOND)
    if origin not in alive:
        return Finding(None, f"nothing answers at {origin}, where the server says that it would answer from")
    return arrived


async def _changed(sockets: NatSockets, change: int) -> Finding[bool]:
    """Whether an answer from elsewhere arrives at a fresh socket; False for silence that loss does not explain."""
    link = await sockets.open()
    request = new_request(Method.BINDING).add(CHANGE_REQUEST, change)
    try:
        answer = await sockets.persistent_binding(link, request=request)
    except TransactionTimeout as silence:
        return Finding(False) if sockets.silence_counts(silence.sent) else Finding(None, LOSSY)
    except (TransactionFailed, MalformedMessage, OSError):
        return Finding(None, _NO_SECOND)
    source, server = answer.response.source, sockets.server
    obeyed = source.port != server.port and (source.host != server.host) == bool(change & _CHANGE_IP)
    return Finding(True) if obeyed else Finding(None, "the server ignores CHANGE-REQUEST")


async def hairpinning(sockets: NatSockets) -> Finding[bool]:
    """Whether a packet to this NAT's own outside comes back in (RFC 5780 section 3.4).

    Two sockets send to each other's mapped address, as two peers behind the NAT would, so that each one's
    sending opens the filter for the other.
    """
    links = [await sockets.open(), await sockets.open()]
    try:
        mapped = [(await sockets.plain_binding(link)).mapped for link in links]
    except UNANSWERED:
        return Finding(None, "no mapped address to send to")
    arrived: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    expected = [new_request(Method.BINDING), new_request(Method.BINDING)]
    known = {request.encode() for request in expected}

    def receive(frame: bytes, source: Address) -> None:
        if frame in known and not arrived.done():
            arrived.set_result(source)

    for link in links:
        link.handler = receive
    await sockets.turn()
    sent = 0
    for wait in sockets.patient_waits():
        sent += 1
        links[0].send(expected[0].encode(), mapped[1])
        links[1].send(expected[1].encode(), mapped[0])
        done, _ = await asyncio.wait([arrived], timeout=wait)
        if done:
            inside = arrived.result() in {link.local for link in links}
            return Finding(True, "the sender's local address shows" if inside else "the sender's mapped address shows")
    arrived.cancel()
    return Finding(False) if sockets.silence_counts(sent) else Finding(None, LOSSY)


@dataclass(frozen=True, slots=True)
class PortFindings:
    """What happened to the local ports."""

    preservation: Finding[bool]
    parity: Finding[bool]


async def ports(sockets: NatSockets) -> PortFindings:
    """Port preservation and parity (RFC 4787 section 4.2), over even and odd ports alike."""
    pairs = []
    for number in range(_PORT_SAMPLES):
        link = await sockets.open(lambda port, parity=number % 2: port % 2 == parity)  # type: ignore[misc]
        try:
            pairs.append((link.local.port, (await sockets.plain_binding(link)).mapped.port))
        except UNANSWERED:
            continue
    if not pairs:
        return PortFindings(Finding(None, "no answers"), Finding(None, "no answers"))
    kept = sum(local == mapped for local, mapped in pairs)
    same_parity = sum(local % 2 == mapped % 2 for local, mapped in pairs)
    return PortFindings(_all(kept, len(pairs)), _all(same_parity, len(pairs)))


def _all(kept: int, of: int) -> Finding[bool]:
    return Finding(kept == of, f"{kept} of {of} ports" if 0 < kept < of else "")


async def fragments(sockets: NatSockets) -> Finding[Fragments]:
    """What becomes of a Binding request that is larger than the MTU, and of its answer (RFC 5780 section 3.5)."""
    mtu = mtu_towards(sockets.server)
    if mtu is None:
        return Finding(None, "this system does not say the MTU")
    size = mtu + -mtu % 4
    if size > _LARGEST_PADDING:
        return Finding(None, f"the MTU here is {mtu} bytes, nothing is fragmented")
    link = await sockets.open()
    request = new_request(Method.BINDING).add(PADDING, bytes(size))
    try:
        answer = await sockets.persistent_binding(link, request=request)
    except TransactionTimeout as silence:
        return Finding(Fragments.LOST) if sockets.silence_counts(silence.sent) else Finding(None, LOSSY)
    except TransactionFailed:
        return Finding(Fragments.OUTBOUND, "the server sends none back")
    except (MalformedMessage, OSError) as error:
        return Finding(None, str(error))
    returned = answer.response.message.get(PADDING) or b""
    if len(returned) < size:
        return Finding(Fragments.OUTBOUND, "the server sends none back")
    return Finding(Fragments.BOTH_WAYS)
