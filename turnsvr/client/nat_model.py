"""What `turnsvr nat` found out, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from turnsvr.client.nat_rules import ANY_BEHAVIOUR, Behaviour, Classic
from turnsvr.stun.address import Address, Family

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding(Generic[T]):
    """A finding: its value and a remark, or None and why it cannot be told."""

    value: T | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Possible:
    """The behaviours that fit, and why it is not one alone."""

    behaviours: frozenset[Behaviour] = ANY_BEHAVIOUR
    note: str = ""

    @property
    def only(self) -> Behaviour | None:
        return next(iter(self.behaviours)) if len(self.behaviours) == 1 else None


class Fragments(Enum):
    """What becomes of UDP datagrams larger than the MTU."""

    BOTH_WAYS = "pass both ways"
    OUTBOUND = "pass outbound"
    LOST = "lost in one direction at least"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long an idle mapping lives, in seconds; less_than is None when it outlived the longest wait."""

    at_least: float
    less_than: float | None


NOT_TRIED = "not tried"
NOT_MEASURED = "not measured, it takes minutes; --lifetime does"


@dataclass(frozen=True)
class FamilyReport:
    """One address family, measured with one server (and for the mapping a second one)."""

    family: Family
    server: Address
    udp: Finding[bool]
    """Whether UDP gets to the server and back."""
    tcp: Finding[float] = Finding(None, NOT_TRIED)
    """Round-trip time in seconds."""
    tls: Finding[float] = Finding(None, NOT_TRIED)
    """Round-trip time in seconds."""
    local: Address | None = None
    mapped: Address | None = None
    other: Address | None = None
    """The server's other address and port, as it says."""
    software: str | None = None
    round_trip: float | None = None
    """Seconds, over UDP."""
    mapping: Possible = Possible()
    filtering: Possible = Possible()
    classic: frozenset[Classic] = frozenset()
    hairpinning: Finding[bool] = Finding(None, NOT_TRIED)
    port_preservation: Finding[bool] = Finding(None, NOT_TRIED)
    """Whether the mapped port is the local one."""
    port_parity: Finding[bool] = Finding(None, NOT_TRIED)
    """Whether even ports stay even and odd ones odd."""
    fragments: Finding[Fragments] = Finding(None, NOT_TRIED)
    lifetime: Finding[Lifetime] = Finding(None, NOT_MEASURED)
    gateway: Finding[bool] = Finding(None, NOT_TRIED)
    """Whether something rewrites addresses inside packets (a generic ALG)."""
    sent: int = 0
    """Transmissions of requests that nothing should filter."""
    answered: int = 0

    @property
    def natted(self) -> bool | None:
        if self.local is None or self.mapped is None:
            return None
        return self.local != self.mapped

    @property
    def reached(self) -> bool:
        """Whether the server answered at all, by any transport."""
        return bool(self.udp.value) or self.tcp.value is not None or self.tls.value is not None


@dataclass(frozen=True)
class NatReport:
    """Both families side by side; problem says why nothing could be measured."""

    servers: tuple[str, ...]
    families: tuple[FamilyReport, ...]
    advice: tuple[str, ...] = field(default=())
    problem: str = ""
