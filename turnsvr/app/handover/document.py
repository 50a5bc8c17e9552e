"""The values of a hand-over as JSON, version 1: what the pump and the streams know, next to what the rules write.

docs/decisions/snapshot.md describes them. What is read is checked as turn/snapshot.py does it: Unreadable says what was
not understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from typing import Final

from turnsvr.app.handover.wire import MOST_DESCRIPTORS
from turnsvr.net.movable import GivenConnection
from turnsvr.relay.counts import Counters, Drop, Totals
from turnsvr.relay.moving import BoundSocket, SessionState, StreamRest
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.turn.snapshot import (
    Document,
    Unreadable,
    Value,
    check_names,
    read_address,
    read_bool,
    read_bytes,
    read_document,
    read_five_tuple,
    read_float,
    read_int,
    read_list,
    read_row,
    read_str,
    write_bytes,
    write_five_tuple,
)

VERSION: Final = 1
"""The version of every message, from the first one on."""
READABLE: Final = (1,)

_NUMBERS: Final = tuple(each.name for each in fields(Totals) if each.name not in ("relayed", "drops"))

SESSIONS_AT_ONCE: Final = MOST_DESCRIPTORS // 2
"""In one message: each has two relays at the most."""


@dataclass(frozen=True, slots=True)
class MovedSession:
    """A session as it crosses."""

    allocation: Document
    state: SessionState


@dataclass(frozen=True, slots=True)
class Staying:
    """A session that stays in its process."""

    number: int
    realm: str
    quota_user: str
    relayed: tuple[Address, ...]


def write_session(session: MovedSession) -> Document:
    """Its descriptors cross beside it, those of its relays in their order."""
    state = session.state
    return {
        "allocation": session.allocation,
        "relays": [[*each.host, *each.advertised] for each in state.relays],
        "counters": write_counters(state.counters),
        "levels": list(state.levels),
        "at": state.at,
        "bandwidth": state.bandwidth,
    }


def relays_of(value: Value) -> int:
    """How many descriptors belong to a session. Raises Unreadable."""
    return len(read_list(read_document(value, "session").get("relays"), "relays"))


def read_session(value: Value, descriptors: list[int]) -> MovedSession:
    """descriptors: as many as relays_of() says. Raises Unreadable."""
    document = read_document(value, "session")
    check_names(document, "allocation relays counters levels at bandwidth")
    relays = []
    for each, descriptor in zip(read_list(document["relays"], "relays"), descriptors, strict=True):
        host, port, advertised, advertised_port = read_row(each, 4, "relays")
        relays.append(BoundSocket(descriptor, read_address([host, port]), read_address([advertised, advertised_port])))
    from_client, to_client = read_row(document["levels"], 2, "levels")
    bandwidth = document["bandwidth"]
    state = SessionState(
        tuple(relays),
        read_counters(document["counters"]),
        (read_float(from_client, "levels"), read_float(to_client, "levels")),
        read_float(document["at"], "at"),
        None if bandwidth is None else read_float(bandwidth, "bandwidth"),
    )
    return MovedSession(read_document(document["allocation"], "allocation"), state)


def write_counters(counters: Counters) -> list[int]:
    """Of every session that moves: dataclasses.astuple() copies each number by a function of its own."""
    return [
        counters.packets_from_client,
        counters.bytes_from_client,
        counters.packets_to_client,
        counters.bytes_to_client,
        counters.dropped,
    ]


def read_counters(value: Value) -> Counters:
    """Raises Unreadable."""
    return Counters(*[read_int(each, "counters") for each in read_row(value, 5, "counters")])


def write_connection(each: GivenConnection) -> Value:
    return [*each.client, *each.server, *each.through, each.number, each.asked_at, each.is_silent]


def read_connection(value: Value, descriptor: int) -> GivenConnection:
    """Raises Unreadable."""
    host, port, server, server_port, through, its_port, number, asked_at, is_silent = read_row(value, 9, "connection")
    return GivenConnection(
        descriptor,
        read_address([host, port]),
        read_address([server, server_port]),
        read_address([through, its_port]),
        read_int(number, "connection"),
        read_float(asked_at, "connection"),
        read_bool(is_silent, "connection"),
    )


def write_held(token: bytes, held: BoundSocket) -> Value:
    return ["held", write_bytes(token), *held.host, *held.advertised]


def read_held(row: list[Value], descriptor: int) -> tuple[bytes, BoundSocket]:
    """Raises Unreadable."""
    _, token, host, port, advertised, advertised_port = read_row(row, 6, "held")
    bound = BoundSocket(descriptor, read_address([host, port]), read_address([advertised, advertised_port]))
    return read_bytes(token, "token"), bound


def write_staying(staying: Iterable[Staying]) -> Value:
    return [[each.number, each.realm, each.quota_user, [list(address) for address in each.relayed]] for each in staying]


def read_staying(value: Value) -> list[Staying]:
    """Raises Unreadable."""
    found = []
    for each in read_list(value, "staying"):
        number, realm, user, relayed = read_row(each, 4, "staying")
        addresses = tuple(read_address(address) for address in read_list(relayed, "staying"))
        found.append(
            Staying(read_int(number, "staying"), read_str(realm, "staying"), read_str(user, "staying"), addresses)
        )
    return found


def write_rests(rests: Mapping[FiveTuple, StreamRest]) -> Value:
    return [[write_five_tuple(who), write_bytes(rest.pending), write_bytes(rest.output)] for who, rest in rests.items()]


def read_rests(value: Value) -> dict[FiveTuple, StreamRest]:
    """Raises Unreadable."""
    rests = {}
    for each in read_list(value, "rests"):
        who, pending, output = read_row(each, 3, "rests")
        rests[read_five_tuple(who)] = StreamRest(read_bytes(pending, "rests"), read_bytes(output, "rests"))
    return rests


def write_waiting(waiting: Mapping[FiveTuple, Iterable[bytes]]) -> Value:
    return [[write_five_tuple(who), [write_bytes(each) for each in messages]] for who, messages in waiting.items()]


def read_waiting(value: Value) -> list[tuple[FiveTuple, list[bytes]]]:
    """Raises Unreadable."""
    found = []
    for each in read_list(value, "waiting"):
        who, messages = read_row(each, 2, "waiting")
        found.append((read_five_tuple(who), [read_bytes(data, "waiting") for data in read_list(messages, "waiting")]))
    return found


def with_descriptors(session: MovedSession, descriptors: Iterable[int]) -> MovedSession:
    """The session on other descriptors, those of its relays in their order."""
    relays = tuple(
        replace(each, descriptor=other) for each, other in zip(session.state.relays, descriptors, strict=True)
    )
    return replace(session, state=replace(session.state, relays=relays))


def check_version(value: Value) -> None:
    """Raises Unreadable for one that is not understood here."""
    if value not in READABLE:
        raise Unreadable(f"version {value!a} is not understood here, which reads {', '.join(map(str, READABLE))}")


def read_run(value: Value) -> str:
    """The name of a run: 12 hexadecimal digits. Raises Unreadable."""
    name = read_str(value, "run")
    if len(name) != 12 or not set(name) <= set("0123456789abcdef"):
        raise Unreadable("run is no name of one")
    return name


def write_totals(totals: Totals) -> Document:
    return {
        "relayed": list(astuple(totals.relayed)),
        "drops": {drop.value: count for drop, count in totals.drops.items()},
        "others": [getattr(totals, name) for name in _NUMBERS],
    }


def read_totals(value: Value) -> Totals:
    """A reason for dropping that is not known here is left out. Raises Unreadable."""
    document = read_document(value, "totals")
    check_names(document, "relayed drops others")
    drops = read_document(document["drops"], "drops")
    counts = {drop: read_int(drops.get(drop.value, 0), "drops") for drop in Drop}
    others = [read_int(each, "totals") for each in read_row(document["others"], len(_NUMBERS), "totals")]
    return Totals(read_counters(document["relayed"]), counts, **dict(zip(_NUMBERS, others, strict=True)))


def sum_totals(one: Totals, other: Totals) -> Totals:
    drops = {drop: one.drops[drop] + other.drops[drop] for drop in Drop}
    return Totals(
        one.relayed + other.relayed, drops, **{name: getattr(one, name) + getattr(other, name) for name in _NUMBERS}
    )
