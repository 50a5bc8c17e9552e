"""Whether the server lives, whether it takes sessions, and its figures for Prometheus."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from turnsvr import __version__
from turnsvr.config.websettings import WebSettings
from turnsvr.web.context import Context
from turnsvr.web.desk import Desk
from turnsvr.web.refusal import Refused
from turnsvr.web.rooms import Rooms


def router(settings: WebSettings, context: Context, desk: Desk, rooms: Rooms | None) -> APIRouter:
    """`/healthz`, `/readyz` and, for the addresses that may read them, `/metrics`."""
    routes = APIRouter(tags=["health"])
    registry = CollectorRegistry()
    registry.register(ServerCollector(context, desk, rooms))
    ProcessCollector(registry=registry)

    @routes.get("/healthz", summary="Whether the server lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/readyz", summary="Whether it takes new sessions; 503 while it drains")
    async def readyz() -> JSONResponse:
        if context.draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        return JSONResponse({"status": "ready"})

    @routes.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        if not _may_read(settings, request):
            raise Refused(403, "this address may not read metrics; web.metrics names those that may")
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _may_read(settings: WebSettings, request: Request) -> bool:
    """A request that a proxy forwarded, whom nobody trusts, has no address to go by."""
    if request.client is None or not (request.state.direct or settings.trusted_proxies):
        return False
    try:
        address = ipaddress.ip_address(request.client.host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any((mapped or address) in each for each in settings.metrics)


class ServerCollector(Collector):
    """The server's figures as they are when asked. Every label has few values, all of them ours."""

    def __init__(self, context: Context, desk: Desk, rooms: Rooms | None) -> None:
        self._context = context
        self._desk = desk
        self._rooms = rooms

    def collect(self) -> Iterator[Metric]:
        context = self._context
        yield InfoMetricFamily(
            "turnsvr", "The server's version and pump.", {"version": __version__, "pump": context.pump}
        )
        yield GaugeMetricFamily("turnsvr_allocations", "Allocations now.", context.allocations)
        yield GaugeMetricFamily("turnsvr_connections", "TCP and TLS clients connected now.", context.connections)
        yield GaugeMetricFamily("turnsvr_draining", "1 while new sessions are refused.", float(context.draining))
        if (expiry := context.certificate_expiry()) is not None:
            yield GaugeMetricFamily("turnsvr_certificate_expiry_timestamp_seconds", "When it ends.", expiry)
        yield from self._sessions()
        yield from self._relayed()
        yield _labelled(
            "turnsvr_ice_requests", "Requests for credentials.", ("dialect", "outcome"), self._desk.outcomes.items()
        )
        if self._rooms is not None:
            yield GaugeMetricFamily("turnsvr_signalling_rooms", "Rooms now.", self._rooms.rooms)
            yield GaugeMetricFamily("turnsvr_signalling_members", "Signalling clients now.", self._rooms.members)
            yield CounterMetricFamily("turnsvr_signalling_messages", "Messages taken.", self._rooms.messages)

    def _sessions(self) -> Iterator[Metric]:
        sessions = self._context.sessions
        started = {(transport,): count for transport, count in sessions.started.items()}
        ended = {(reason,): count for reason, count in sessions.ended.items()}
        yield _labelled("turnsvr_sessions_started", "Sessions that began.", ("transport",), started.items())
        yield _labelled("turnsvr_sessions_ended", "Sessions that ended.", ("reason",), ended.items())
        yield CounterMetricFamily(
            "turnsvr_authentication_failures", "Wrong credentials.", sessions.authentications_failed
        )
        yield CounterMetricFamily("turnsvr_peers_refused", "Peers that policy forbids.", sessions.peers_refused)

    def _relayed(self) -> Iterator[Metric]:
        totals = self._context.totals()
        relayed = totals.relayed
        packets = {("from_client",): relayed.packets_from_client, ("to_client",): relayed.packets_to_client}
        octets = {("from_client",): relayed.bytes_from_client, ("to_client",): relayed.bytes_to_client}
        yield _labelled("turnsvr_relayed_packets", "Packets relayed.", ("direction",), packets.items())
        yield _labelled("turnsvr_relayed_bytes", "Application data relayed.", ("direction",), octets.items())
        drops = {(drop.name.lower(),): count for drop, count in totals.drops.items()}
        yield _labelled("turnsvr_dropped_packets", "Packets dropped.", ("reason",), drops.items())
        yield CounterMetricFamily("turnsvr_binding_answers", "Binding requests answered.", totals.binding_answers)
        yield CounterMetricFamily("turnsvr_received_packets", "Packets received, of any kind.", totals.received)


def _labelled(name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
