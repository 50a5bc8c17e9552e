"""What the web room asks of the server around it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from turnsvr.config.ranges import ListenAddress
from turnsvr.relay.api import Totals


class CannotIssue(Exception):
    """No credentials can be made; the text tells the operator why."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """What became of sessions since the server started. Keys are few and ours, so that they can be labels."""

    started: dict[str, int]
    """By the client's transport."""
    ended: dict[str, int]
    """By reason."""
    authentications_failed: int
    peers_refused: int


class Context(Protocol):
    """The server around the web room. Every method is called on its event loop and returns at once."""

    @property
    def listening(self) -> Sequence[ListenAddress]:
        """Where TURN clients are served, ports as bound."""

    @property
    def pump(self) -> str:
        """What moves the packets, for people."""

    @property
    def draining(self) -> bool:
        """Whether new sessions are refused."""

    @property
    def allocations(self) -> int:
        """Allocations now."""

    @property
    def connections(self) -> int:
        """TCP and TLS connections of TURN clients now."""

    @property
    def sessions(self) -> Sessions: ...

    @property
    def certificate_trusted(self) -> bool | None:
        """Whether the TLS certificate is not merely made for the run; None without TLS."""

    def totals(self) -> Totals:
        """Counters of the pump."""

    def certificate_expiry(self) -> float | None:
        """When the TLS certificate ends, in seconds since 1970; None without one or when unknown."""

    def tls_context(self) -> ssl.SSLContext | None:
        """The context that new TLS connections of TURN clients take now; None without TLS."""

    def credentials(self, user: str, ttl: float) -> tuple[str, str]:
        """User name and password good for ttl seconds from now; raises CannotIssue."""

    def revoke(self, username: str) -> int:
        """Refuse this time-limited user name from now on and end its sessions; returns how many ended."""
