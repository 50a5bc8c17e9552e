"""The rooms that serve clients, built from the settings and brought to each change: credentials, rules, pump, streams.

HTTP, draining and the end are application.py's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from turnsvr import relay
from turnsvr.app import assemble
from turnsvr.app.descriptors import OpenFiles, share_out_on
from turnsvr.app.errors import StartError
from turnsvr.app.events import Events
from turnsvr.app.extras import not_installed
from turnsvr.app.figures import SessionCounter
from turnsvr.app.handover.beside import Incoming
from turnsvr.app.handover.elsewhere import Elsewhere
from turnsvr.app.handover.taker import Taker
from turnsvr.app.handover.told import Told
from turnsvr.app.hostaddresses import HostAddresses
from turnsvr.app.identities import Identities, IdentityError
from turnsvr.app.listening import ListenError, open_listeners
from turnsvr.app.servingtls import ServingTls
from turnsvr.config.settings import ListenAddress, Settings
from turnsvr.config.units import BadValue
from turnsvr.credentials.revoked import Revocations
from turnsvr.net import hosts, liveness
from turnsvr.net.engine import Engine, EventSink
from turnsvr.net.movable import MovableStreams
from turnsvr.net.splice import PassedConnections
from turnsvr.relay.moving import MovablePump
from turnsvr.stun.address import Address
from turnsvr.turn.commands import EndReason
from turnsvr.turn.server import Server

if TYPE_CHECKING:
    from turnsvr.app import firstrun
    from turnsvr.app.sessionstatus import SessionStatus
    from turnsvr.app.usage.accounting import Accounting
    from turnsvr.net.tracing.traces import Traces


class Rooms:
    """Its methods are called on the loop that open() ran on."""

    open_files: OpenFiles
    """How the open files are divided, as of the last apply()."""
    plan: assemble.Plan
    """What every room goes by, as of the last apply()."""
    identities: Identities
    engine: Engine
    streams: MovableStreams

    def __init__(
        self, settings: Settings, *, sinks: Sequence[EventSink], ended: Callable[[], None], files: int | None
    ) -> None:
        """sinks hear of sessions, failed authentications and refused peers. ended is called after each session.

        files: how many the process may have open, None for as many as the settings ask for.
        """
        self.settings = settings
        self.listening: tuple[ListenAddress, ...] = ()
        """Where clients are served, ports as bound."""
        self.first_run: firstrun.FirstRun | None = None
        """What was made for the run, where no user of the settings could relay."""
        self.tls = ServingTls()
        self.addresses = HostAddresses(settings, self.apply)
        self.elsewhere = Elsewhere()
        """Sessions of this server that processes before this one still serve."""
        self.run = secrets.token_hex(6)
        """Names this run of the server in records and keys of its sessions. A process that goes on where another one
        served goes on with its name, so that a session has one name in both."""
        self.session_status: SessionStatus | None = None
        """Tells Redis of sessions, where the settings say so."""
        self.accounting: Accounting | None = None
        """Records what each session used, where the settings say so."""
        self._traces: Traces | None = None
        self.revocations = Revocations()
        """User names that are refused until they expire."""
        self.revocations.heard.append(self.elsewhere.revoke)
        self.sessions = SessionCounter()
        self.events = Events((*sinks, self.sessions), ended)
        self._files = files

    @property
    def server(self) -> Server:
        return self.engine.server

    @property
    def pump(self) -> MovablePump:
        return self.engine.pump

    @property
    def traces(self) -> Traces:
        """What operators follow of clients."""
        if self._traces is None:
            from turnsvr.net.tracing.traces import Traces  # for the few servers that are traced

            self._traces = Traces(self.engine, loop=asyncio.get_running_loop())
        return self._traces

    async def open(self, taker: Taker | None = None, others: Incoming | None = None) -> None:
        """Build everything and serve; with a taker what it brings, which serves from taker.serve() on.

        others: what it brings besides. Raises StartError, and then nothing is left open.
        """
        self.addresses.start()
        try:
            self._improvise()
            self.tls.open(self.settings, self.first_run.tls if self.first_run is not None else None)
            await self._open_identities()
        except BaseException:
            self.addresses.stop()
            raise
        try:
            if taker is not None:
                await taker.read()
                self.run = taker.run or self.run
            self._open_engine(is_armed=taker is None)
            if taker is not None:
                taker.bring_rules(self.server)
        except BaseException:
            self.addresses.stop()
            await self.identities.stop()
            raise
        try:
            self._start_status()
            self._secure()
            self._start_accounting()
            self.listening = self._listen(taker)
            if taker is not None and others is not None:
                taker.bring_sessions(self.engine, self.streams, self.plan.pump, others, self._listen_udp)
        except (StartError, ListenError) as error:
            self.disown()
            await self.close()
            # what stays of a listener that was taken away keeps its port
            is_kept = isinstance(error, ListenError) and taker is not None and taker.staying
            hint = "; it may be that of clients who have stayed in a former process: turnsvr sessions lists them"
            raise StartError(f"{error}{hint if is_kept else ''}") from None

    def apply(self) -> None:
        """Bring every room to the settings and this host's addresses as they are now."""
        plan = self.plan = self._plan()
        self._answers.rate = self.settings.limits.answers_per_address
        self.engine.lookups.source = self.identities.source
        self.server.reconfigure(plan.server, asyncio.get_running_loop().time())
        self.engine.carry_out()
        self.pump.reconfigure(plan.pump)
        for each in self.listening:
            if each.is_datagram:
                address = Address(each.host, each.port)
                self.pump.challenge(address, self.server.challenge(address))
        self.streams.reconfigure(plan.streams, plan.splices, plan.doors)
        self.end_homeless()

    def end_homeless(self) -> None:
        """End the sessions in processes before this one whose realm is not served any more."""
        self.elsewhere.end(self.server.homeless_elsewhere())

    def disown(self) -> None:
        """Forget every allocation without a word: they are another process's, which serves on."""
        self.server.forget(self.server.numbers(), counted=False)
        self.server.forget_reservations()

    async def take_leave(self) -> None:
        """End every allocation, and wait a moment for those that are told of sessions. Calling it again is fine."""
        self.tls.stop()
        self.addresses.stop()
        self.engine.end_allocations()
        told = [each for each in (self.session_status, self.accounting) if each is not None]
        await asyncio.gather(*[each.stop() for each in told])

    async def close(self) -> None:
        """End every allocation and close everything. Closing twice is fine."""
        await self.take_leave()
        await self.streams.close()
        if self._traces is not None:
            self._traces.close_all()
        self.engine.close()
        await self.identities.stop()

    def end_sessions(self, numbers: Iterable[int], reason: EndReason) -> int:
        """End the sessions of these numbers, of which unknown ones are fine; returns how many ended.

        Their users are asked about anew when they come back, since they may have been removed.
        """
        before, now, ending = len(self.server), asyncio.get_running_loop().time(), set(numbers)
        found = filter(None, map(self.server.allocation, ending))
        for realm, username in {(each.realm, each.username) for each in found}:
            self.identities.forget_user(realm, username)
        for number in ending:
            self.server.end(number, reason, now)
        self.engine.carry_out()
        return before - len(self.server)

    def end_everywhere(self, numbers: Iterable[int]) -> int:
        """End sessions on behalf of the operator, those in processes before this one too; returns how many ended."""
        every = list(numbers)
        return self.end_sessions(every, EndReason.REVOKED) + self.elsewhere.end(every)

    def told(self) -> Told:
        """What this process counts, with those before it."""
        server = self.server
        own = Told(
            self.pump.totals(),
            self.sessions.write(),
            dict(server.answers),
            len(self.streams),
            server.peer_connections(),
            self.pump.associations(),
        )
        return self.elsewhere.together(own)

    @property
    def problems(self) -> list[str]:
        """Why new sessions may fail, besides draining."""
        certificate = self.tls.keeper.problem if self.tls.keeper is not None else None
        return [*self.identities.problems, *([certificate] if certificate is not None else [])]

    async def is_alive(self) -> bool:
        """Whether packets still come in; true without a UDP listener, where this loop is all there is."""
        for each in self.listening:
            if each.is_datagram:
                return await liveness.takes_packets(self.pump, Address(each.host, each.port))
        return True

    def share_out(self, files: int | None) -> OpenFiles:
        """How so many open files are divided; None for as many as the settings ask for."""
        return share_out_on(self.addresses.host, self.settings, files)

    def _improvise(self) -> None:
        """Make credentials and a certificate for the run, where no user of the settings could relay."""
        if self.settings.has_no_user:
            from turnsvr.app import firstrun  # with what makes certificates, which a server with settings never needs

            self.first_run = firstrun.improvise(self.settings, hosts.own_addresses())
            self.settings = self.first_run.settings
            self.addresses.use(self.settings)

    async def _open_identities(self) -> None:
        try:
            self.identities = Identities(self.settings, self.revocations, self.apply)
        except IdentityError as error:
            raise StartError(str(error)) from None
        await self.identities.start()

    def _open_engine(self, *, is_armed: bool) -> None:
        """The rules, the pump and the streams, without a listener. Raises StartError."""
        settings, loop = self.settings, asyncio.get_running_loop()
        plan = self.plan = self._plan()
        self._answers = answers = relay.budget(settings.limits.answers_per_address, settings.pump.kind)
        server = Server(plan.server, random=secrets.token_bytes, limiter=answers)
        try:
            self.engine = Engine(
                server,
                lambda handler: relay.make(
                    plan.pump,
                    handler,
                    settings.pump.kind,
                    loop=loop,
                    limiter=answers,
                    is_armed=is_armed,
                    offload=plan.offload,
                ),
                self.identities.source,
                self.events,
                loop=loop,
            )
        except relay.PumpUnavailable as error:
            raise StartError(f"pump.kind: {error}; install a C compiler and install again, or set auto") from None
        self.streams = MovableStreams(
            self.engine,
            plan.streams,
            self.tls.contexts,
            loop=loop,
            proofs=self.tls.proofs,
            doors=plan.doors,
            splices=PassedConnections(plan.splices, loop),
        )

    def _start_status(self) -> None:
        """Tell Redis of sessions, where the settings say so. Raises StartError."""
        settings = self.settings.status
        if settings is None:
            return
        try:
            from turnsvr.app.sessionstatus import SessionStatus
            from turnsvr.stores.status import Names
        except ModuleNotFoundError as error:
            raise StartError(not_installed(error, "status", "redis")) from None
        try:
            names = Names(int(self.run, 16))
            self.session_status = SessionStatus(settings, self.pump.counters, names=names)
        except BadValue as error:
            raise StartError(f"status.redis: {error.problem}; {error.hint}") from None
        self.session_status.start()
        self.events.add(self.session_status)

    def _start_accounting(self) -> None:
        """Record what each session uses, where the settings say so. Raises StartError."""
        settings = self.settings.usage
        if settings is None:
            return
        from turnsvr.app.usage.accounting import Accounting
        from turnsvr.app.usage.live import LiveSessions

        self.accounting = Accounting(settings, LiveSessions(self))
        self.accounting.start()
        self.events.add(self.accounting.usage)

    def _secure(self) -> None:
        """Have the pump serve DTLS with what the certificate's files are now, and later."""
        contexts = self.tls.contexts
        if contexts is None or contexts.datagrams is None:
            return

        def secure() -> None:
            if contexts.datagrams is not None:
                self.pump.secure(contexts.datagrams)

        secure()
        contexts.made = secure

    def _listen(self, taker: Taker | None) -> tuple[ListenAddress, ...]:
        """Open every listener, or go on with that of the taker. Raises ListenError."""

        def udp(address: Address, *, dtls: bool) -> Address:
            return self._listen_udp(address, () if taker is None else taker.udp(address), dtls=dtls)

        def tcp(address: Address, transport: str) -> Address:
            return self._listen_tcp(address, transport, None if taker is None else taker.tcp(address))

        return tuple(open_listeners(self.settings.listeners(), udp, tcp))

    def _listen_udp(self, address: Address, descriptors: Sequence[int] = (), *, dtls: bool = False) -> Address:
        """dtls and descriptors: as Pump.listen() has them."""
        bound = self.pump.listen(
            address,
            dtls=dtls,
            descriptors=descriptors,
            binding_suffix=self.server.binding_suffix(address),
            mapped_address=address in assemble.other_addresses(self.settings.nat_discovery),
        )
        self.pump.challenge(bound, self.server.challenge(bound))
        return bound

    def _listen_tcp(self, address: Address, transport: str, descriptor: int | None) -> Address:
        """descriptor: of a socket that listens there already."""
        if descriptor is None:
            return self.streams.listen(address, transport)
        return self.streams.listen_on(descriptor, address, transport)

    def _plan(self) -> assemble.Plan:
        identities = self.identities
        self.open_files = self.share_out(self._files)
        within = self.open_files.applied(self.settings)
        return assemble.plan(within, self.addresses.host, traits=identities.source, tables=identities.tables)
