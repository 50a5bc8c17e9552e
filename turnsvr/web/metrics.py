"""The server's figures for Prometheus, by its conventions: base units, counters end in `_total`.

Every label has few values, and none that a client chose. A scrape reads counters and looks at no session.
"""

from __future__ import annotations

import asyncio
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import inf

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from turnsvr import __version__
from turnsvr.credentials.health import Health
from turnsvr.histogram import Histogram
from turnsvr.net.proxyheader import HeaderRefusal
from turnsvr.relay.counts import Totals
from turnsvr.web.connections import HttpConnections
from turnsvr.web.context import WebContext
from turnsvr.web.figures import Figures, RealmFigures, SessionFigures
from turnsvr.web.issuer import Issuer
from turnsvr.web.rooms import SignallingRooms

Labelled = Iterable[tuple[tuple[str, ...], float]]

_FAMILIES = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}


class Metrics:
    """Everything that /metrics shows."""

    def __init__(
        self, context: WebContext, issuer: Issuer, rooms: SignallingRooms | None, connections: HttpConnections
    ) -> None:
        self._server = CollectorRegistry()
        self._server.register(ServerCollector(context, issuer, rooms, connections))
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def text(self) -> bytes:
        """In Prometheus' text format. Of open files the system makes a list, which takes long when they are many."""
        process = await asyncio.to_thread(generate_latest, self._process)
        return generate_latest(self._server) + process


class ServerCollector(Collector):
    """The server's figures as they are when asked."""

    def __init__(
        self, context: WebContext, issuer: Issuer, rooms: SignallingRooms | None, connections: HttpConnections
    ) -> None:
        self._context = context
        self._issuer = issuer
        self._rooms = rooms
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        figures = self._context.figures()
        yield from _state(figures, self._connections)
        yield from _sessions(figures.sessions)
        yield from _realms(figures.sessions.realms)
        yield from _requests(figures)
        yield from _traffic(figures.totals)
        yield from _sources(figures.sources)
        yield from self._http()

    def _http(self) -> Iterator[Metric]:
        yield _counters(
            "turnsvr_ice_requests",
            "HTTP requests for credentials, by dialect and outcome.",
            ("dialect", "outcome"),
            self._issuer.outcomes.items(),
        )
        yield _gauge("turnsvr_http_connections", "HTTP connections to the web listeners now.", len(self._connections))
        yield CounterMetricFamily(
            "turnsvr_http_connections_evicted",
            "HTTP connections that waited for their clients and were ended to make room for others.",
            self._connections.evicted,
        )
        yield CounterMetricFamily(
            "turnsvr_http_connections_refused",
            "HTTP connections for which there was no room, since requests or signalling sessions held it.",
            self._connections.refused,
        )
        if self._rooms is not None:
            yield _gauge("turnsvr_signalling_rooms", "Signalling rooms now.", self._rooms.rooms)
            yield _gauge("turnsvr_signalling_members", "Clients in signalling rooms now.", self._rooms.members)
            yield CounterMetricFamily(
                "turnsvr_signalling_messages", "Messages that signalling clients sent.", self._rooms.messages
            )


def _state(figures: Figures, connections: HttpConnections) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "turnsvr",
        "What runs: version, pump (what moves the packets), version of Python. Always 1.",
        {"version": __version__, "pump": figures.pump, "python": platform.python_version()},
    )
    for kind, name, text, value in figures.scalars():
        yield _FAMILIES[kind](f"turnsvr_{name}", text, value)
    yield _counters(
        "turnsvr_proxy_headers_refused",
        "Connections closed for want of a PROXY header, by service (turn, http) and reason: untrusted where it "
        "came from an address that may not send one, else malformed, too_long, late, or ended half-way.",
        ("service", "reason"),
        [
            ((service, each.value), counts.get(each, 0))
            for service, counts in (
                ("turn", figures.header_refusals),
                ("http", connections.header_refusals.counts),
            )
            for each in HeaderRefusal
        ],
    )
    yield _gauges(
        "turnsvr_queue_length",
        "What waits now, by queue: look-ups of credentials, messages that the pump has for the rules (pump), "
        "events that Redis is yet to be told of (status).",
        ("queue",),
        _by_one(figures.queues),
    )
    yield _counters(
        "turnsvr_offload_packets",
        "Packets of channels that programs of the kernel carry, by what became of them; docs/offload.md explains each.",
        ("outcome",),
        _by_one(figures.offload_packets),
    )


def _sessions(sessions: SessionFigures) -> Iterator[Metric]:
    ways = ("transport", "family")
    yield _gauges(
        "turnsvr_sessions",
        "Sessions now, by the client's transport and the family of what is relayed: ipv4, ipv6 or both.",
        ways,
        sessions.now.items(),
    )
    yield _counters(
        "turnsvr_sessions_started",
        "Sessions that began, by the client's transport.",
        ("transport",),
        _by_one(sessions.started),
    )
    yield _counters("turnsvr_sessions_ended", "Sessions that ended, by reason.", ("reason",), _by_one(sessions.ended))
    yield _histogram(
        "turnsvr_allocation_duration_seconds",
        "Time from an Allocate request that succeeds to its answer, the look-up of the user included.",
        [((), sessions.allocating)],
    )
    yield _histogram(
        "turnsvr_session_duration_seconds",
        "How long the sessions lasted that have ended.",
        [((), sessions.lasting)],
    )
    yield _counters(
        "turnsvr_authentication_failures",
        "Requests whose credentials were not accepted, by reason. The first request of any client, without "
        "credentials, is not one.",
        ("reason",),
        _by_one(sessions.failures),
    )
    yield CounterMetricFamily(
        "turnsvr_peers_refused",
        "Requests to reach a peer address that is refused by default or by the settings.",
        sessions.peers_refused,
    )
    yield CounterMetricFamily(
        "turnsvr_peer_connections_refused",
        "TCP connections from peers (RFC 6062) for which a bound left no room.",
        sessions.attempts_refused,
    )


