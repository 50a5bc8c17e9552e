"""The log lines of sessions: their start and end, failed authentications, refused peers, and bounds that users met.

How many of them are written is for log.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import structlog

from turnsvr.app import log
from turnsvr.credentials.shown import shown
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.stun.message import Method
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    PeerRefused,
    RequestRefused,
)

_log = structlog.get_logger()

_METHODS = {int(method): method.name.title().replace("_", "") for method in Method}
"""Names as the RFCs write them."""


class SessionLog:
    """An EventSink.

    Of a failed authentication the client's address follows the event's name and precedes everything that a client
    wrote: conf/fail2ban goes by that, in text and in JSON.
    """

    def started(self, event: AllocationStarted) -> None:
        if not log.is_enabled(logging.INFO):
            return
        _log.info(
            "session started",
            session=event.allocation,
            user=event.username,
            **_path(event.five_tuple),
            relayed=_listed(event.relayed),
            lifetime=event.lifetime,
            realm=event.realm,
        )

    def refreshed(self, event: AllocationRefreshed) -> None:
        """Clients do so every few minutes: no line."""

    def moved(self, event: AllocationMoved) -> None:
        if not log.is_enabled(logging.INFO):
            return
        _log.info(
            "session moved",
            session=event.allocation,
            user=event.username,
            **_path(event.five_tuple),
            left=str(event.left.client),
            realm=event.realm,
        )

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        if not log.is_enabled(logging.INFO):
            return
        _log.info(
            "session ended",
            session=event.allocation,
            user=event.username,
            **_path(event.five_tuple),
            relayed=_listed(event.relayed),
            duration=round(event.duration, 1),
            bytes_from_client=counters.bytes_from_client,
            bytes_to_client=counters.bytes_to_client,
            packets_from_client=counters.packets_from_client,
            packets_to_client=counters.packets_to_client,
            dropped=counters.dropped,
            reason=event.reason.value,
            realm=event.realm,
        )

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        client = event.five_tuple.client
        _log.warning(
            "authentication failed",
            client=client.host,
            port=client.port,
            transport=event.five_tuple.transport.value,
            user=shown(event.username),
            reason=event.reason,
            realm=event.realm,
        )

    def peer_refused(self, event: PeerRefused) -> None:
        _log.warning(
            "peer refused",
            **_path(event.five_tuple),
            session=event.allocation,
            user=event.username,
            peer=event.peer.host,
            peer_port=event.peer.port,
            reason=event.reason,
            realm=event.realm,
        )

    def request_refused(self, event: RequestRefused) -> None:
        _log.warning(
            "request refused",
            user=shown(event.username),
            realm=event.realm,
            reason=event.limit,
            method=_METHODS.get(event.method, str(event.method)),
            code=event.code,
            **_path(event.five_tuple),
        )


def _path(five_tuple: FiveTuple) -> dict[str, str]:
    return {
        "client": str(five_tuple.client),
        "transport": five_tuple.transport.value,
        "server": str(five_tuple.server),
    }


def _listed(addresses: Iterable[Address]) -> str:
    return ",".join(map(str, addresses))
