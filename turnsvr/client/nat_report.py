"""What a discovery means, in words for people and values for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from turnsvr.client.nat_model import (
    NOT_MEASURED,
    NOT_TRIED,
    FamilyReport,
    Finding,
    Fragments,
    Lifetime,
    NatReport,
    Possible,
)
from turnsvr.client.nat_rules import Behaviour, Classic
from turnsvr.stun.address import Address, Family

T = TypeVar("T")

_UNKNOWN = "cannot be told"
_SHORT_LIFETIME = 20.0
"""Seconds; ICE agents and TURN clients keep their paths alive every 15 to 20."""

_BY_CLASSIC = {
    Classic.OPEN_INTERNET: "Anyone can reach this host: direct calls to every network work that lets UDP through.",
    Classic.FULL_CONE: "Direct calls to every network work that lets UDP through.",
    Classic.RESTRICTED_CONE: "Direct calls to most networks work, symmetric NATs among them.",
    Classic.PORT_RESTRICTED_CONE: "Direct calls to most networks work; to a symmetric NAT you need TURN.",
    Classic.SYMMETRIC: "Direct calls work only to open networks and to full or restricted cones;"
    " to port-restricted and symmetric NATs, which are common, you need TURN.",
    Classic.SYMMETRIC_FIREWALL: "Direct calls to most networks work; to a symmetric NAT you need TURN.",
}


def advise(report: FamilyReport) -> tuple[str, ...]:
    """What the findings of one family mean for a call, the most important first."""
    advice = []
    if not report.reached:
        return ("The server answered nothing: it is down, or this network lets nothing through to it.",)
    if not report.udp.value:
        advice.append(_without_udp(report))
    else:
        meanings = dict.fromkeys(_BY_CLASSIC[name] for name in Classic if name in report.classic)
        if len(meanings) == 1:
            advice += meanings
        elif report.mapping.only is Behaviour.ENDPOINT_INDEPENDENT:
            advice.append("Direct calls to most networks work; to a symmetric NAT you may need TURN.")
        else:
            advice.append("Too little is known to promise direct calls: have a TURN server.")
    if report.hairpinning.value is False:
        advice.append("Two hosts behind this NAT meet by their local addresses only, not by the public one.")
    if report.lifetime.value is not None and report.lifetime.value.at_least < _SHORT_LIFETIME:
        keep = max(1, int(report.lifetime.value.at_least))
        advice.append(f"Mappings die soon: send something at least every {keep} s to keep a path open.")
    if report.fragments.value is Fragments.LOST:
        advice.append("Keep UDP datagrams below 1200 bytes: fragments do not get through.")
    if report.gateway.value:
        advice.append("A gateway rewrites addresses inside packets (ALG): switch that off, or use TLS.")
    return tuple(advice)


def _without_udp(report: FamilyReport) -> str:
    if report.tcp.value is not None:
        return "UDP is blocked: calls need TURN over TCP (turn:…?transport=tcp) or TLS (turns:)."
    return "UDP and plain TCP are blocked: calls need TURN over TLS (turns:), best on port 443."


def render(report: NatReport) -> str:
    """The findings down, the families across, then what they mean."""
    heading = f"NAT discovery with {', '.join(report.servers)}"
    if report.problem:
        return f"{heading}: {report.problem}"
    rows = [("", *(_family(each.family) for each in report.families))]
    for name, tell in _ROWS:
        rows.append((name, *(tell(each) for each in report.families)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [line for each in report.families for line in _notes(each)]
    return "\n".join([heading, *("  " + line for line in lines), *notes, *report.advice])


def to_json(report: NatReport) -> dict[str, Any]:
    """The report as JSON values: times in seconds, what cannot be told as null with a note beside it."""
    return {
        "servers": list(report.servers),
        "problem": report.problem,
        "advice": list(report.advice),
        "families": {_family(each.family).lower(): _family_json(each) for each in report.families},
    }


def _family_json(report: FamilyReport) -> dict[str, Any]:
    return {
        "server": str(report.server),
        "other_address": _text(report.other),
        "software": report.software,
        "local_address": _text(report.local),
        "mapped_address": _text(report.mapped),
        "nat": report.natted,
        "classic": sorted(name.value for name in report.classic),
        "mapping": _possible_json(report.mapping),
        "filtering": _possible_json(report.filtering),
        "udp": _told_json(report.udp),
        "tcp_seconds": _told_json(report.tcp),
        "tls_seconds": _told_json(report.tls),
        "udp_seconds": report.round_trip,
        "hairpinning": _told_json(report.hairpinning),
        "port_preservation": _told_json(report.port_preservation),
        "port_parity": _told_json(report.port_parity),
        "fragments": _told_json(report.fragments, lambda value: value.value),
        "mapping_lifetime": _told_json(
            report.lifetime, lambda value: {"at_least": value.at_least, "less_than": value.less_than}
        ),
        "address_rewriting_gateway": _told_json(report.gateway),
        "requests_sent": report.sent,
        "requests_answered": report.answered,
    }


def _told_json(told: Finding[T], show: Callable[[T], Any] = lambda value: value) -> dict[str, Any]:
    return {"value": None if told.value is None else show(told.value), "note": told.note}


def _possible_json(possible: Possible) -> dict[str, Any]:
    only = possible.only
    return {
        "value": only.value if only else None,
        "possible": [each.value for each in Behaviour if each in possible.behaviours],
        "note": possible.note,
    }


def _family(family: Family) -> str:
    return "IPv4" if family is Family.IPV4 else "IPv6"


def _text(address: Address | None) -> str | None:
    return None if address is None else str(address)


def _told(told: Finding[T], show: Callable[[T], str]) -> str:
    if told.note in (NOT_TRIED, NOT_MEASURED):
        return "-"
    return _UNKNOWN if told.value is None else show(told.value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _milliseconds(value: float) -> str:
    return f"yes, {value * 1000:.1f} ms"


def _possible(possible: Possible) -> str:
    only = possible.only
    if only is not None:
        return only.value
    if 0 < len(possible.behaviours) < len(Behaviour):
        return " or ".join(each.value for each in Behaviour if each in possible.behaviours)
    return _UNKNOWN


def _classic(report: FamilyReport) -> str:
    if 0 < len(report.classic) <= 3:
        return " or ".join(each.value for each in Classic if each in report.classic)
    return _UNKNOWN


def _lifetime(value: Lifetime) -> str:
    if value.less_than is None:
        return f"{value.at_least:.3g} s or more"
    return f"between {value.at_least:.3g} and {value.less_than:.3g} s"


_ROWS: tuple[tuple[str, Callable[[FamilyReport], str]], ...] = (
    ("server", lambda each: str(each.server)),
    ("UDP", lambda each: _milliseconds(each.round_trip) if each.round_trip is not None else _told(each.udp, _yes)),
    ("TCP", lambda each: _told(each.tcp, _milliseconds)),
    ("TLS", lambda each: _told(each.tls, _milliseconds)),
    ("local address", lambda each: _text(each.local) or "-"),
    ("mapped address", lambda each: _text(each.mapped) or "-"),
    ("NAT", lambda each: _UNKNOWN if each.natted is None else _yes(each.natted)),
    ("type", _classic),
    ("mapping", lambda each: _possible(each.mapping)),
    ("filtering", lambda each: _possible(each.filtering)),
    ("hairpinning", lambda each: _told(each.hairpinning, _yes)),
    ("port preservation", lambda each: _told(each.port_preservation, _yes)),
    ("port parity", lambda each: _told(each.port_parity, _yes)),
    ("fragments", lambda each: _told(each.fragments, lambda value: value.value)),
    ("mapping lifetime", lambda each: _told(each.lifetime, _lifetime)),
    ("address rewriting", lambda each: _told(each.gateway, _yes)),
)


def _notes(report: FamilyReport) -> list[str]:
    named = {
        "UDP": report.udp.note,
        "TCP": report.tcp.note,
        "TLS": report.tls.note,
        "mapping": report.mapping.note,
        "filtering": report.filtering.note,
        "hairpinning": report.hairpinning.note,
        "port preservation": report.port_preservation.note,
        "port parity": report.port_parity.note,
        "fragments": report.fragments.note,
        "mapping lifetime": report.lifetime.note,
        "address rewriting": report.gateway.note,
    }
    notes = [f"{_family(report.family)} {name}: {note}" for name, note in named.items() if note not in ("", NOT_TRIED)]
    if report.answered < report.sent:
        notes.append(
            f"{_family(report.family)}: {report.sent - report.answered} of {report.sent} packets were not answered"
        )
    return notes
