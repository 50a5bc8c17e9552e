"""`turnsvr nat`: what kind of NAT is between this host and the Internet, by RFC 5780, both families side by side."""

from __future__ import annotations

import asyncio
import contextlib
import json as json_text
import random as randomness
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from turnsvr.client import nat_measure, nat_rules
from turnsvr.client.link import StreamLink, new_request, tls_context
from turnsvr.client.nat_lifetime import LifetimeProgress, Search, lifetime
from turnsvr.client.nat_model import FamilyReport, Finding, NatReport
from turnsvr.client.nat_report import advise, render, to_json
from turnsvr.client.nat_rules import Classic
from turnsvr.client.nat_sockets import NatSockets, Tempo, host_towards
from turnsvr.client.resolver import resolve
from turnsvr.client.transaction import ClientError, Timers, TransactionTimeout
from turnsvr.client.uri import DEFAULT_PORT, BadUri, ServerUri, parse
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.message import Method

DEFAULT_SERVERS = ("stun:stun.l.google.com:19302", "stun:stun.cloudflare.com:3478")
"""Public servers for who names none: neither has a second address, but two of them tell the mapping."""

STAGES = ("connectivity", "behaviour", "mapping lifetime", "done")
"""What progress is reported of, in order."""

_PATIENCE = 8.0
"""Seconds for a name's addresses, and then for a first answer; also for a TCP or TLS connection and its answer."""


@dataclass(frozen=True, slots=True)
class NatOptions:
    """What to measure and how. longest_lifetime None leaves the mapping lifetime out: it takes minutes."""

    tempo: Tempo = field(default_factory=Tempo)
    longest_lifetime: float | None = None
    """Seconds: the longest idle time that is tried."""
    lifetime_precision: float = 5.0
    """Seconds."""
    lifetime_width: int = 8
    """Idle mappings watched at the same time."""
    patience: float = _PATIENCE
    """Seconds for the first answer over UDP: after that the server does not answer."""
    stream_patience: float = _PATIENCE
    """Seconds for a TCP or TLS connection and its answer together."""


def _no_progress(_stage: str, _done: float) -> None:
    pass


async def discover(
    servers: Sequence[str],
    options: NatOptions | None = None,
    *,
    random: randomness.Random | None = None,
    progress: LifetimeProgress = _no_progress,
) -> NatReport:
    """Measure with one server, or with two where the first has no second address.

    Raises BadUri for what is no stun: URI, ValueError for other than one or two servers.
    """
    if not 1 <= len(servers) <= 2:
        raise ValueError("name one STUN server, or two")
    uris = [_stun(text) for text in servers]
    try:
        found = [_by_family(each) for each in await asyncio.gather(*(resolve(uri.host, _PATIENCE) for uri in uris))]
    except OSError as error:
        return NatReport(tuple(servers), (), problem=f"no address found for a server: {error.strerror}")
    seconds = found[1] if len(found) > 1 else {}
    slowest = _Slowest(progress)
    discoveries = []
    for family, host in found[0].items():
        second = Address(seconds[family], uris[1].port or DEFAULT_PORT) if family in seconds else None
        server = Address(host, uris[0].port or DEFAULT_PORT)
        discoveries.append(
            _Discovery(
                uris[0],
                server,
                second,
                options or NatOptions(),
                random or randomness.SystemRandom(),
                slowest.share(family),
            )
        )
    families = await asyncio.gather(*(discovery.report() for discovery in discoveries))
    tried = [each for each in families if each.reached or len(families) == 1] or families
    advice = tuple(f"{_prefix(each, families)}{line}" for each in tried for line in advise(each))
    return NatReport(tuple(servers), tuple(families), advice)


