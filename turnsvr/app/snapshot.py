"""The server's figures as of now, read from every room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from turnsvr import relay
from turnsvr.app.handover.told import Told
from turnsvr.app.rooms import Rooms
from turnsvr.relay.offload.layout import Reason
from turnsvr.stun.message import Method
from turnsvr.web.figures import Figures, SessionFigures

_METHODS: Final = {int(method): method.name.lower() for method in Method}
_REQUESTS: Final = ("binding", "allocate", "refresh", "create_permission", "channel_bind")
_EXPECTED: Final = (
    *((method, "200") for method in _REQUESTS),
    *(("allocate", code) for code in ("401", "486", "500", "508")),
)
"""What begins at zero, so that readers see the first of each as an increase."""


def figures(rooms: Rooms) -> Figures:
    """Figures of rooms that are open."""
    server, streams, keeper, redis = rooms.server, rooms.streams, rooms.tls.keeper, rooms.session_status
    told, usage = rooms.told(), rooms.accounting
    totals, associations, offload = told.totals, told.associations, relay.offloaded(rooms.pump)
    return Figures(
        pump=rooms.pump.name,
        ready=not server.draining and not rooms.problems,
        draining=server.draining,
        allocations=len(server) + len(rooms.elsewhere),
        allocation_limit=rooms.open_files.allocations,
        connections=told.connections,
        peer_connections=told.peer_connections,
        connections_evicted=streams.evicted,
        connections_refused=streams.refused,
        dtls_associations=associations.open,
        dtls_half_open=associations.shaking,
        dtls_cookies=associations.cookies,
        dtls_handshakes=associations.handshakes,
        dtls_handshakes_failed=associations.failures,
        dtls_evicted=associations.evicted,
        dtls_refused=associations.refused,
        header_refusals=streams.header_refusals,
        shared_connections=len(streams.splices),
        shared_connections_evicted=streams.splices.evicted,
        shared_connections_failed=streams.splices.failures,
        lagging_connections=streams.lagging,
        certificate_expires=rooms.tls.expires(),
        certificate_failures=0 if keeper is None else keeper.failures,
        status_messages_dropped=None if redis is None else redis.dropped,
        usage_records=None if usage is None else usage.usage.count,
        usage_records_left_out=None if usage is None else usage.left_out,
        usage_requests_failed=None if usage is None or usage.sender is None else usage.sender.failures,
        usage_waiting=None if usage is None or usage.sender is None else usage.sender.waiting,
        offload_channels=0 if offload is None else offload.channels,
        offload_packets=dict.fromkeys((each.name.lower() for each in Reason), 0)
        | dict(() if offload is None else offload.reasons),
        sessions=_sessions(rooms, told),
        requests=_requests(told.answers),
        queues={
            "credential_lookups": rooms.engine.lookups.under_way,
            "pump": totals.waiting,
            **({} if redis is None else {"status": redis.waiting}),
        },
        sources=rooms.identities.health,
        totals=totals,
    )


def _sessions(rooms: Rooms, told: Told) -> SessionFigures:
    """Of all processes: what counts up as they have told of it, what there is now as their sessions are."""
    if not rooms.elsewhere.counts:
        return rooms.sessions.value
    counter = rooms.sessions.now_alone()
    counter.read(told.sessions)
    for each in rooms.elsewhere.allocations():
        counter.adopted(each.number, each.five_tuple, tuple(each.relayed.values()), each.realm)
    return counter.value


def _requests(answers: Mapping[tuple[int, int], int]) -> dict[tuple[str, str], int]:
    """By the names of the methods."""
    return dict.fromkeys(_EXPECTED, 0) | {
        (_METHODS[method], str(code) if code else "none"): count for (method, code), count in answers.items()
    }
