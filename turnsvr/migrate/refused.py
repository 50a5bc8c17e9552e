"""The peer ranges that are refused without being named: those that are not public."""

from __future__ import annotations

from turnsvr.config.ranges import AddressRange
from turnsvr.special_purpose import SPECIAL_PURPOSE_RANGES

REFUSED = tuple(
    sorted(map(AddressRange.parse, SPECIAL_PURPOSE_RANGES.split()), key=lambda each: (each.version, int(each.first)))
)
"""In order."""


def is_refused(wanted: AddressRange) -> bool:
    """Whether every address of a range is refused by default."""
    left = int(wanted.first)
    for each in REFUSED:
        if each.version == wanted.version and int(each.first) <= left <= int(each.last):
            left = int(each.last) + 1
    return left > int(wanted.last)


def touches_refused(wanted: AddressRange) -> bool:
    return any(wanted.overlaps(each) for each in REFUSED)