class _Slowest:
    """Shows the progress of the family that is furthest behind."""

    def __init__(self, show: LifetimeProgress) -> None:
        self._show = show
        self._at: dict[Family, tuple[int, float]] = {}

    def share(self, family: Family) -> LifetimeProgress:
        self._at[family] = (0, -1.0)

        def progress(stage: str, done: float) -> None:
            before = min(self._at.values())
            self._at[family] = (STAGES.index(stage), done)
            number, slowest = after = min(self._at.values())
            if after != before:
                self._show(STAGES[number], slowest)

        return progress


def run(
    servers: Sequence[str] = (),
    *,
    options: NatOptions | None = None,
    json: bool = False,
    show_progress: bool | None = None,
) -> int:
    """Measure and print; exit status 0 when a server was reached, 1 when none was, 2 for bad usage.

    Without servers two public ones are asked. show_progress None: a bar on a terminal, elsewhere a line that says what
    is going on; both go to standard error.
    """
    if show_progress is None:
        show_progress = sys.stderr.isatty()
        print(_beginning(servers or DEFAULT_SERVERS, options or NatOptions()), file=sys.stderr, flush=True)
    try:
        report = asyncio.run(
            discover(servers or DEFAULT_SERVERS, options, progress=_bar if show_progress else _no_progress)
        )
    except ValueError as error:
        print(json_text.dumps({"error": str(error)}) if json else f"turnsvr nat: {error}")
        return 2
    print(json_text.dumps(to_json(report), indent=2) if json else render(report))
    return 0 if any(each.reached for each in report.families) else 1


def _beginning(servers: Sequence[str], options: NatOptions) -> str:
    return (
        f"turnsvr nat: asking {' and '.join(servers)} over UDP, TCP and TLS; "
        f"where no answer comes this ends after {options.patience:g} s"
    )


def _bar(stage: str, done: float) -> None:
    width = 30
    filled = round(done * width)
    end = "\r" if done < 1 else "\n"
    print(f"{stage:<20} [{'#' * filled}{'.' * (width - filled)}] {done:4.0%}", end=end, file=sys.stderr, flush=True)


def _stun(text: str) -> ServerUri:
    uri = parse(text)
    if uri.scheme != "stun":
        raise BadUri(f"{text!r}: NAT discovery asks a STUN server; write stun:{uri.host}")
    return uri


def _by_family(addresses: Sequence[Address]) -> dict[Family, str]:
    found: dict[Family, str] = {}
    for address in addresses:
        found.setdefault(address.family, address.host)
    return dict(sorted(found.items()))


def _prefix(each: FamilyReport, families: Sequence[FamilyReport]) -> str:
    return f"{'IPv4' if each.family is Family.IPV4 else 'IPv6'}: " if len(families) > 1 else ""


