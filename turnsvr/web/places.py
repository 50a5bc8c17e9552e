"""Which signalling session ends where a new one finds no room. Pure: it knows no sockets.

It is the rule of turnsvr/eviction.py with one difference: a call may use its sessions at any time, so every one of them
would be missed. A member in company ends only for a source that has fewer sessions than its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeldPlace:
    """A session that has a place."""

    name: str
    source: bytes
    is_alone: bool
    """Whether it is alone in its room, or in none."""
    since: float
    """When that began."""


def who_ends(sessions: Sequence[HeldPlace], newcomer: bytes) -> HeldPlace | None:
    """The session that ends for one more of this source; None where none has to.

    It is one of the source that has most sessions, where the newcomer's will have fewer; of that source one that is
    alone, if there is one, and of those the oldest. Where no source has more than the newcomer's will have, it is the
    one that has been alone for longest.
    """
    counts = Counter(each.source for each in sessions)
    most = max(counts.values(), default=0)
    if most > counts[newcomer] + 1:
        return min(
            (each for each in sessions if counts[each.source] == most),
            key=lambda each: (not each.is_alone, each.since),
        )
    return min((each for each in sessions if each.is_alone), key=lambda each: each.since, default=None)
