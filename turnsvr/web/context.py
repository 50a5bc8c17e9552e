"""What the web room asks of the server around it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Literal, Protocol

from turnsvr.config.ranges import ListenAddress
from turnsvr.credentials.timedname import TimedNames
from turnsvr.web.figures import Figures

PeerVerdict = Literal["own", "refused", "allowed"]
"""What the server makes of an address as a peer: it is one of its own, or clients may not or may reach it."""


class CannotIssue(Exception):
    """No credentials can be made; the text tells the operator why."""


class WebContext(Protocol):
    """The server around the web room. Every method is called on its event loop; all but refresh() return at once."""

    @property
    def listening(self) -> Sequence[ListenAddress]:
        """Where TURN clients are served, ports as bound."""

    @property
    def draining(self) -> bool:
        """Whether new sessions are refused."""

    @property
    def relays_tcp(self) -> bool:
        """Whether clients may have connections to peers over TCP (RFC 6062)."""

    @property
    def problems(self) -> Sequence[str]:
        """Sentences that say why new sessions may fail, besides draining."""

    async def refresh(self) -> None:
        """Bring figures() up to date, where other processes count as well."""

    def figures(self) -> Figures:
        """All of them as of now."""

    @property
    def certificate_trusted(self) -> bool | None:
        """Whether the TLS certificate is not merely made for the run; None without TLS."""

    def as_peer(self, host: str) -> PeerVerdict:
        """For clients of the default realm; host is an IP address in canonical text."""

    def proof(self, token: str) -> str | None:
        """What an ACME authority wants to see for this token (RFC 8555 section 8.3); None when unknown."""

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
