"""What holds at each stream listener besides TURN: who is before it, who shares it, whether it is for TLS alone.

Values, made from the settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from turnsvr.ranges import RangeSet
from turnsvr.stun.address import Address

OWN_WEB: Final = "web"
"""HTTP is served here, by the room web."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Another server: at an address, or at the path of a Unix socket."""

    place: Address | str
    header: bool = False
    """Whether a connection to it begins with a PROXY header."""

    def __str__(self) -> str:
        return f"unix:{self.place}" if isinstance(self.place, str) else str(self.place)


class StreamListener(NamedTuple):
    """A stream listener as the settings name it: a transport, and an address whose port may be 0."""

    transport: str
    address: Address


@dataclass(frozen=True, slots=True)
class Door:
    """One stream listener."""

    balancers: RangeSet | None = None
    """Addresses whose connections begin with a PROXY header; no others are let in. None where clients connect."""
    http: Backend | Literal["web"] | None = None
    """Who serves HTTP inside TLS; None where that is refused."""
    takes_plain_http: bool = False
    """Whether it serves HTTP without TLS, too."""
    names: Mapping[str, Backend] = field(default_factory=dict)
    """Who takes TLS connections unopened, by the server's name; `*.` stands for one or more labels."""
    tls_only: bool = False
    """Whether a client that speaks in the open is turned away."""

    @property
    def shares_tls(self) -> bool:
        """Whether anything but TURN is served inside TLS."""
        return self.http is not None

    @property
    def backends(self) -> Iterator[Backend]:
        """Every other server that it passes connections to."""
        yield from self.names.values()
        if isinstance(self.http, Backend):
            yield self.http

    def server_of(self, name: str) -> Backend | None:
        """Who takes the connection of a TLS client that asks for this name; None for us."""
        found = self.names.get(name)
        while found is None and name:
            _, _, name = name.partition(".")
            found = self.names.get(f"*.{name}")
        return found


PLAIN = Door()
"""A listener of which the settings say nothing."""

Doors = Mapping[StreamListener, Door]
