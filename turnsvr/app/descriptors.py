"""How the open files of the process are shared out: to relays, streams, peers, HTTP, other servers, admin and stores.

The law: each part keeps a bound of its own (allocations, connections), and all bounds together fit into what the system
allows (RLIMIT_NOFILE). So one full part takes nothing from another. Where the system allows fewer files than the
settings ask for, stores, the admin interface and the server itself have theirs first; relays, streams, peers, HTTP and
what other servers take share the rest in proportion to what the settings ask for.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from dataclasses import dataclass

from turnsvr import admin, relay
from turnsvr.app import assemble
from turnsvr.config.settings import Settings
from turnsvr.net.accepting import BATCH

_OWN = 64
"""Standard streams, the log, files that are read now and then, sockets that probe or look something up."""
_A_THREAD = 2
"""Of the pump."""
_STORE, _HOOK, _TOKENS, _STATUS = 32, 96, 8, 8
"""Connections to databases and services that know users, including those that are being closed."""
_PASSING = 3 * BATCH
"""Connections of one part that are accepted already and not refused yet, or ended and not closed yet."""
_LEAST = 16
"""The least share of each part, however few open files there are."""


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """Open files by part, and the bounds that keep each within its share."""

    limit: int | None
    """Open files that the system allows; None where it sets no limit, or none is known."""
    server: int
    stores: int
    admin: int
    web: int
    shared: int
    """Connections that other servers take (share), each with the one to its server."""
    streams: int
    relays: int
    peers: int
    """Connections to peers over TCP; 0 without relay.tcp."""
    allocations: int
    """Allocations that relays have room for, at most limits.allocations."""
    connections: int
    """Connections that streams have room for, at most limits.connections."""
    web_connections: int
    """At most web.connections; 0 without web."""
    shared_connections: int
    """At most share.connections; 0 where no other server takes any."""
    peer_connections: int
    """At most limits.peer_connections; that without relay.tcp."""

    @property
    def total(self) -> int:
        return sum(self.shares().values())

    def applied(self, settings: Settings) -> Settings:
        """The settings with the bounds for which there is room."""
        limits = settings.limits.model_copy(
            update={
                "allocations": self.allocations,
                "connections": self.connections,
                "peer_connections": self.peer_connections,
            },
        )
        share = settings.share and settings.share.model_copy(update={"connections": max(1, self.shared_connections)})
        return settings.model_copy(update={"limits": limits, "share": share})

    def shares(self) -> dict[str, int]:
        """Open files by part, in the order in which they are told."""
        names = ("relays", "streams", "peers", "web", "shared", "admin", "stores", "server")
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, int]:
        """The shares, and before them the limit where there is one."""
        return self.shares() if self.limit is None else {"limit": self.limit, **self.shares()}

    def describe(self) -> str:
        """For people: the limit, and what each part may open."""
        parts = ", ".join(f"{name} {share}" for name, share in self.shares().items() if share)
        return f"{'no limit' if self.limit is None else self.limit} ({parts})"

    def reduced(self, settings: Settings) -> list[tuple[str, int, int]]:
        """Settings that the system has no room for, each with what there is room for, and what it says."""
        limits, web = settings.limits, settings.web
        found = [
            ("limits.allocations", limits.allocations, self.allocations),
            ("limits.connections", limits.connections, self.connections),
            ("limits.peer_connections", limits.peer_connections, self.peer_connections),
            ("web.connections", web.connections if web else 0, self.web_connections),
            ("share.connections", _shared(settings), self.shared_connections),
        ]
        return [(name, room, wanted) for name, wanted, room in found if room < wanted]


def share_out_on(host: assemble.Host, settings: Settings, limit: int | None) -> OpenFiles:
    """On this host, with so many open files; None for any number."""
    families = len({each.family for each in assemble.relay_addresses(settings, host)})
    threads = settings.pump.thread_count(host.cores)
    group = relay.listener_sockets(settings.pump.kind, threads)
    return share_out(settings, limit, families=families, threads=threads, group=group)


def share_out(
    settings: Settings, limit: int | None, *, families: int = 2, threads: int = 1, group: int = 1
) -> OpenFiles:
    """limit: RLIMIT_NOFILE, None for none; families: address families that are relayed.

    threads: of the pump; group: its sockets at each UDP listener's address.
    """
    server, stores, administration = _server(settings, threads, group), _stores(settings), _admin(settings)
    wanted = {
        "relays": _sockets(settings.limits.allocations, families),
        "streams": settings.limits.connections + _PASSING,
        "peers": settings.limits.peer_connections + _PASSING if settings.relay.tcp else 0,
        "web": settings.web.connections + _PASSING if settings.web else 0,
        "shared": 2 * _shared(settings) + _PASSING if _shared(settings) else 0,
    }
    shares = _in_proportion(wanted, None if limit is None else limit - server - stores - administration)
    return OpenFiles(
        limit=limit,
        server=server,
        stores=stores,
        admin=administration,
        **shares,
        allocations=_allocations(settings.limits.allocations, shares["relays"], families),
        connections=_room(settings.limits.connections, shares["streams"]),
        web_connections=_room(settings.web.connections, shares["web"]) if settings.web else 0,
        shared_connections=_room(2 * _shared(settings), shares["shared"]) // 2,
        peer_connections=_room(settings.limits.peer_connections, shares["peers"])
        if settings.relay.tcp
        else settings.limits.peer_connections,
    )


def _in_proportion(wanted: dict[str, int], room: int | None) -> dict[str, int]:
    """What is wanted as far as there is room, the same part of each; but HTTP, which wants little, gets an eighth."""
    if room is None or room >= sum(wanted.values()):
        return wanted
    room = max(room, 0)
    rest = {name: many for name, many in wanted.items() if name != "web"}
    others = sum(rest.values())
    web = min(wanted["web"], max(room // 8, room * wanted["web"] // (others + wanted["web"])))
    left = {name: many * (room - web) // others for name, many in rest.items()}
    return {name: wanted[name] and max(_LEAST, share) for name, share in (left | {"web": web}).items()}


def raise_limit(wanted: int) -> int | None:
    """Raise the limit of open files to this, as far as the system allows. Returns the limit, None without one."""
    try:
        import resource
    except ImportError:
        return None
    granted = would_grant(wanted)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if granted is not None and granted > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        granted = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return granted


def would_grant(wanted: int) -> int | None:
    """Open files that the system would let this process have, which wants so many; None for any number."""
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    return max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))


def _sockets(allocations: int, families: int) -> int:
    """Of so many allocations, with the ports that are held for clients that asked for a pair."""
    return allocations * families + assemble.reservations(allocations)


def _allocations(wanted: int, share: int, families: int) -> int:
    """The most, up to those wanted, whose sockets fit into the share."""
    fitting = range(1, wanted + 1)
    return max(1, bisect_right(fitting, share, key=lambda allocations: _sockets(allocations, families)))


def _room(wanted: int, share: int) -> int:
    """Connections in a share; while there is little, fewer may be passing."""
    return max(1, min(wanted, share - min(_PASSING, share // 2)))


def _shared(settings: Settings) -> int:
    """Connections that other servers may take."""
    return settings.share.connections if settings.share is not None and settings.share.has_backends else 0


def _server(settings: Settings, threads: int, group: int) -> int:
    listeners = settings.listeners()
    udp = sum(each.is_datagram for each in listeners)
    http = len(settings.web.listeners()) if settings.web else 0
    return _OWN + threads * _A_THREAD + group * udp + len(listeners) - udp + http


def _stores(settings: Settings) -> int:
    credentials = settings.credentials
    return (
        (_STORE if credentials.store is not None else 0)
        + (_HOOK if credentials.hook is not None else 0)
        + (_TOKENS if credentials.tokens is not None else 0)
        + (_STATUS if settings.status is not None else 0)
    )


def _admin(settings: Settings) -> int:
    if settings.admin.socket == "off" and not settings.admin.listen:
        return 0
    return admin.CONNECTIONS + 2 * _PASSING + 2
