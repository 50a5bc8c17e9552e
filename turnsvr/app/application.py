"""One server from start to end: the rooms that serve, HTTP for apps and for the operator, draining, housekeeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from turnsvr import admin, web
from turnsvr.admin.context import CannotReload, Ending, Reloaded, Upgraded
from turnsvr.app import log
from turnsvr.app.admincontext import AppAdminContext
from turnsvr.app.errors import StartError
from turnsvr.app.handover import store
from turnsvr.app.handover.crossing import Crossing
from turnsvr.app.handover.giver import CannotHandOver
from turnsvr.app.handover.journal import Journal
from turnsvr.app.handover.succession import Succession
from turnsvr.app.handover.taker import Taker
from turnsvr.app.loglevel import LogLevelSwitch
from turnsvr.app.reload import reload
from turnsvr.app.rooms import Rooms
from turnsvr.app.sessionlog import SessionLog
from turnsvr.app.webcontext import AppWebContext
from turnsvr.config.settings import ListenAddress, Settings
from turnsvr.net.engine import EventSink
from turnsvr.relay.api import Pump
from turnsvr.turn.server import Server

_HOUSEKEEPING = 60.0
"""Seconds between looks at what changes by itself: certificate files, the addresses of this host."""

_LOOK = 0.2
"""Seconds between looks whether the last client has gone."""

_log = structlog.get_logger()


class Application:
    """One server. Every method is called on the loop that start() ran on."""

    def __init__(
        self, settings: Settings, *, sinks: Sequence[EventSink] = (SessionLog(),), files: int | None = None
    ) -> None:
        """sinks hear of sessions, failed authentications and refused peers.

        files: how many the process may have open, None for as many as the settings ask for.
        """
        self.finished = asyncio.Event()
        """Set when draining is done."""
        self.rooms = Rooms(settings, sinks=sinks, ended=self._check_drained, files=files)
        """What serves clients; open between start() and stop()."""
        self.web: web.WebServer | None = None
        """HTTP, where the settings have it."""
        self.admin: admin.AdminServer | None = None
        """Watching and controlling, where the settings have it and the host has room for it."""
        self.log_level = LogLevelSwitch(settings.log)
        self.reread: Callable[[], Reloaded] = _nothing_to_read
        """Reads the settings again from where they came, and takes them. Raises CannotReload."""
        self.tell: Callable[[str], None] = lambda activity: None
        """Called with a few words on what the server is doing, when that changes; app/process.py sets it."""
        self._crossing = Crossing(self.rooms)
        self.succession = Succession(self.rooms, self._crossing, self._left, self.finished.set)
        """Whose place this process has taken, and who takes its own."""
        self.is_followed = False
        """Whether a service manager goes on with a successor that this process starts."""
        self.succeeded: Callable[[int], None] = lambda pid: None
        """Called with the number of the process that serves in the place of this one; app/process.py sets it."""
        self._journal: Journal | None = None
        self._housekeeping: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None

    @property
    def settings(self) -> Settings:
        """The settings that the server goes by."""
        return self.rooms.settings

    @property
    def listening(self) -> tuple[ListenAddress, ...]:
        """Where clients are served, ports as bound."""
        return self.rooms.listening

    @property
    def pump(self) -> Pump:
        return self.rooms.pump

    @property
    def server(self) -> Server:
        return self.rooms.server

    @property
    def connections(self) -> int:
        """TCP and TLS connections."""
        return len(self.rooms.streams)

    @property
    def activity(self) -> str:
        """What the server is doing, in a few words."""
        return f"serving {', '.join(map(str, self.listening))}"

    async def start(self, taker: Taker | None = None) -> None:
        """Build every room and serve, in the place of another process where there is a taker.

        Raises StartError, and then nothing is left open, and the other process serves on.
        """
        await self.rooms.open(taker, self._crossing)
        try:
            if taker is not None and taker.serves_first:
                await taker.serve(self.rooms.engine, self.rooms.streams, self._crossing)
            await self._start_web(None if taker is None else taker.http)
            await self._start_admin(None if taker is None else taker.admin)
            if taker is not None and not taker.serves_first:
                await taker.serve(self.rooms.engine, self.rooms.streams, self._crossing)
        except (web.WebError, admin.AdminError, StartError) as error:
            if taker is None or not taker.serves_first:
                self.rooms.disown()
            await self.stop()
            raise StartError(str(error)) from None
        if taker is not None:
            taker.close_unused()
            self.succession.has_taken(taker)
            self.draining = self.server.draining
            if self.admin is not None:
                self.admin.replace()
            self.succession.settled_in()
        self.rooms.tls.keep(self.settings)
        self._housekeeping = asyncio.get_running_loop().call_later(_HOUSEKEEPING, self._look_for_changes)
        self.rooms.addresses.serve()

    def reload(self, settings: Settings) -> list[str]:
        """Take new settings; returns the names of those that need a restart. Raises StartError, and changes nothing."""
        return reload(self.rooms, self.web, settings)

    def drain(self) -> None:
        """Take no new allocations from now on; finished is set when the last one ends."""
        _log.info("draining", sessions=len(self.server))
        self.tell("draining: no new sessions")
        self.server.drain()
        self._check_drained()

    def resume(self) -> None:
        """Take new allocations again; raises Ending when the last one has ended already."""
        if self.finished.is_set():
            raise Ending
        if self.server.draining:
            _log.info("not draining any more", sessions=len(self.server))
            self.tell(self.activity)
            self.server.drain(False)

    async def keep_journal(self, manager: store.Manager) -> None:
        """Have sessions outlive a crash from here on, as far as the service manager lets them."""
        self._journal = Journal(self.rooms, self._crossing, manager)
        await self._journal.start()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()

    async def leave(self, manager: store.Manager) -> None:
        """Leave sessions with the service manager for the process that it starts next; what cannot be left stays.

        To be followed by stop(), which ends what has stayed. HTTP has stopped on return. Where another process serves
        in the place of this one nothing is left: what the manager keeps is that one's.
        """
        if not await self.succession.settle():
            return
        await self.succession.end()
        self._crossing.hold()
        try:
            await self._stop_http()
            left = await store.leave(self.rooms, self._crossing, manager)
            self._close_journal()
            _log.info("sessions wait for the next process", sessions=left)
        except CannotHandOver as error:
            _log.error("sessions end with this process", reason=str(error))
        finally:
            self._crossing.release()

    async def stop(self) -> None:
        """End every allocation and close everything. Stopping twice is fine."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            self._housekeeping = None
        self.log_level.cancel()
        await self.succession.settle()
        self._close_journal()
        await self.succession.end()
        http = [each.stop() for each in (self.admin, self.web) if each is not None]
        await asyncio.gather(self.rooms.take_leave(), *http)
        await self.rooms.close()
        self.finished.set()

    async def _start_web(self, inherited: dict[tuple[str, int], int] | None) -> None:
        if self.settings.web is not None:
            rooms = self.rooms
            self.web = web.serve(self.settings.web, AppWebContext(rooms), lambda: rooms.open_files.web_connections)
            await self.web.start(inherited)
            self.rooms.streams.sharing.web = self.web.connection
            self._crossing.http["web"] = self.web

    async def _start_admin(self, inherited: dict[tuple[str, int], int] | None) -> None:
        self.admin = await admin.serve(self.settings.admin, AppAdminContext(self), inherited=inherited)
        if self.admin is not None:
            self._crossing.http["admin"] = self.admin

    async def renew(self) -> Upgraded | None:
        """Have a successor take what only a restart changes; None where no service manager would go on with it.

        Raises CannotUpgrade.
        """
        return await self.succession.upgrade(None) if self.is_followed else None

    def _left(self, pid: int) -> None:
        """Another process serves; this one goes on with the clients of TLS that it has, and ends with the last."""
        self._close_journal()
        self.succeeded(pid)
        self.rooms.tls.stop()
        self._leaving = asyncio.create_task(self._end_with_the_last())

    async def _stop_http(self) -> None:
        self._crossing.http.clear()
        await asyncio.gather(*[each.stop() for each in (self.admin, self.web) if each is not None])
        self.admin = self.web = None

    async def _end_with_the_last(self) -> None:
        await self._stop_http()
        try:
            async with asyncio.timeout(self.settings.limits.staying):
                while self.connections or len(self.server) or self.succession.has_predecessors:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK)  # no event says that the last connection is gone
        except TimeoutError:
            _log.warning("what stayed is ended", sessions=len(self.server), setting="limits.staying")
            self.rooms.engine.end_allocations()
        await self.succession.report()
        self.finished.set()

    def _look_for_changes(self) -> None:
        self._housekeeping = asyncio.get_running_loop().call_later(_HOUSEKEEPING, self._look_for_changes)
        self.rooms.tls.check()
        log.tell_suppressed()
        self.rooms.addresses.look()
        self._check_drained()

    def _check_drained(self) -> None:
        if self.server.draining and not len(self.server):
            self.finished.set()


def _nothing_to_read() -> Reloaded:
    raise CannotReload
