"""Sessions and figures as the interface shows them."""

from __future__ import annotations

import os
import time

from turnsvr.admin import models
from turnsvr.admin.context import AdminContext, Allocation, PeerConnection
from turnsvr.admin.rates import Rate, Rates
from turnsvr.credentials.shown import shown
from turnsvr.relay.counts import Counters


async def status(context: AdminContext, rates: Rates) -> models.Status:
    facts = await context.facts()
    figures = facts.figures
    totals, sessions = figures.totals, figures.sessions
    traffic = _flows(totals.relayed, rates.total)
    expires = figures.certificate_expires
    return models.Status(
        version=facts.version,
        pid=os.getpid(),
        uptime=round(facts.uptime, 1),
        ready=not figures.draining and not facts.problems,
        draining=figures.draining,
        problems=list(facts.problems),
        pump=facts.pump,
        offload=list(facts.offload),
        listening=list(facts.listening),
        admin=list(facts.admin),
        relay=list(facts.relay),
        external=list(facts.external),
        realms=list(facts.realms),
        sessions=models.Sessions(now=figures.allocations, started=dict(sessions.started), ended=dict(sessions.ended)),
        connections=figures.connections,
        peer_connections=figures.peer_connections,
        authentications_failed=sessions.authentications_failed,
        peers_refused=sessions.peers_refused,
        relayed=models.Traffic(from_client=traffic.from_client, to_client=traffic.to_client),
        drops={drop.value: number for drop, number in totals.drops.items()},
        binding_answers=totals.binding_answers,
        challenges=totals.challenges,
        certificate_expires=None if expires is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)),
        open_files=dict(facts.open_files),
        stores={f"{each.kind} {each.name}": "ok" if each.available else "unavailable" for each in figures.sources},
        log=log_level(context),
    )


def log_level(context: AdminContext) -> models.LogLevel:
    now = context.log_level()
    return models.LogLevel(level=now.level, remaining=None if now.remaining is None else _seconds(now.remaining))


def session(context: AdminContext, rates: Rates, allocation: Allocation, *, detail: bool) -> models.Session:
    now, number, five_tuple = context.now(), allocation.number, allocation.five_tuple
    connections = context.peer_connections(number)
    return models.Session(
        id=number,
        user=allocation.shown,
        quota_user=_quota_user(allocation),
        realm=allocation.realm,
        transport=five_tuple.transport.value,
        client=str(five_tuple.client),
        server=str(five_tuple.server),
        relayed=[str(each) for each in allocation.relayed.values()],
        relay="tcp" if allocation.tcp else "udp",
        age=_seconds(now - allocation.started),
        remaining=_seconds(max(allocation.expires.values(), default=now) - now),
        pump=context.pump(),
        reader=context.reader(five_tuple),
        traffic=_flows(context.counters(number), rates.of(number)),
        permission_count=len(allocation.permissions),
        channel_count=len(allocation.channels),
        connection_count=len(connections),
        permissions=_permissions(allocation, now) if detail else None,
        channels=_channels(allocation, now) if detail else None,
        connections=[_connection(each) for each in connections] if detail else None,
    )


def _connection(connection: PeerConnection) -> models.PeerConnection:
    client = connection.client
    return models.PeerConnection(
        peer=str(connection.peer), stage=connection.stage.value, client=None if client is None else str(client.client)
    )


def _permissions(allocation: Allocation, now: float) -> list[models.Permission]:
    return [
        models.Permission(peer=host, remaining=_seconds(deadline - now))
        for host, deadline in allocation.permissions.items()
    ]


def _channels(allocation: Allocation, now: float) -> list[models.Channel]:
    return [
        models.Channel(number=number, peer=str(channel.peer), remaining=_seconds(channel.deadline - now))
        for number, channel in allocation.channels.items()
    ]


def _quota_user(allocation: Allocation) -> str:
    """Where the user name may not be shown, neither may a name to count by that is the same."""
    key = allocation.key
    return allocation.shown if key.quota_user == key.username else shown(key.quota_user)


def _flows(counters: Counters, rate: Rate) -> models.SessionTraffic:
    return models.SessionTraffic(
        from_client=models.Flow(
            packets=counters.packets_from_client,
            bytes=counters.bytes_from_client,
            packets_per_second=round(rate.packets_from_client, 1),
            bits_per_second=round(rate.bits_from_client),
        ),
        to_client=models.Flow(
            packets=counters.packets_to_client,
            bytes=counters.bytes_to_client,
            packets_per_second=round(rate.packets_to_client, 1),
            bits_per_second=round(rate.bits_to_client),
        ),
        dropped=counters.dropped,
    )


def _seconds(seconds: float) -> float:
    return round(max(0.0, seconds), 1)