def _realms(realms: Mapping[str, RealmFigures]) -> Iterator[Metric]:
    yield _gauges(
        "turnsvr_realm_sessions",
        "Sessions now, by realm; realms past the first 50 count as other.",
        ("realm",),
        _by_one({name: each.now for name, each in realms.items()}),
    )
    yield _counters(
        "turnsvr_realm_sessions_started",
        "Sessions that began, by realm.",
        ("realm",),
        _by_one({name: each.started for name, each in realms.items()}),
    )
    yield _counters(
        "turnsvr_realm_relayed_bytes",
        "Application data of the sessions that have ended, by realm.",
        ("realm", "direction"),
        [
            ((name, direction), octets)
            for name, each in realms.items()
            for direction, octets in (
                ("from_client", each.bytes_from_client),
                ("to_client", each.bytes_to_client),
            )
        ],
    )


def _requests(figures: Figures) -> Iterator[Metric]:
    requests, totals = Counter(figures.requests), figures.totals
    requests["binding", "200"] += totals.binding_answers
    requests["allocate", "401"] += totals.challenges
    requests["allocate", "none"] += totals.challenges_withheld
    yield _counters(
        "turnsvr_requests",
        "STUN and TURN requests by method and outcome: 200, the error code of the answer, or none where a limit "
        "kept it back.",
        ("method", "code"),
        requests.items(),
    )


def _traffic(totals: Totals) -> Iterator[Metric]:
    relayed = totals.relayed
    packets = {"from_client": relayed.packets_from_client, "to_client": relayed.packets_to_client}
    octets = {"from_client": relayed.bytes_from_client, "to_client": relayed.bytes_to_client}
    drops = {drop.name.lower(): count for drop, count in totals.drops.items()}
    yield _counters(
        "turnsvr_relayed_packets", "Packets relayed, by direction, as they pass.", ("direction",), _by_one(packets)
    )
    yield _counters(
        "turnsvr_relayed_bytes",
        "Application data relayed, by direction, as it passes; headers are not counted.",
        ("direction",),
        _by_one(octets),
    )
    yield _counters(
        "turnsvr_dropped_packets",
        "Packets that went nowhere, by reason; docs/monitoring.md says what each means.",
        ("reason",),
        _by_one(drops),
    )
    for name, text, value in (
        ("binding_answers", "Plain Binding requests that the pump answered by itself.", totals.binding_answers),
        ("challenges", "Allocate requests without credentials that the pump answered.", totals.challenges),
        ("received_packets", "Packets that came from the network, of any kind.", totals.received),
        ("pump_receive_batches", "Receive calls of the pump that brought packets.", totals.batches),
        ("pump_sends", "Send calls of the pump.", totals.sends),
        ("pump_segments", "Packets that left in the pump's send calls.", totals.segments),
        ("pump_handed_up", "Messages that the pump handed to the rules.", totals.sent_up),
    ):
        yield CounterMetricFamily(f"turnsvr_{name}", text, value)


def _sources(health: Iterable[Health]) -> Iterator[Metric]:
    sources = {each.kind.replace(" ", "_"): each for each in health}
    if not sources:
        return
    label = ("source",)
    yield _gauges(
        "turnsvr_credential_source_up",
        "1 while the database, web hook or key server that knows users answers.",
        label,
        _by_one({name: each.available for name, each in sources.items()}),
    )
    yield _counters(
        "turnsvr_credential_queries",
        "Questions asked of the database, web hook or key server that knows users.",
        label,
        _by_one({name: each.queries for name, each in sources.items()}),
    )
    yield _counters(
        "turnsvr_credential_query_errors",
        "Of these questions those without an answer; requests that need one get error 500.",
        label,
        _by_one({name: each.errors for name, each in sources.items()}),
    )
    yield _histogram(
        "turnsvr_credential_query_duration_seconds",
        "Time from such a question to its answer.",
        [((name,), each.latency) for name, each in sources.items()],
        label,
    )


def _by_one(values: Mapping[str, float]) -> Labelled:
    return [((key,), value) for key, value in values.items()]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, float(value))


def _gauges(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _counters(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    """name without `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _histogram(
    name: str, text: str, values: Iterable[tuple[tuple[str, ...], Histogram]], labels: tuple[str, ...] = ()
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in values:
        buckets, so_far = [], 0
        for bound, count in zip((*histogram.bounds, inf), histogram.counts, strict=True):
            so_far += count
            buckets.append(("+Inf" if bound == inf else str(bound), so_far))
        family.add_metric(key, buckets, histogram.sum)
    return family
