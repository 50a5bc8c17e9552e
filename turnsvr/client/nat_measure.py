"""The measurements of RFC 5780, each a coroutine over sockets of its own, so that none spoils another's state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from turnsvr.client import nat_rules
from turnsvr.client.link import DatagramLink, new_request
from turnsvr.client.nat_model import Fragments, Possible, Told
from turnsvr.client.nat_rules import Behaviour, Seen
from turnsvr.client.nat_sockets import Answer, Sockets, mtu_towards
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


NOT_MAPPED = Possible(frozenset({Behaviour.ENDPOINT_INDEPENDENT}))
"""Without a NAT the mapped address is the local one, whoever asks (RFC 5780 section 4.3)."""


async def mapping(sockets: Sockets, link: DatagramLink, first: Answer, second: Address | None) -> Possible:
    """Tests I to III of RFC 5780 section 4.3; a second server stands in where the first has no other address.

    first is the answer that the server's primary address gave to link.
    """
    seen = [Seen(sockets.server, first.mapped)]
    silent = []
    for destination in _destinations(sockets.server, first.other, second):
        if len(nat_rules.mapping(seen)) <= 1:
            break
        try:
            seen.append(Seen(destination, (await sockets.binding(link, destination)).mapped))
        except UNANSWERED:
            silent.append(destination)
    return Possible(nat_rules.mapping(seen), _mapping_note(seen, silent, first.other))


def _destinations(server: Address, other: Address | None, second: Address | None) -> list[Address]:
    found = []
    if other is not None:
        found = [Address(other.host, server.port), other, Address(server.host, other.port)]
    if second is not None:
        found.append(second)
    return [destination for destination in dict.fromkeys(found) if destination != server]


def _mapping_note(seen: list[Seen], silent: list[Address], other: Address | None) -> str:
    possible = nat_rules.mapping(seen)
    if len(possible) == 1:
        return ""
    if not possible:
        return "the mapped address differed from test to test in a way that fits no rule"
    if silent:
        return f"nothing answered at {', '.join(map(str, silent))}"
    hosts = {each.destination.host for each in seen}
    if other is None and len(hosts) == 1:
        return "the server has no second address; name a second server"
    if len(hosts) == 1:
        return "the server has one address only; name a second server"
    return "two servers tell no more"


async def filtering(sockets: Sockets, other: Address | None) -> Possible:
    """Tests II and III of RFC 5780 section 4.4, each from a fresh socket."""
    both, port = await asyncio.gather(
        _changed(sockets, _CHANGE_IP | _CHANGE_PORT, promised=other is not None and other.host != sockets.server.host),
        _changed(sockets, _CHANGE_PORT, promised=other is not None),
    )
    possible = nat_rules.filtering(both.value, port.value)
    return Possible(possible, "" if len(possible) == 1 else both.note or port.note)


async def _changed(sockets: Sockets, change: int, *, promised: bool) -> Told[bool]:
    """Whether an answer from elsewhere arrives. Silence counts only where the server promised to answer from there."""
    link = await sockets.open()
    try:
        answer = await sockets.persistent_binding(link, CHANGE_REQUEST, change)
    except TransactionTimeout as silence:
        if not promised:
            return Told(None, "the server has no second address to answer from")
        return Told(False) if sockets.silence_counts(silence.sent) else Told(None, LOSSY)
    except (TransactionFailed, MalformedMessage, OSError):
        return Told(None, "the server has no second address to answer from")
    source, server = answer.response.source, sockets.server
    obeyed = source.port != server.port and (source.host != server.host) == bool(change & _CHANGE_IP)
    return Told(True) if obeyed else Told(None, "the server ignores CHANGE-REQUEST")


async def hairpinning(sockets: Sockets) -> Told[bool]:
    """Whether a packet to this NAT's own outside comes back in (RFC 5780 section 3.4).

    Two sockets send to each other's mapped address, as two peers behind the NAT would, so that each one's
    sending opens the filter for the other.
    """
    links = [await sockets.open(), await sockets.open()]
    try:
        mapped = [(await sockets.plain_binding(link)).mapped for link in links]
    except UNANSWERED:
        return Told(None, "no mapped address to send to")
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
            return Told(True, "the sender's local address shows" if inside else "the sender's mapped address shows")
    arrived.cancel()
    return Told(False) if sockets.silence_counts(sent) else Told(None, LOSSY)


@dataclass(frozen=True, slots=True)
class Ports:
    """What happened to the local ports."""

    preservation: Told[bool]
    parity: Told[bool]


async def ports(sockets: Sockets) -> Ports:
    """Port preservation and parity (RFC 4787 section 4.2), over even and odd ports alike."""
    pairs = []
    for number in range(_PORT_SAMPLES):
        link = await sockets.open(lambda port, parity=number % 2: port % 2 == parity)  # type: ignore[misc]
        try:
            pairs.append((link.local.port, (await sockets.plain_binding(link)).mapped.port))
        except UNANSWERED:
            continue
    if not pairs:
        return Ports(Told(None, "no answers"), Told(None, "no answers"))
    kept = sum(local == mapped for local, mapped in pairs)
    same_parity = sum(local % 2 == mapped % 2 for local, mapped in pairs)
    of = f"of {len(pairs)} ports"
    return Ports(
        Told(kept == len(pairs), f"{kept} {of} kept"),
        Told(same_parity == len(pairs), f"{same_parity} {of} kept theirs"),
    )


async def fragments(sockets: Sockets) -> Told[Fragments]:
    """What becomes of a Binding request that is larger than the MTU, and of its answer (RFC 5780 section 3.5)."""
    mtu = mtu_towards(sockets.server)
    if mtu is None:
        return Told(None, "this system does not say the MTU")
    size = mtu + -mtu % 4
    if size > _LARGEST_PADDING:
        return Told(None, f"the MTU here is {mtu} bytes, nothing is fragmented")
    link = await sockets.open()
    try:
        answer = await sockets.persistent_binding(link, PADDING, bytes(size))
    except TransactionTimeout as silence:
        return Told(Fragments.LOST) if sockets.silence_counts(silence.sent) else Told(None, LOSSY)
    except TransactionFailed:
        return Told(Fragments.OUTBOUND, "the server sends none back")
    except (MalformedMessage, OSError) as error:
        return Told(None, str(error))
    returned = answer.response.message.get(PADDING) or b""
    if len(returned) < size:
        return Told(Fragments.OUTBOUND, "the server sends none back")
    return Told(Fragments.BOTH_WAYS)
