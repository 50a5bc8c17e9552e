"""One server from start to end: the rooms that serve, HTTP for apps and for the operator, draining, housekeeping."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from turnsvr import admin, web
from turnsvr.admin.context import CannotReload, Ending, Reader, Reloaded
from turnsvr.app import assemble, log
from turnsvr.app.admincontext import AdminContext
from turnsvr.app.certificates import Keeper
from turnsvr.app.descriptors import Budget
from turnsvr.app.errors import StartError
from turnsvr.app.events import Events
from turnsvr.app.figures import SessionFigures
from turnsvr.app.loglevel import LogLevel
from turnsvr.app.reload import reload
from turnsvr.app.rooms import Rooms
from turnsvr.app.sessionlog import SessionLog
from turnsvr.app.webcontext import ApplicationContext
from turnsvr.config.settings import ListenAddress, Settings
from turnsvr.credentials.health import Health
from turnsvr.credentials.revoked import Revocations
from turnsvr.net import liveness
from turnsvr.net.engine import EventSink
from turnsvr.net.proofs import Proofs
from turnsvr.net.proxyheader import Refusal
from turnsvr.relay.api import Pump
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.turn.commands import EndReason
from turnsvr.turn.server import Server
from turnsvr.web.context import PeerVerdict

if TYPE_CHECKING:
    from turnsvr.app import firstrun

_HOUSEKEEPING = 60.0
"""Seconds between looks at what changes by itself: certificate files, the addresses of this host."""

_WILDCARDS = ("0.0.0.0", "::")

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
        self.draining = False
        self.revocations = Revocations()
        """User names that are refused until they expire."""
        self.sessions = SessionFigures()
        self.web: web.WebServer | None = None
        """HTTP, where the settings have it."""
        self.admin: admin.AdminServer | None = None
        """Watching and controlling, where the settings have it and the host has room for it."""
        self.log_level = LogLevel(settings.log)
        self.reread: Callable[[], Reloaded] = _nothing_to_read
        """Reads the settings again from where they came, and takes them. Raises CannotReload."""
        self.tell: Callable[[str], None] = lambda status: None
        """Called with a few words on what the server is doing, when that changes; app/process.py sets it."""
        self._events = Events((*sinks, self.sessions), self._check_drained)
        self.rooms = Rooms(settings, self.revocations, self._events, files=files)
        """What serves clients."""
        self._housekeeping: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Build every room and serve. Raises StartError, and then nothing is left open."""
        await self.rooms.open()
        try:
            await self._start_web()
            await self._start_admin()
        except (web.WebError, admin.AdminError) as error:
            await self.stop()
            raise StartError(str(error)) from None
        self.rooms.tls.keep(self.settings)
        self._housekeeping = asyncio.get_running_loop().call_later(_HOUSEKEEPING, self._look_for_changes)
        self.rooms.addresses.serve()

    def reload(self, settings: Settings) -> list[str]:
        """Take new settings; returns the names of those that need a restart. Raises StartError, and changes nothing."""
        return reload(self.rooms, self.web, settings)

    def drain(self) -> None:
        """Take no new allocations from now on; finished is set when the last one ends."""
        _log.info("draining", sessions=len(self.server))
        self.draining = True
        self.tell("draining: no new sessions")
        self.server.drain()
        self._check_drained()

    def resume(self) -> None:
        """Take new allocations again; raises Ending when the last one has ended already."""
        if self.finished.is_set():
            raise Ending
        if self.draining:
            _log.info("not draining any more", sessions=len(self.server))
            self.draining = False
            self.tell(self.status)
            self.server.drain(False)

    async def stop(self) -> None:
        """End every allocation and close everything. Stopping twice is fine."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            self._housekeeping = None
        self.log_level.cancel()
        await asyncio.gather(*[each.stop() for each in (self.admin, self.web) if each is not None])
        await self.rooms.close()
        self.finished.set()

    def end_sessions(self, allocations: Iterable[int], reason: EndReason) -> int:
        """End these allocations, of which unknown ones are fine; returns how many ended.

        Their users are asked about anew when they come back, since they may have been removed.
        """
        before = len(self.server)
        now = asyncio.get_running_loop().time()
        numbers = set(allocations)
        ending = filter(None, map(self.server.allocation, numbers))
        for realm, username in {(each.realm, each.username) for each in ending}:
            self.rooms.identities.forget_user(realm, username)
        for allocation in numbers:
            self.server.end(allocation, reason, now)
        self.rooms.engine.carry_out()
        return before - len(self.server)

    async def is_alive(self) -> bool:
        """Whether packets still come in; true without a UDP listener, where this loop is all there is."""
        for each in self.listening:
            if each.transport == "udp":
                return await liveness.takes_packets(self.pump, Address(each.host, each.port))
        return True

    def check_certificate(self) -> None:
        """Take the certificate files into use if they have changed."""
        self.rooms.tls.check()

    async def _start_web(self) -> None:
        if self.settings.web is not None:
            self.web = web.serve(self.settings.web, ApplicationContext(self), lambda: self.budget.web_connections)
            await self.web.start()

    async def _start_admin(self) -> None:
        self.admin = await admin.serve(self.settings.admin, AdminContext(self))

    def _look_for_changes(self) -> None:
        self._housekeeping = asyncio.get_running_loop().call_later(_HOUSEKEEPING, self._look_for_changes)
        self.check_certificate()
        log.tell_suppressed()
        self.rooms.addresses.look()
        self._check_drained()

    def _check_drained(self) -> None:
        if self.draining and not len(self.server):
            self.finished.set()

    @property
    def settings(self) -> Settings:
        """The settings that the server goes by."""
        return self.rooms.settings

    @property
    def listening(self) -> tuple[ListenAddress, ...]:
        """Where clients are served, ports as bound."""
        return self.rooms.listening

    @property
    def first_run(self) -> firstrun.FirstRun | None:
        """What was made for the run, where no user of the settings could relay."""
        return self.rooms.first_run

    @property
    def budget(self) -> Budget:
        """How the open files are divided."""
        return self.rooms.budget

    @property
    def proofs(self) -> Proofs:
        """What an ACME authority may ask for now."""
        return self.rooms.tls.proofs

    @property
    def keeper(self) -> Keeper | None:
        """Has the certificate issued and renewed, where the settings say so."""
        return self.rooms.tls.keeper

    @property
    def files_wanted(self) -> int:
        """Open files that the settings ask for."""
        return self.rooms.share_out(None).total

    @property
    def allocation_limit(self) -> int:
        """Allocations that the server holds at most."""
        return self.budget.allocations

    @property
    def pump(self) -> Pump:
        return self.rooms.engine.pump

    @property
    def server(self) -> Server:
        return self.rooms.engine.server

    @property
    def connections(self) -> int:
        """TCP and TLS connections."""
        return len(self.rooms.streams)

    @property
    def connections_evicted(self) -> int:
        """TCP and TLS connections that were ended to make room."""
        return self.rooms.streams.evicted

    @property
    def connections_refused(self) -> int:
        """TCP and TLS connections for which there was no room."""
        return self.rooms.streams.refused

    @property
    def header_refusals(self) -> Mapping[Refusal, int]:
        """TCP and TLS connections that were refused for want of a PROXY header, by reason."""
        return self.rooms.streams.header_refusals

    @property
    def issuing_secret(self) -> str | None:
        """What time-limited credentials that we give out are made with; None when there is no secret."""
        return self.rooms.identities.issuing_secret

    @property
    def lagging(self) -> int:
        """TCP and TLS connections whose clients read more slowly than they are sent to."""
        return self.rooms.streams.lagging

    @property
    def problems(self) -> Sequence[str]:
        """Why new sessions may fail, besides draining."""
        certificate = self.keeper.problem if self.keeper is not None else None
        return [*self.rooms.identities.problems, *([certificate] if certificate is not None else [])]

    @property
    def sources(self) -> Sequence[Health]:
        """Databases and services that credentials come from."""
        return self.rooms.identities.health

    @property
    def queues(self) -> dict[str, int]:
        """What waits, by queue, but for the pump's own."""
        lookups = {"credential_lookups": self.rooms.engine.lookups.under_way}
        return (
            lookups if self.rooms.session_status is None else {**lookups, "status": self.rooms.session_status.waiting}
        )

    @property
    def status_dropped(self) -> int | None:
        """Messages for Redis that were given up; None where there are none to send."""
        return None if self.rooms.session_status is None else self.rooms.session_status.dropped

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """What new TLS connections take now; None without TLS."""
        return self.rooms.streams.tls.current if self.rooms.streams.tls is not None else None

    @property
    def tls_reader(self) -> Reader:
        """Who reads what new TLS clients send."""
        return "pump" if self.rooms.streams.pump_context is not None else "asyncio"

    def reader(self, five_tuple: FiveTuple) -> Reader:
        """Who reads what this client sends."""
        return "pump" if not five_tuple.transport.is_stream or self.rooms.streams.is_adopted(five_tuple) else "asyncio"

    @property
    def status(self) -> str:
        """What the server is doing, in a few words."""
        return f"serving {', '.join(map(str, self.listening))}"

    @property
    def relaying(self) -> list[str]:
        """Advertised addresses of relays, without port."""
        return self.rooms.addresses.relaying

    @property
    def external(self) -> list[str]:
        """External addresses that are found by themselves, each with where it is from, or why there is none."""
        return self.rooms.addresses.external

    def as_peer(self, host: str) -> PeerVerdict:
        """What clients of the default realm may do with a peer at this canonical IP address."""
        if ipaddress.ip_address(host) in assemble.own_hosts(self.settings, self.rooms.addresses.host):
            return "own"
        return "refused" if self.rooms.plan.server.realm.policy.refusal(host) else "allowed"

    @property
    def host_for_clients(self) -> str:
        """The address by which clients most likely reach this server."""
        concrete = [each.host for each in self.listening if each.host not in _WILDCARDS]
        return next(iter(concrete or self.relaying), "127.0.0.1")


def _nothing_to_read() -> Reloaded:
    raise CannotReload
