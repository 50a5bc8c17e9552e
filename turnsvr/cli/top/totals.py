"""Sessions added up by user, realm or peer, and the order in which they stay. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from turnsvr.cli.text import fit, printable, size

_STEPS_A_TWOFOLD = 2.0
"""Rates that differ less than by a root of two are equal: their rows hold still."""
_BARS = "▁▂▃▄▅▆▇█"
_NAME = 32


class Total(NamedTuple):
    """What the sessions of one user, realm or peer come to; rates in bit/s."""

    name: str
    sessions: int
    up: float
    down: float
    bytes: int
    dropped: int


def totals(sessions: Iterable[dict[str, Any]], by: str) -> list[Total]:
    """by: user, realm or peer, the largest rate first. A session counts whole for each of its peers."""
    found: dict[str, Total] = {}
    for session in sessions:
        up, down = session["traffic"]["from_client"], session["traffic"]["to_client"]
        for name in _names(session, by):
            before = found.get(name, Total(name, 0, 0, 0, 0, 0))
            found[name] = Total(
                name,
                before.sessions + 1,
                before.up + up["bits_per_second"],
                before.down + down["bits_per_second"],
                before.bytes + up["bytes"] + down["bytes"],
                before.dropped + session["traffic"]["dropped"],
            )
    return sorted(found.values(), key=lambda each: (-(each.up + each.down), -each.bytes, each.name))


def _names(session: dict[str, Any], by: str) -> list[str]:
    if by == "user":
        return [session["quota_user"] or session["user"]]
    if by == "realm":
        return [session["realm"]]
    return sorted({each["peer"] for each in session.get("permissions") or ()}) or ["no peer"]


def lines(found: Sequence[Total], by: str) -> list[str]:
    """A title and a line for each."""
    title = f"{fit(by.upper(), _NAME)} {'SESSIONS':>8} {'UP b/s':>7} {'DOWN b/s':>8} {'BYTES':>6} {'DROPS':>6}"
    return [
        title,
        *(
            f"{fit(printable(each.name), _NAME)} {each.sessions:>8} {size(each.up):>7} {size(each.down):>8} "
            f"{size(each.bytes):>6} {size(each.dropped):>6}"
            for each in found
        ),
    ]


def steady(sessions: Sequence[dict[str, Any]], before: Sequence[int], sort: str) -> list[dict[str, Any]]:
    """The same sessions; by rate, those of about the same one stand as they stood before, by ID where they are new."""
    if sort.removeprefix("-") != "rate":
        return list(sessions)
    places = {number: place for place, number in enumerate(before)}
    sign = -1 if sort.startswith("-") else 1

    def key(session: dict[str, Any]) -> tuple[int, int, int]:
        return sign * _step(_rate(session)), places.get(session["id"], len(places)), session["id"]

    return sorted(sessions, key=key)


def _rate(session: dict[str, Any]) -> float:
    traffic = session["traffic"]
    return float(traffic["from_client"]["bits_per_second"] + traffic["to_client"]["bits_per_second"])


def _step(rate: float) -> int:
    return round(math.log2(rate) * _STEPS_A_TWOFOLD) if rate >= 1 else -1


def sparkline(values: Sequence[float]) -> str:
    """A bar for each value, the largest one a full one."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * len(_BARS)))] for value in values)
