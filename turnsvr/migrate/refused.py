"""The peer ranges that are refused without being named: those of the rules (`turnsvr.turn.policy`)."""

from __future__ import annotations

from turnsvr.config.ranges import AddressRange

_RANGES = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16
    3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
"""

REFUSED = tuple(sorted(map(AddressRange.parse, _RANGES.split()), key=lambda each: (each.version, int(each.first))))
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
