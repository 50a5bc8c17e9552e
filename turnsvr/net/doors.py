"""What holds at each stream listener besides TURN: who stands in front of it. Values, made from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from turnsvr.ranges import RangeSet
from turnsvr.stun.address import Address


class Listener(NamedTuple):
    """A stream listener as the settings name it: a transport, and an address whose port may be 0."""

    transport: str
    address: Address


@dataclass(frozen=True, slots=True)
class Door:
    """One stream listener."""

    balancers: RangeSet | None = None
    """Addresses whose connections begin with a PROXY header; no others are let in. None where clients connect."""


PLAIN = Door()
"""A listener of which the settings say nothing."""

Doors = Mapping[Listener, Door]
