"""What the admin room sees of an application, and what it can have it do."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from turnsvr import __version__, relay
from turnsvr.admin import AdminServer
from turnsvr.admin.context import Allocation, Facts, Level, LogLevel, Reader, Reloaded
from turnsvr.app import webcontext
from turnsvr.app.descriptors import Budget
from turnsvr.app.loglevel import LogLevel as LogLevelInUse
from turnsvr.relay.api import Counters, Totals
from turnsvr.stun.address import FiveTuple
from turnsvr.turn.commands import EndReason

_ALIVE_SECONDS = 5.0
"""How long it is remembered that packets come in, before one is sent again to find out."""


class Application(webcontext.Application, Protocol):
    """What is asked of the application, besides what the web room asks."""

    log_level: LogLevelInUse
    reread: Callable[[], Reloaded]
    admin: AdminServer | None

    @property
    def budget(self) -> Budget: ...

    @property
    def relaying(self) -> list[str]: ...

    @property
    def external(self) -> list[str]: ...

    def reader(self, five_tuple: FiveTuple) -> Reader: ...

    def drain(self) -> None: ...

    def resume(self) -> None: ...

    async def is_alive(self) -> bool: ...


class AdminContext:
    """An admin.Context."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._web = webcontext.ApplicationContext(application)
        self._started = time.monotonic()
        self._alive = True
        self._asked_at = self._started

    def __len__(self) -> int:
        return len(self._application.server)

    @property
    def token(self) -> str | None:
        token = self._application.settings.admin.token
        return None if token is None else token.get_secret_value()

    def tls_context(self) -> ssl.SSLContext | None:
        return self._application.tls_context

    def now(self) -> float:
        return time.monotonic()

    def sessions(self) -> Iterator[Allocation]:
        return self._application.server.allocations()

    def session(self, number: int) -> Allocation | None:
        return self._application.server.allocation(number)

    def counters(self, number: int) -> Counters:
        return self._application.pump.counters(number)

    def totals(self) -> Totals:
        return self._application.pump.totals()

    def pump(self) -> str:
        return self._application.pump.name

    def reader(self, five_tuple: FiveTuple) -> Reader:
        return self._application.reader(five_tuple)

    async def facts(self) -> Facts:
        application = self._application
        figures, settings = application.sessions.value, application.settings
        return Facts(
            version=__version__,
            pump=relay.describe() if settings.pump.kind == "auto" else application.pump.name,
            uptime=time.monotonic() - self._started,
            listening=tuple(map(str, application.listening)),
            admin=application.admin.listening if application.admin is not None else (),
            relay=tuple(application.relaying),
            external=tuple(application.external),
            realms=tuple(dict.fromkeys((settings.realm, *settings.realms, *figures.realms))),
            connections=application.connections,
            started=figures.started,
            ended=figures.ended,
            authentications_failed=figures.authentications_failed,
            peers_refused=figures.peers_refused,
            draining=application.draining,
            problems=await self._problems(),
            certificate_expires=self._web.certificate_expiry(),
            open_files=application.budget.as_dict(),
            stores={
                f"{each.kind} {each.name}": "ok" if each.available else "unavailable" for each in application.sources
            },
        )

    def end(self, numbers: Iterable[int]) -> int:
        return self._application.end_sessions(numbers, EndReason.REVOKED)

    def revoke(self, username: str) -> bool:
        return self._application.revocations.add(username, time.time())

    def drain(self) -> None:
        self._application.drain()

    def resume(self) -> None:
        self._application.resume()

    def reload(self) -> Reloaded:
        return self._application.reread()

    def log_level(self) -> LogLevel:
        log = self._application.log_level
        return LogLevel(log.level, log.remaining)

    def set_log_level(self, level: Level, seconds: float | None) -> LogLevel:
        self._application.log_level.set(level, seconds)
        return self.log_level()

    async def _problems(self) -> list[str]:
        problems = [*self._application.problems]
        if not await self._is_alive():
            problems.append("the pump takes no packets")
        expiry = self._web.certificate_expiry()
        if expiry is not None and expiry <= time.time():
            problems.append("the certificate has expired")
        keeper = self._application.keeper
        if keeper is not None and keeper.failure is not None:
            problems.append(f"no certificate was issued at the last try: {keeper.failure}")
        return problems

    async def _is_alive(self) -> bool:
        now = time.monotonic()
        if now >= self._asked_at + _ALIVE_SECONDS or not self._alive:
            self._asked_at = now
            self._alive = await self._application.is_alive()
        return self._alive
