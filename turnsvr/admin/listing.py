"""Which sessions a list shows: filters, order, pages. Pure: what it needs to know are arguments."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from turnsvr.admin.context import Allocation
from turnsvr.admin.rates import Rates
from turnsvr.credentials.shown import shown

Sort = Literal[
    "id", "-id", "user", "-user", "age", "-age", "remaining", "-remaining", "rate", "-rate", "bytes", "-bytes"
]
"""A minus means the other way round: largest, youngest, last first."""


_ENDPOINT = re.compile(r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::([0-9]{1,5}))?", re.ASCII)


class BadRequest(ValueError):
    """What was asked for means nothing; the text says why."""


class EndpointFilter(NamedTuple):
    """An address to filter by, with any port where none is given."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> EndpointFilter:
        """`192.0.2.1`, `192.0.2.1:3478`, `2001:db8::1` or `[2001:db8::1]:3478`; raises BadRequest."""
        match = _ENDPOINT.fullmatch(text.strip())
        try:
            if match is None:
                return cls(str(ipaddress.ip_address(text.strip())), None)
            return cls(str(ipaddress.ip_address(match[1] or match[2])), int(match[3]) if match[3] else None)
        except ValueError:
            raise BadRequest(
                f"{text[:80]!r} is no address, as 192.0.2.1, 192.0.2.1:3478 or [2001:db8::1]:3478"
            ) from None

    def covers(self, host: str, port: int | None) -> bool:
        return host == self.host and (self.port is None or port is None or port == self.port)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a session must have to be listed; None for anything."""

    user: str | None = None
    """Its user name, as it is or as it is shown, or the name that limits count by."""
    realm: str | None = None
    client: EndpointFilter | None = None
    relayed: EndpointFilter | None = None
    peer: EndpointFilter | None = None
    """Of a permission, which counts the IP address alone, or of a channel."""
    search: str | None = None
    """Text in any of its user names, realm and addresses, in capitals or not."""

    def matches(self, allocation: Allocation) -> bool:
        key, five_tuple = allocation.key, allocation.five_tuple
        return (
            (self.user is None or self.user in (key.username, key.quota_user, allocation.shown))
            and (self.realm is None or self.realm == allocation.realm)
            and (self.client is None or self.client.covers(*five_tuple.client))
            and (self.relayed is None or any(self.relayed.covers(*each) for each in allocation.relayed.values()))
            and (self.peer is None or _has_peer(allocation, self.peer))
            and (not self.search or self.search.casefold() in _words(allocation).casefold())
        )


def _has_peer(allocation: Allocation, peer: EndpointFilter) -> bool:
    if peer.port is None:
        return peer.host in allocation.permissions
    return any(peer.covers(*channel.peer) for channel in allocation.channels.values())


def _words(allocation: Allocation) -> str:
    five_tuple = allocation.five_tuple
    return "\n".join(
        (
            allocation.shown,
            shown(allocation.key.quota_user),
            allocation.realm,
            five_tuple.transport.value,
            str(five_tuple.client),
            str(five_tuple.server),
            *map(str, allocation.relayed.values()),
        )
    )


class Page(NamedTuple):
    allocations: Sequence[Allocation]
    total: int
    next: str | None


def page(allocations: Iterable[Allocation], rates: Rates, sort: Sort, limit: int, cursor: str | None) -> Page:
    """The sessions that follow the cursor; raises BadRequest when that is none of this order's.

    Sorted by what does not change, every session that lives throughout is on one page exactly.
    """
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    key_of = _keys(rates)[name]
    ordered = sorted(((key_of(each), each.number, each) for each in allocations), key=_order, reverse=descending)
    begin = 0
    if cursor is not None:
        after = _read_cursor(cursor, sort)
        try:
            begin = sum(1 for each in ordered if not (_order(each) < after if descending else _order(each) > after))
        except TypeError:
            raise _foreign_cursor() from None
    shown = ordered[begin : begin + limit]
    more = begin + limit < len(ordered)
    return Page([each[2] for each in shown], len(ordered), _cursor(sort, shown[-1]) if more else None)


_Entry = tuple[Any, int, Allocation]


def _order(entry: _Entry) -> tuple[Any, int]:
    return entry[0], entry[1]


def _keys(rates: Rates) -> dict[str, Callable[[Allocation], Any]]:
    def transferred(allocation: Allocation) -> int:
        counters = rates.counters(allocation.number)
        return counters.bytes_from_client + counters.bytes_to_client

    return {
        "id": lambda allocation: 0,
        "user": lambda allocation: allocation.shown,
        "age": lambda allocation: -allocation.started,
        "remaining": lambda allocation: max(allocation.expires.values(), default=0.0),
        "rate": lambda allocation: rates.of(allocation.number).bits,
        "bytes": transferred,
    }


def _cursor(sort: Sort, entry: _Entry) -> str:
    text = json.dumps([sort, *_order(entry)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str, sort: Sort) -> tuple[Any, int]:
    try:
        made_for, key, number = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _foreign_cursor() from None
    if made_for != sort or not isinstance(number, int) or not isinstance(key, (str, int, float)):
        raise _foreign_cursor()
    return key, number


def _foreign_cursor() -> BadRequest:
    return BadRequest("the cursor is of no list in this order: take it from `next` of the page before")
