"""What the web room sees of an application, and what it can have it do."""

from __future__ import annotations

import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Sized
from typing import Protocol

from turnsvr.config import hostfacts
from turnsvr.config.ranges import ListenAddress
from turnsvr.config.settings import Settings
from turnsvr.credentials import shared_secret
from turnsvr.credentials.revoked import Revocations
from turnsvr.relay.api import Counters, Pump, Totals
from turnsvr.turn.commands import AllocationEnded, AllocationStarted, AuthenticationFailed, EndReason, PeerRefused
from turnsvr.web.context import CannotIssue, Sessions

_EXPIRY_SECONDS = 60.0
"""How long the certificate's end is remembered before its file is read again."""


class SessionTable:
    """An EventSink: the live sessions of each user name, and how many came and went. Bounded by the allocations."""

    def __init__(self) -> None:
        self._by_user: defaultdict[str, set[int]] = defaultdict(set)
        self._started: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._failed = 0
        self._refused = 0

    @property
    def figures(self) -> Sessions:
        return Sessions(dict(self._started), dict(self._ended), self._failed, self._refused)

    def of(self, username: str) -> tuple[int, ...]:
        """Allocations that this user name holds now."""
        return tuple(self._by_user.get(username, ()))

    def started(self, event: AllocationStarted) -> None:
        self._by_user[event.username].add(event.allocation)
        self._started[event.five_tuple.transport.value] += 1

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        held = self._by_user.get(event.username, set())
        held.discard(event.allocation)
        if not held:
            self._by_user.pop(event.username, None)
        self._ended[event.reason.name.lower()] += 1

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        self._failed += 1

    def peer_refused(self, event: PeerRefused) -> None:
        self._refused += 1


class Application(Protocol):
    """What is asked of the application."""

    settings: Settings
    listening: tuple[ListenAddress, ...]
    draining: bool
    revocations: Revocations
    sessions: SessionTable

    @property
    def pump(self) -> Pump: ...

    @property
    def server(self) -> Sized: ...

    @property
    def connections(self) -> int: ...

    @property
    def tls_context(self) -> ssl.SSLContext | None: ...

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
    def allocations(self) -> int:
        return len(self._application.server)

    @property
    def connections(self) -> int:
        return self._application.connections

    @property
    def sessions(self) -> Sessions:
        return self._application.sessions.figures

    @property
    def certificate_trusted(self) -> bool | None:
        if self.tls_context() is None:
            return None
        return self._application.settings.tls is not None

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
        secrets = self._application.settings.credentials.secrets
        if not secrets:
            raise CannotIssue("credentials.secrets is empty: time-limited credentials need a shared secret")
        return shared_secret.make(secrets[0].get_secret_value(), user, ttl, time.time())

    def revoke(self, username: str) -> int:
        self._application.revocations.add(username, time.time())
        return self._application.end_sessions(self._application.sessions.of(username), EndReason.REVOKED)
