"""The figures of a server as of one moment: what /metrics shows, and the admin interface in part.

A field made with gauge() or counter() is a metric by that; what has labels is put together in metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from turnsvr.credentials.health import Health
from turnsvr.histogram import Histogram
from turnsvr.net.proxyheader import HeaderRefusal
from turnsvr.relay.counts import Totals

MetricKind = Literal["gauge", "counter"]


class Scalar(NamedTuple):
    """A metric without labels. name without `_total`."""

    kind: MetricKind
    name: str
    text: str
    value: float


def gauge(text: str, name: str = "") -> Any:
    """A field that is a metric of one value; name where it is not the field's."""
    return field(metadata={"kind": "gauge", "text": text, "name": name})


def counter(text: str, name: str = "") -> Any:
    """A field that is a metric of one value, which only grows; name where it is not the field's."""
    return field(metadata={"kind": "counter", "text": text, "name": name})


@dataclass(slots=True)
class RealmFigures:
    """What became of one realm's sessions."""

    now: int = 0
    started: int = 0
    bytes_from_client: int = 0
    """Of sessions that have ended, as below."""
    bytes_to_client: int = 0


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """What became of sessions since the server started. Keys are few and ours, so that they can be labels."""

    now: Mapping[tuple[str, str], int]
    """By the client's transport, and by family: ipv4, ipv6 or both."""
    started: Mapping[str, int]
    """By the client's transport."""
    ended: Mapping[str, int]
    """By reason."""
    failures: Mapping[str, int]
    """Failed authentications, by reason."""
    peers_refused: int
    attempts_refused: int
    """Peers that connected to a relayed transport address, and for which a bound left no room (RFC 6062)."""
    allocating: Histogram
    """Seconds from a request to the answer that its session began with."""
    lasting: Histogram
    """Seconds that sessions lasted which have ended."""
    realms: Mapping[str, RealmFigures]

    @property
    def authentications_failed(self) -> int:
        return sum(self.failures.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """To be read at once: the mappings are live ones. Their keys are few and ours, so that they can be labels."""

    pump: str
    """Name of what moves the packets."""
    ready: bool = gauge("1 while new sessions are taken and all that they need answers, as /readyz.")
    draining: bool = gauge("1 while new sessions are refused because the operator said so.")
    allocations: int = gauge("Allocations now, those being opened among them.")
    allocation_limit: int = gauge("Allocations that the server holds at most (limits.allocations).")
    connections: int = gauge("TCP and TLS connections of TURN clients now.")
    peer_connections: int = gauge("TCP connections to peers now (RFC 6062).")
    connections_evicted: int = counter(
        "TCP and TLS connections without a session that were ended to make room for others."
    )
    connections_refused: int = counter("TCP and TLS connections for which there was no room, since sessions held it.")
    dtls_associations: int = gauge("DTLS associations of TURN clients now, handshakes among them.")
    dtls_half_open: int = gauge("Handshakes of DTLS now.")
    dtls_cookies: int = counter("Hellos of DTLS clients that were answered with a cookie, and forgotten.")
    dtls_handshakes: int = counter("Handshakes of DTLS that came to their end.")
    dtls_handshakes_failed: int = counter("Handshakes of DTLS that did not.")
    dtls_evicted: int = counter(
        "DTLS associations without a session, or handshakes, that were ended to make room for others."
    )
    dtls_refused: int = counter("Handshakes of DTLS for which there was no room, since sessions held it.")
    header_refusals: Mapping[HeaderRefusal, int]
    """Connections to the listeners of TURN clients that were refused for want of a PROXY header, by reason."""
    shared_connections: int = gauge("Connections that other servers have taken (share) now.")
    shared_connections_evicted: int = counter(
        "Connections that other servers had taken and that were ended to make room for others."
    )
    shared_connections_failed: int = counter("Connections whose server (share) could not be reached.")
    lagging_connections: int = gauge(
        "Connections with output that waits because the client reads too slowly; those that the compiled pump serves "
        "are not among them."
    )
    certificate_expires: float | None = gauge(
        "When the TLS certificate ends, in seconds since 1970.", "certificate_expiry_timestamp_seconds"
    )
    """None without one or when unknown."""
    certificate_failures: int = counter("Orders of a certificate (tls.acme) that failed; each is tried again.")
    status_messages_dropped: int | None = counter(
        "Messages about sessions that Redis (status) was too slow or too long away for."
    )
    """None where there are none to send."""
    usage_records: int | None = counter("Usage records (usage) that were made.")
    """None without `usage`, as below; the last two also where no service takes them."""
    usage_records_left_out: int | None = counter("Usage records for which the disk or usage.spool_size had no room.")
    usage_requests_failed: int | None = counter(
        "Requests with usage records that the service did not take; each is tried again."
    )
    usage_waiting: int | None = gauge(
        "Usage records that the service has not taken yet, in bytes.", "usage_waiting_bytes"
    )
    offload_channels: int = gauge("Channels that programs of the kernel carry now (pump.offload).")
    offload_packets: Mapping[str, int]
    """Packets of such channels, by what became of them: carried, or why the pump had them."""
    sessions: SessionFigures
    requests: Mapping[tuple[str, str], int]
    """Requests that the rules took since the start, by method and outcome: 200, an error code, or none."""
    queues: Mapping[str, int]
    """What waits now, by queue."""
    sources: tuple[Health, ...]
    """Databases and services that credentials come from."""
    totals: Totals
    """Counters of the pump."""

    def scalars(self) -> Iterator[Scalar]:
        """Every metric without labels; none for a field that is None."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.metadata and value is not None:
                name = each.metadata["name"] or each.name
                yield Scalar(each.metadata["kind"], name, each.metadata["text"], float(value))
