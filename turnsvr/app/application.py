"""The one place that knows every room: build, start, reload, drain, stop."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import structlog

from turnsvr import admin, relay, web
from turnsvr.admin.context import CannotReload, Ending, Reader, Reloaded
from turnsvr.app import assemble, log
from turnsvr.app.admincontext import AdminContext
from turnsvr.app.certificates import CannotKeep, Keeper, prepare
from turnsvr.app.descriptors import Budget, share_out_on
from turnsvr.app.events import Events
from turnsvr.app.external.watch import ExternalAddresses
from turnsvr.app.extras import not_installed
from turnsvr.app.figures import SessionFigures
from turnsvr.app.identities import Identities, IdentityError
from turnsvr.app.listening import ListenError, open_listeners
from turnsvr.app.loglevel import LogLevel
from turnsvr.app.sessionlog import SessionLog
from turnsvr.app.webcontext import ApplicationContext
from turnsvr.config import advice, restart
from turnsvr.config.settings import ListenAddress, Settings, TlsSettings
from turnsvr.config.units import BadValue
from turnsvr.credentials.health import Health
from turnsvr.credentials.revoked import Revocations
from turnsvr.net import hosts, liveness
from turnsvr.net.engine import Engine, EventSink
from turnsvr.net.ownaddresses import OwnAddresses
from turnsvr.net.proofs import Proofs
from turnsvr.net.streams import Streams
from turnsvr.net.tls import CertificateError, TlsContexts
from turnsvr.relay.api import Pump
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.turn.commands import EndReason
from turnsvr.turn.server import Server
from turnsvr.web.context import PeerVerdict

if TYPE_CHECKING:
    from turnsvr.app import firstrun
    from turnsvr.app.sessionstatus import SessionStatus

_HOUSEKEEPING = 60.0
"""Seconds between looks at what changes by itself: certificate files, the addresses of this host."""

_log = structlog.get_logger()


class StartError(Exception):
    """The server cannot start, or cannot take new settings; one line says why and what to do."""


class Application:
    """One server: all rooms built from settings. Every method is called on the loop that start() ran on."""

    def __init__(
        self, settings: Settings, *, sinks: Sequence[EventSink] = (SessionLog(),), files: int | None = None
    ) -> None:
        """sinks hear of sessions, failed authentications and refused peers.

        files: how many the process may have open, None for as many as the settings ask for.
        """
        self.settings = settings
        self._files = files
        self.listening: tuple[ListenAddress, ...] = ()
        """Where clients are served, ports as bound."""
        self.first_run: firstrun.FirstRun | None = None
        """What was made for the run, where no user of the settings could relay."""
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
        self.proofs = Proofs()
        """What an ACME authority may ask for now."""
        self.keeper: Keeper | None = None
        """Has the certificate issued and renewed, where the settings say so."""
        self.log_level = LogLevel(settings.log)
        self.reread: Callable[[], Reloaded] = _nothing_to_read
        """Reads the settings again from where they came, and takes them. Raises CannotReload."""
        self.tell: Callable[[str], None] = lambda status: None
        """Called with a few words on what the server is doing, when that changes; app/process.py sets it."""
        self._external = ExternalAddresses(self._external_changed)
        self._status: SessionStatus | None = None
        self._events = Events((*sinks, self.sessions), self._check_drained)
        self._housekeeping: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Build every room and serve. Raises StartError, and then nothing is left open."""
        self._own_addresses = OwnAddresses(lambda own: self._take_host(assemble.host_of(own)))
        self._host = assemble.host_of(self._own_addresses.start())
        try:
            await self._start()
        except BaseException:
            self._own_addresses.stop()
            raise

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self.settings.has_no_user:
            from turnsvr.app import firstrun  # with what makes certificates, which a server with settings never needs

            self.first_run = firstrun.improvise(self.settings, hosts.own_addresses())
            self.settings = self.first_run.settings
        settings = self.settings
        tls = self._tls_contexts()
        await self._open_identities()
        plan = self._plan_in_use = self._plan()
        self._answers = relay.budget(settings.limits.answers_per_address, settings.pump.kind)
        server = Server(plan.server, random=secrets.token_bytes, limiter=self._answers)
        try:
            self._engine = Engine(
                server,
                lambda handler: relay.make(plan.pump, handler, settings.pump.kind, loop=loop, limiter=self._answers),
                self.identities.source,
                self._events,
                loop=loop,
            )
        except relay.PumpUnavailable as error:
            await self.identities.stop()
            raise StartError(f"pump.kind: {error}; install a C compiler and install again, or set auto") from None
        self._streams = Streams(self._engine, plan.streams, tls, loop=loop, proofs=self.proofs)
        try:
            self._start_status()
            self.listening = tuple(open_listeners(settings.listeners(), self._listen_udp, self._streams.listen))
        except (StartError, ListenError) as error:
            await self.stop()
            raise StartError(str(error)) from None
        await self._start_web()
        await self._start_admin()
        self._keep_certificate(settings.tls)
        self._housekeeping = loop.call_later(_HOUSEKEEPING, self._look_for_changes)
        self._take_host(assemble.host_of(self._own_addresses.known))
        self._find_external()
        self._warn_of_private_relays()

    @property
    def files_wanted(self) -> int:
        """Open files that the settings ask for."""
        return self._share_out(None).total

    @property
    def allocation_limit(self) -> int:
        """Allocations that the server holds at most."""
        return self.budget.allocations

    @property
    def pump(self) -> Pump:
        return self._engine.pump

    @property
    def server(self) -> Server:
        return self._engine.server

    @property
    def connections(self) -> int:
        """TCP and TLS connections."""
        return len(self._streams)

    @property
    def connections_evicted(self) -> int:
        """TCP and TLS connections that were ended to make room."""
        return self._streams.evicted

    @property
    def connections_refused(self) -> int:
        """TCP and TLS connections for which there was no room."""
        return self._streams.refused

    @property
    def issuing_secret(self) -> str | None:
        """What time-limited credentials that we give out are made with; None when there is no secret."""
        return self.identities.issuing_secret

    @property
    def lagging(self) -> int:
        """TCP and TLS connections whose clients read more slowly than they are sent to."""
        return self._streams.lagging

    @property
    def problems(self) -> Sequence[str]:
        """Why new sessions may fail, besides draining."""
        certificate = self.keeper.problem if self.keeper is not None else None
        return [*self.identities.problems, *([certificate] if certificate is not None else [])]

    @property
    def sources(self) -> Sequence[Health]:
        """Databases and services that credentials come from."""
        return self.identities.health

    @property
    def queues(self) -> dict[str, int]:
        """What waits, by queue, but for the pump's own."""
        lookups = {"credential_lookups": self._engine.lookups.under_way}
        return lookups if self._status is None else {**lookups, "status": self._status.waiting}

    @property
    def status_dropped(self) -> int | None:
        """Messages for Redis that were given up; None where there are none to send."""
        return None if self._status is None else self._status.dropped

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """What new TLS connections take now; None without TLS."""
        return self._streams.tls.current if self._streams.tls is not None else None

    @property
    def tls_reader(self) -> Reader:
        """Who reads what new TLS clients send."""
        return "pump" if self._streams.pump_context is not None else "asyncio"

    def reader(self, five_tuple: FiveTuple) -> Reader:
        """Who reads what this client sends."""
        return "pump" if not five_tuple.transport.is_stream or self._streams.is_adopted(five_tuple) else "asyncio"

    @property
    def status(self) -> str:
        """What the server is doing, in a few words."""
        return f"serving {', '.join(map(str, self.listening))}"

    @property
    def relaying(self) -> list[str]:
        """Advertised addresses of relays, without port."""
        return [each.advertised for each in assemble.relay_addresses(self.settings, self._host_now)]

    @property
    def external(self) -> list[str]:
        """External addresses that are found by themselves, each with where it is from, or why there is none."""
        return self._external.described

    def as_peer(self, host: str) -> PeerVerdict:
        """What clients of the default realm may do with a peer at this canonical IP address."""
        if ipaddress.ip_address(host) in assemble.own_hosts(self.settings, self._host_now):
            return "own"
        return "refused" if self._plan_in_use.server.realm.policy.refusal(host) else "allowed"

    @property
    def host_for_clients(self) -> str:
        """The address by which clients most likely reach this server."""
        concrete = [each.host for each in self.listening if each.host not in _WILDCARDS]
        return next(iter(concrete or self.relaying), "127.0.0.1")

    def reload(self, settings: Settings) -> list[str]:
        """Take new settings; returns the names of those that need a restart. Allocations end only with their realm.

        Raises StartError, and then the old settings stay, all of them.
        """
        unchanged = list(restart.changed(self.settings, settings))
        within = restart.kept(self.settings, settings)
        tls, tls_before = within.tls, self.settings.tls
        try:
            identities = self.identities.prepare(settings)
        except IdentityError as error:
            raise StartError(str(error)) from None
        if tls is not None and self._streams.tls is not None:
            try:
                _prepare_certificate(tls)
                self._streams.tls.reload(assemble.tls_files(tls))
            except CertificateError as error:
                identities.discard()
                raise StartError(str(error)) from None
        self.settings = within
        if self.web is not None and within.web is not None:
            self.web.reload(within.web)
        identities.take()
        self._apply()
        self._find_external()
        self._external.look_again()
        if tls != tls_before:
            self._keep_certificate(tls)
        return unchanged

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
        if self.keeper is not None:
            self.keeper.cancel()
        self.log_level.cancel()
        self._external.stop()
        self._own_addresses.stop()
        await asyncio.gather(*[each.stop() for each in (self.admin, self.web) if each is not None])
        self._engine.end_allocations()
        if self._status is not None:
            await self._status.stop()
        await self._streams.close()
        self._engine.close()
        await self.identities.stop()
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
            self.identities.forget_user(realm, username)
        for allocation in numbers:
            self.server.end(allocation, reason, now)
        self._engine.carry_out()
        return before - len(self.server)

    async def is_alive(self) -> bool:
        """Whether packets still come in; true without a UDP listener, where this loop is all there is."""
        for each in self.listening:
            if each.transport == "udp":
                return await liveness.takes_packets(self.pump, Address(each.host, each.port))
        return True

    async def _open_identities(self) -> None:
        try:
            self.identities = Identities(self.settings, self.revocations, self._apply)
        except IdentityError as error:
            raise StartError(str(error)) from None
        await self.identities.start()

    def _plan(self) -> assemble.Plan:
        identities = self.identities
        self.budget = self._share_out(self._files)
        within = self.budget.applied(self.settings)
        return assemble.plan(within, self._host_now, traits=identities.source, tables=identities.tables)

    def _share_out(self, files: int | None) -> Budget:
        return share_out_on(self._host_now, self.settings, files)

    async def _start_web(self) -> None:
        if self.settings.web is None:
            return
        try:
            self.web = web.serve(self.settings.web, ApplicationContext(self), lambda: self.budget.web_connections)
            await self.web.start()
        except web.WebError as error:
            await self.stop()
            raise StartError(str(error)) from None

    async def _start_admin(self) -> None:
        try:
            self.admin = await admin.serve(self.settings.admin, AdminContext(self))
        except admin.AdminError as error:
            await self.stop()
            raise StartError(str(error)) from None

    def _start_status(self) -> None:
        """Tell Redis of sessions, where the settings say so. Raises StartError."""
        settings = self.settings.status
        if settings is None:
            return
        try:
            from turnsvr.app.sessionstatus import SessionStatus
        except ModuleNotFoundError as error:
            raise StartError(not_installed(error, "status", "redis")) from None
        try:
            self._status = SessionStatus(settings, self.pump.counters)
        except BadValue as error:
            raise StartError(f"status.redis: {error.problem}; {error.hint}") from None
        self._status.start()
        self._events.add(self._status)

    def _tls_contexts(self) -> TlsContexts | None:
        settings = self.settings
        if settings.tls is not None:
            try:
                _prepare_certificate(settings.tls)
                return TlsContexts(assemble.tls_files(settings.tls))
            except CertificateError as error:
                raise StartError(f"tls: {error}") from None
        if self.first_run is not None:
            return self.first_run.tls
        for address in settings.listeners():
            if address.transport == "tls":
                raise StartError(f"{address}: needs a certificate; add tls: {{certificate: …, key: …}}")
        return None

    def _listen_udp(self, address: Address) -> Address:
        bound = self.pump.listen(
            address,
            binding_suffix=self.server.binding_suffix(address),
            mapped_address=address in assemble.other_addresses(self.settings.nat_discovery),
        )
        self.pump.challenge(bound, self.server.challenge(bound))
        return bound

    @property
    def _host_now(self) -> assemble.Host:
        """The host with the external addresses that were found for it."""
        return replace(self._host, external=self._external.known, former=self._external.former)

    def _find_external(self) -> None:
        """Have external addresses looked for, where the settings name none and ask for it."""
        addresses = () if self.settings.stun_only else self.settings.relay.addresses or self._host.relay
        self._external.go_by(self.settings.relay, addresses)

    def _external_changed(self) -> None:
        self._apply()
        _log.info("relayed addresses changed", relay=",".join(self.relaying))

    def _warn_of_private_relays(self) -> None:
        """Where nobody elsewhere can reach any relayed address, and nobody looks for another: usually by mistake."""
        private = advice.private_relays(self.relaying)
        if private and self.settings.relay.external_source is None:
            _log.warning(advice.PRIVATE_RELAYS, relay=",".join(private), hint="set relay.external, or to auto")

    def _apply(self) -> None:
        """Bring every room to the settings and this host's addresses as they are now."""
        plan = self._plan_in_use = self._plan()
        self._answers.rate = self.settings.limits.answers_per_address
        self._engine.lookups.source = self.identities.source
        self.server.reconfigure(plan.server, asyncio.get_running_loop().time())
        self._engine.carry_out()
        self.pump.reconfigure(plan.pump)
        for each in self.listening:
            if each.transport == "udp":
                address = Address(each.host, each.port)
                self.pump.challenge(address, self.server.challenge(address))
        self._streams.reconfigure(plan.streams)

    def _look_for_changes(self) -> None:
        self._housekeeping = asyncio.get_running_loop().call_later(_HOUSEKEEPING, self._look_for_changes)
        self.check_certificate()
        log.tell_suppressed()
        self._own_addresses.look()
        self._take_host(assemble.host_of(self._host.own))
        self._check_drained()

    def _take_host(self, host: assemble.Host) -> None:
        """Go by what this host is now; while starting there is nothing to tell yet, and the end of that asks again."""
        if host != self._host and self._housekeeping is not None:
            self._host = host
            self._apply()
            _log.info("addresses of this host changed", relay=",".join(host.relay))
            self._find_external()

    def check_certificate(self) -> None:
        """Take the certificate files into use if they have changed."""
        tls = self._streams.tls
        try:
            if tls is not None and tls.reload_if_changed():
                _log.info("certificate reloaded")
        except CertificateError as error:
            _log.error("certificate not reloaded", reason=str(error))

    def _keep_certificate(self, tls: TlsSettings | None) -> None:
        """Have an authority issue the certificate, where the settings name one."""
        if self.keeper is not None:
            self.keeper.cancel()
            self.keeper = None
        if tls is None or tls.acme is None or self._streams.tls is None:
            return
        from turnsvr.app import acmeorder

        web, port = self.settings.web, tls.acme.http_port
        served = web is not None and any((each.scheme, each.port) == ("http", port) for each in web.listen)
        self.keeper = Keeper(tls.acme, self.proofs, self.check_certificate, order=acmeorder.order, http_served=served)
        self.keeper.start()

    def _check_drained(self) -> None:
        if self.draining and not len(self.server):
            self.finished.set()


_WILDCARDS = ("0.0.0.0", "::")


def _prepare_certificate(tls: TlsSettings) -> None:
    """Have some certificate where an authority is to issue one. Raises CertificateError."""
    if tls.acme is None:
        return
    try:
        import_module("acme")
        prepare(tls.acme)
    except ModuleNotFoundError as error:
        raise CertificateError(not_installed(error, "acme", "acme")) from None
    except CannotKeep as error:
        raise CertificateError(str(error)) from None


def _nothing_to_read() -> Reloaded:
    raise CannotReload
