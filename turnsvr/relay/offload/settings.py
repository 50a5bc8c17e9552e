"""What the owner of a pump with programs sets and reads. Importing it loads no program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from turnsvr.relay.counts import Counters

Mode = Literal["auto", "xdp", "tc"]

_NONE: Final = Counters()


@dataclass(frozen=True, slots=True)
class OffloadSettings:
    """Which programs to use, and where: None for every Ethernet interface with an address."""

    mode: Mode
    interfaces: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class InterfacePath:
    """What carries at an interface: xdp, tc, or the pump alone and why."""

    name: str
    path: Literal["xdp", "tc", "pump"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OffloadStatus:
    """What carries, for people and for metrics."""

    interfaces: tuple[InterfacePath, ...] = ()
    problem: str = ""
    """Why nothing is carried; empty where the programs are there."""
    channels: int = 0
    """In the tables of the programs now."""
    full: int = 0
    """Channels for which these had no room."""
    carried: Counters = _NONE
    reasons: tuple[tuple[str, int], ...] = ()
    """Packets of such channels, by what became of them."""