class _Discovery:
    """The measurements of one family, in an order that wastes no time and spoils none of them."""

    def __init__(
        self,
        uri: ServerUri,
        server: Address,
        second: Address | None,
        options: NatOptions,
        random: randomness.Random,
        progress: LifetimeProgress,
    ) -> None:
        self._uri = uri
        self._server = server
        self._second = second
        self._options = options
        self._random = random
        self._progress = progress

    async def report(self) -> FamilyReport:
        try:
            return await self._measure()
        finally:
            self._progress("done", 1.0)

    async def _measure(self) -> FamilyReport:
        try:
            local = host_towards(self._server)
        except OSError as error:
            unreachable = f"this host has no way there ({error.strerror})"
            return FamilyReport(self._server.family, self._server, Finding(None, unreachable))
        self._progress("connectivity", 0.0)
        async with NatSockets(local, self._server, self._options.tempo, self._random) as sockets:
            legs = asyncio.gather(self._stream_leg(Transport.TCP), self._stream_leg(Transport.TLS))
            try:
                measured = await self._over_udp(sockets)
            finally:
                tcp, tls = await legs
        measured = replace(measured, tcp=tcp, tls=tls)
        if not measured.udp.value:
            return _without_udp(measured)
        return measured

    async def _over_udp(self, sockets: NatSockets) -> FamilyReport:
        report = FamilyReport(self._server.family, self._server, Finding(None))
        try:
            link = await sockets.open()
            async with asyncio.timeout(self._options.patience):
                first = await sockets.plain_binding(link)
        except TimeoutError:
            note = f"no answer within {self._options.patience:g} s"
            return replace(report, udp=Finding(False, note), sent=sockets.sent)
        except TransactionTimeout as timeout:
            return replace(report, udp=Finding(False, str(timeout)), sent=sockets.sent)
        except (ClientError, ValueError, OSError) as error:
            return replace(report, udp=Finding(None, str(error)))
        self._progress("connectivity", 1.0)
        self._progress("behaviour", 0.0)
        behaviours, ports, hairpinning, fragments = await asyncio.gather(
            nat_measure.behaviours(sockets, link, first, self._second),
            nat_measure.ports(sockets),
            nat_measure.hairpinning(sockets),
            nat_measure.fragments(sockets),
        )
        self._progress("behaviour", 1.0)
        natted = first.mapped != link.local
        if not natted:
            hairpinning = Finding(None, "there is no NAT")
        mapping, filtering = behaviours.mapping, behaviours.filtering
        report = replace(
            report,
            udp=Finding(True),
            local=link.local,
            mapped=first.mapped,
            other=first.other,
            software=first.software,
            round_trip=sockets.round_trip,
            mapping=mapping,
            filtering=filtering,
            classic=nat_rules.classic(natted, mapping.behaviours, filtering.behaviours),
            hairpinning=hairpinning,
            port_preservation=ports.preservation,
            port_parity=ports.parity,
            fragments=fragments,
            gateway=Finding(
                sockets.rewritten, "" if sockets.rewritten is not None else "the server sends no MAPPED-ADDRESS"
            ),
        )
        if self._options.longest_lifetime is not None:
            search = Search(
                self._options.longest_lifetime, self._options.lifetime_precision, self._options.lifetime_width
            )
            renumbers = ports.preservation.value is False
            found = await lifetime(sockets, search, renumbers=renumbers, progress=self._progress)
            report = replace(report, lifetime=found)
        return replace(report, sent=sockets.sent, answered=sockets.answered)

    async def _stream_leg(self, transport: Transport) -> Finding[float]:
        """Round-trip time of a Binding over TCP or TLS; any certificate will do, who the server is matters little."""
        port = next((leg.port for leg in self._uri.legs() if leg.transport is transport), None)
        if port is None:
            return Finding(None, f"the {transport.value.upper()} port of this server is not known")
        connected = False
        try:
            async with asyncio.timeout(self._options.stream_patience):
                link = await self._connected(transport, port)
                connected = True
                return await self._stream_binding(link, port)
        except TimeoutError:
            where = f"connected to port {port}, then" if connected else f"no connection to port {port}:"
            return Finding(None, f"{where} no answer within {self._options.stream_patience:g} s")
        except ConnectionRefusedError:
            return Finding(None, f"port {port} answers, but no server listens there")
        except OSError as error:
            return Finding(None, f"no connection to port {port} ({error.strerror or 'no answer'})")

    async def _connected(self, transport: Transport, port: int) -> StreamLink:
        tls = tls_context(insecure=True) if transport is Transport.TLS else None
        timers = Timers.within(self._options.stream_patience)
        return await StreamLink.open(
            Address(self._server.host, port), tls=tls, server_name=self._uri.host, timers=timers
        )

    async def _stream_binding(self, link: StreamLink, port: int) -> Finding[float]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(link.close)
            try:
                return Finding((await link.request(new_request(Method.BINDING))).round_trip)
            except (ClientError, OSError) as error:
                return Finding(None, f"connected to port {port}, then {error}")


def _without_udp(report: FamilyReport) -> FamilyReport:
    """Nothing came over UDP: blocked, if the server is there at all."""
    if report.udp.value is None:
        return report
    note = report.udp.note
    if not report.reached:
        note += "; the server may as well be down"
    return replace(report, udp=Finding(False, note), classic=frozenset({Classic.BLOCKED}))
