"""What the web room sees of an application, and what it can have it do."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from turnsvr.app.certificates import Keeper
from turnsvr.app.figures import SessionFigures
from turnsvr.config import hostfacts
from turnsvr.config.ranges import ListenAddress
from turnsvr.config.settings import Settings
from turnsvr.credentials import shared_secret
from turnsvr.credentials.health import Health
from turnsvr.credentials.revoked import Revocations
from turnsvr.credentials.timedname import TimedNames
from turnsvr.net.proofs import Proofs
from turnsvr.net.proxyheader import Refusal
from turnsvr.relay.api import Pump, Totals
from turnsvr.stun.message import Method
from turnsvr.turn.commands import EndReason
from turnsvr.turn.server import Server
from turnsvr.web.context import CannotIssue, PeerVerdict, Sessions

_EXPIRY_SECONDS = 60.0
"""How long the certificate's end is remembered before its file is read again."""
_METHODS = {int(method): method.name.lower() for method in Method}
_REQUESTS = ("binding", "allocate", "refresh", "create_permission", "channel_bind")
_EXPECTED = (
    *((method, "200") for method in _REQUESTS),
    *(("allocate", code) for code in ("401", "486", "500", "508")),
)
"""What begins at zero, so that readers see the first of each as an increase."""


class Application(Protocol):
    """What is asked of the application."""

    draining: bool
    revocations: Revocations
    sessions: SessionFigures

    @property
    def settings(self) -> Settings: ...

    @property
    def listening(self) -> tuple[ListenAddress, ...]: ...

    @property
    def proofs(self) -> Proofs: ...

    @property
    def keeper(self) -> Keeper | None: ...

    @property
    def pump(self) -> Pump: ...

    @property
    def server(self) -> Server: ...

    @property
    def connections(self) -> int: ...

    @property
    def connections_evicted(self) -> int: ...

    @property
    def connections_refused(self) -> int: ...

    @property
    def header_refusals(self) -> Mapping[Refusal, int]: ...

    @property
    def allocation_limit(self) -> int: ...

    @property
    def issuing_secret(self) -> str | None: ...

    @property
    def lagging(self) -> int: ...

    @property
    def problems(self) -> Sequence[str]: ...

    @property
    def sources(self) -> Sequence[Health]: ...

    @property
    def queues(self) -> Mapping[str, int]: ...

    @property
    def status_dropped(self) -> int | None: ...

    @property
    def tls_context(self) -> ssl.SSLContext | None: ...

    def as_peer(self, host: str) -> PeerVerdict: ...

    def end_sessions(self, allocations: Iterable[int], reason: EndReason) -> int: ...


class ApplicationContext:
    """A web.Context."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._expiry: tuple[float, float | None] = (float("-inf"), None)

    @property
    def listening(self) -> Sequence[ListenAddress]:
        return self._application.listening

    @property
    def pump(self) -> str:
        return self._application.pump.name

    @property
    def draining(self) -> bool:
        return self._application.draining

    @property
    def problems(self) -> Sequence[str]:
        return self._application.problems

    @property
    def allocations(self) -> int:
        return len(self._application.server)

    @property
    def limit(self) -> int:
        return self._application.allocation_limit

    @property
    def connections(self) -> int:
        return self._application.connections

    @property
    def connections_evicted(self) -> int:
        return self._application.connections_evicted

    @property
    def connections_refused(self) -> int:
        return self._application.connections_refused

    @property
    def header_refusals(self) -> Mapping[Refusal, int]:
        return self._application.header_refusals

    @property
    def lagging(self) -> int:
        return self._application.lagging

    @property
    def sessions(self) -> Sessions:
        return self._application.sessions.value

    @property
    def requests(self) -> Mapping[tuple[str, str], int]:
        answers = self._application.server.answers
        return dict.fromkeys(_EXPECTED, 0) | {
            (_METHODS[method], str(code) if code else "none"): count for (method, code), count in answers.items()
        }

    @property
    def queues(self) -> Mapping[str, int]:
        return self._application.queues

    @property
    def sources(self) -> Sequence[Health]:
        return self._application.sources

    @property
    def status_dropped(self) -> int | None:
        return self._application.status_dropped

    @property
    def certificate_trusted(self) -> bool | None:
        if self.tls_context() is None:
            return None
        keeper = self._application.keeper
        return self._application.settings.tls is not None and (keeper is None or keeper.has_certificate)

    @property
    def certificate_failures(self) -> int:
        keeper = self._application.keeper
        return 0 if keeper is None else keeper.failures

    def proof(self, token: str) -> str | None:
        return self._application.proofs.text(token)

    def as_peer(self, host: str) -> PeerVerdict:
        return self._application.as_peer(host)

    def totals(self) -> Totals:
        return self._application.pump.totals()

    def certificate_expiry(self) -> float | None:
        tls = self._application.settings.tls
        if tls is None:
            return None
        read_at, expiry = self._expiry
        now = time.monotonic()
        if now >= read_at + _EXPIRY_SECONDS:
            facts = hostfacts.read_certificate(tls)
            expiry = None if facts.problem else facts.not_after
            self._expiry = now, expiry
        return expiry

    def tls_context(self) -> ssl.SSLContext | None:
        return self._application.tls_context

    def credentials(self, user: str, ttl: float) -> tuple[str, str]:
        secret = self._application.issuing_secret
        if secret is None:
            raise CannotIssue(
                "credentials.secrets is empty, and no store has a secret: time-limited credentials need one"
            )
        return shared_secret.make(secret, user, ttl, time.time(), self.names)

    @property
    def names(self) -> TimedNames:
        return self._application.revocations.names

    def revoke(self, username: str, caller: str, callers: int) -> int:
        revocations = self._application.revocations
        revocations.add(username, time.time(), owner=caller, share=revocations.share_of(callers))
        held = [each.number for each in self._application.server.allocations() if each.username == username]
        return self._application.end_sessions(held, EndReason.REVOKED)
