"""The ICMP errors that a TURN client is told of (RFC 8656 section 11.5)."""

from __future__ import annotations

from typing import Final

from turnsvr.stun.address import Family

ICMP_TYPES: Final = {Family.IPV4: frozenset({3, 11}), Family.IPV6: frozenset({1, 2, 3})}
"""By the family of the peer: unreachable, too big (a type of its own in ICMPv6), time exceeded."""
