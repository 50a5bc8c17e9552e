"""What the web room asks of the server around it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from turnsvr.config.ranges import ListenAddress
from turnsvr.credentials.health import Health
from turnsvr.credentials.timedname import TimedNames
from turnsvr.histogram import Histogram
from turnsvr.net.proxyheader import Refusal
from turnsvr.relay.api import Totals

PeerVerdict = Literal["own", "refused", "allowed"]
"""What the server makes of an address as a peer: it is one of its own, or clients may not or may reach it."""


class CannotIssue(Exception):
    """No credentials can be made; the text tells the operator why."""


@dataclass(slots=True)
class RealmFigures:
    """What became of one realm's sessions."""

    now: int = 0
    started: int = 0
    bytes_from_client: int = 0
    """Of sessions that have ended, as below."""
    bytes_to_client: int = 0


@dataclass(frozen=True, slots=True)
class Sessions:
    """What became of sessions since the server started. Keys are few and ours, so that they can be labels."""

    now: Mapping[tuple[str, str], int]
    """By the client's transport, and by family: ipv4, ipv6 or both."""
    started: Mapping[str, int]
    """By the client's transport."""
    ended: Mapping[str, int]
    """By reason."""
    failures: Mapping[str, int]
    """Failed authentications, by reason."""
    peers_refused: int
    allocating: Histogram
    """Seconds from a request to the answer that its session began with."""
    lasting: Histogram
    """Seconds that sessions lasted which have ended."""
    realms: Mapping[str, RealmFigures]

    @property
    def authentications_failed(self) -> int:
        return sum(self.failures.values())


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
    def problems(self) -> Sequence[str]:
        """Sentences that say why new sessions may fail, besides draining."""

    @property
    def allocations(self) -> int:
        """Allocations now."""

    @property
    def limit(self) -> int:
        """Allocations that the server holds at most."""

    @property
    def connections(self) -> int:
        """TCP and TLS connections of TURN clients now."""

    @property
    def connections_evicted(self) -> int:
        """Connections of TURN clients that were ended to make room."""

    @property
    def connections_refused(self) -> int:
        """Connections of TURN clients for which there was no room."""

    @property
    def header_refusals(self) -> Mapping[Refusal, int]:
        """Connections to the listeners of TURN clients that were refused for want of a PROXY header, by reason."""

    @property
    def lagging(self) -> int:
        """Those of them whose clients read more slowly than they are sent to, as far as that is known."""

    @property
    def sessions(self) -> Sessions: ...

    @property
    def requests(self) -> Mapping[tuple[str, str], int]:
        """Requests that the rules took since the start, by method and outcome: 200, an error code, or none."""

    @property
    def queues(self) -> Mapping[str, int]:
        """What waits now, by queue, but for what Totals tells; queues are few and ours."""

    @property
    def sources(self) -> Sequence[Health]:
        """Databases and services that credentials come from."""

    @property
    def status_dropped(self) -> int | None:
        """Messages for Redis that were given up; None where there are none to send."""

    @property
    def certificate_trusted(self) -> bool | None:
        """Whether the TLS certificate is not merely made for the run; None without TLS."""

    def as_peer(self, host: str) -> PeerVerdict:
        """For clients of the default realm; host is an IP address in canonical text."""

    @property
    def certificate_failures(self) -> int:
        """Orders of a certificate that an authority did not fulfil, since the start."""

    def proof(self, token: str) -> str | None:
        """What an ACME authority wants to see for this token (RFC 8555 section 8.3); None when unknown."""

    def totals(self) -> Totals:
        """Counters of the pump."""

    def certificate_expiry(self) -> float | None:
        """When the TLS certificate ends, in seconds since 1970; None without one or when unknown."""

    def tls_context(self) -> ssl.SSLContext | None:
        """The context that new TLS connections of TURN clients take now; None without TLS."""

    def credentials(self, user: str, ttl: float) -> tuple[str, str]:
        """User name and password good for ttl seconds from now; raises CannotIssue."""

    @property
    def names(self) -> TimedNames:
        """How time-limited user names are made and read."""

    def revoke(self, username: str, caller: str, callers: int) -> int:
        """Refuse this time-limited user name from now on and end its sessions; returns how many ended.

        It counts for this caller, one of so many. Raises TooManyRevoked, and then nothing has changed.
        """
