"""What the admin room sees of the rooms that serve, and what it can have the application do."""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

from turnsvr import __version__, relay
from turnsvr.admin import AdminServer
from turnsvr.admin.context import (
    Allocation,
    Facts,
    Level,
    LevelInForce,
    PacketReader,
    PeerConnection,
    Reloaded,
    Upgraded,
)
from turnsvr.app import snapshot
from turnsvr.app.handover.succession import Succession
from turnsvr.app.loglevel import LogLevelSwitch as LogLevelInUse
from turnsvr.app.rooms import Rooms
from turnsvr.net.tracing.traces import Traces
from turnsvr.relay.counts import Counters, Totals
from turnsvr.relay.offload.settings import OffloadStatus
from turnsvr.stun.address import FiveTuple

_ALIVE_SECONDS = 5.0
"""How long it is remembered that packets come in, before one is sent again to find out."""


class Control(Protocol):
    """What is asked of the application."""

    rooms: Rooms
    log_level: LogLevelInUse
    reread: Callable[[], Reloaded]
    admin: AdminServer | None
    succession: Succession

    async def renew(self) -> Upgraded | None: ...

    def drain(self) -> None: ...

    def resume(self) -> None: ...


class AppAdminContext:
    """An AdminContext."""

    def __init__(self, application: Control) -> None:
        self._application = application
        self._rooms = application.rooms
        self._started = time.monotonic()
        self._alive = True
        self._asked_at = self._started

    def __len__(self) -> int:
        return len(self._rooms.server) + len(self._rooms.elsewhere)

    async def refresh(self) -> None:
        await self._rooms.elsewhere.refresh()

    @property
    def token(self) -> str | None:
        token = self._rooms.settings.admin.token
        return None if token is None else token.get_secret_value()

    def tls_context(self) -> ssl.SSLContext | None:
        contexts = self._rooms.tls.contexts
        return None if contexts is None else contexts.current

    def now(self) -> float:
        return time.monotonic()

    def sessions(self) -> Iterator[Allocation]:
        return chain(self._rooms.elsewhere.allocations(), self._rooms.server.allocations())

    def session(self, number: int) -> Allocation | None:
        return self._rooms.server.allocation(number) or self._rooms.elsewhere.allocation(number)

    def peer_connections(self, number: int) -> Sequence[PeerConnection]:
        return self._rooms.server.connections_of(number)

    def counters(self, number: int) -> Counters:
        return self._rooms.elsewhere.counters(number) or self._rooms.pump.counters(number)

    def totals(self) -> Totals:
        return self._rooms.elsewhere.totals(self._rooms.pump.totals())

    def pump(self) -> str:
        return self._rooms.pump.name

    def reader(self, five_tuple: FiveTuple) -> PacketReader:
        is_adopted = self._rooms.streams.is_adopted(five_tuple)
        return "pump" if is_adopted or not five_tuple.transport.is_stream else "asyncio"

    async def facts(self) -> Facts:
        problems = await self._problems()
        rooms, settings, admin = self._rooms, self._rooms.settings, self._application.admin
        figures = snapshot.figures(rooms)
        return Facts(
            version=__version__,
            pump=relay.describe() if settings.pump.kind == "auto" else rooms.pump.name,
            offload=tuple(_offload(relay.offloaded(rooms.pump))),
            uptime=time.monotonic() - self._started,
            listening=tuple(map(str, rooms.listening)),
            admin=admin.listening if admin is not None else (),
            relay=tuple(rooms.addresses.relaying),
            external=tuple(rooms.addresses.external),
            realms=tuple(dict.fromkeys((settings.realm, *settings.realms, *figures.sessions.realms))),
            figures=figures,
            problems=problems,
            open_files=rooms.open_files.as_dict(),
        )

    def end(self, numbers: Iterable[int]) -> int:
        return self._rooms.end_everywhere(numbers)

    def revoke(self, username: str, until: float | None = None) -> bool:
        now = time.time()
        expiry = None if until is None else math.ceil(now + until - time.monotonic())
        return self._rooms.revocations.add(username, now, expiry=expiry)

    @property
    def traces(self) -> Traces:
        return self._rooms.traces

    def drain(self) -> None:
        self._application.drain()

    def resume(self) -> None:
        self._application.resume()

    def reload(self) -> Reloaded:
        return self._application.reread()

    def hand_over(self, successor: socket.socket) -> None:
        self._application.succession.let_in(successor)

    async def renew(self) -> Upgraded | None:
        return await self._application.renew()

    async def upgrade(self, program: str | None) -> Upgraded:
        return await self._application.succession.upgrade(program)

    def log_level(self) -> LevelInForce:
        log = self._application.log_level
        return LevelInForce(log.level, log.remaining)

    def set_log_level(self, level: Level, seconds: float | None) -> LevelInForce:
        self._application.log_level.set(level, seconds)
        return self.log_level()

    async def _problems(self) -> list[str]:
        problems = [*self._rooms.problems]
        if not await self._is_alive():
            problems.append("the pump takes no packets")
        expires = self._rooms.tls.expires()
        if expires is not None and expires <= time.time():
            problems.append("the certificate has expired")
        keeper = self._rooms.tls.keeper
        if keeper is not None and keeper.failure is not None:
            problems.append(f"no certificate was issued at the last try: {keeper.failure}")
        return problems

    async def _is_alive(self) -> bool:
        now = time.monotonic()
        if now >= self._asked_at + _ALIVE_SECONDS or not self._alive:
            self._asked_at = now
            self._alive = await self._rooms.is_alive()
        return self._alive


def _offload(status: OffloadStatus | None) -> Iterator[str]:
    if status is None:
        return
    if status.problem:
        yield status.problem
    for each in status.interfaces:
        yield f"{each.name} by {each.path}" + (f" ({each.reason})" if each.reason else "")
    carried = status.carried.packets_from_client + status.carried.packets_to_client
    yield f"{status.channels} channels, {carried} packets carried"
    if status.full:
        yield f"no room for {status.full} channels"
