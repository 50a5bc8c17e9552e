"""Realms: what the settings and the tables of a store say of them together.

The tables' limits come before those of the settings, their peer ranges and origins are added, and a realm that stands
in the tables alone is served like any other. An ORIGIN that both give to a realm is the settings' to give.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from turnsvr import origin
from turnsvr.config.settings import AddressRange, PeerSettings, RealmSettings, Settings
from turnsvr.stores.api import EVERY_REALM, RealmTable, Tables
from turnsvr.stun.address import Address
from turnsvr.turn.config import Listener, RealmConfig
from turnsvr.turn.policy import PeerPolicy, RangeSet

_EMPTY = RealmTable()


@dataclass(frozen=True, slots=True)
class Realms:
    """As ServerConfig has them."""

    default: RealmConfig
    others: dict[str, RealmConfig]
    origins: dict[str, str]
    listeners: dict[Listener, str]


def join(settings: Settings, tables: Tables, own: frozenset[str], relays: frozenset[str]) -> Realms:
    """own: this server's addresses that are refused in every realm. relays: see PeerPolicy."""
    policies = _Policies(settings.peers, tables.realms.get(EVERY_REALM, _EMPTY), own, relays)

    def rules(name: str, realm: RealmSettings) -> RealmConfig:
        table, limits = tables.realms.get(name, _EMPTY), realm.limits
        return RealmConfig(
            name,
            policies.of(realm.peers, table),
            allocations=_first(table.total_quota, limits.allocations) or 0,
            allocations_per_user=_first(table.user_quota, limits.allocations_per_user, every.allocations_per_user) or 0,
            bandwidth=_first(table.max_bps, limits.bandwidth_per_allocation),
        )

    every, default = settings.limits, RealmSettings()
    names = {*settings.realms, *tables.realms, *tables.origins.values()} - {EVERY_REALM, settings.realm}
    return Realms(
        default=rules(settings.realm, default),
        others={name: rules(name, settings.realms.get(name, default)) for name in sorted(names)},
        origins=_origins(settings, tables),
        listeners={
            Listener(concrete.transport != "udp", Address(concrete.host, concrete.port)): name
            for name, realm in settings.realms.items()
            for address in realm.listen
            for concrete in address.expand()
        },
    )


def refused_everywhere(own: Iterable[str], peers: PeerSettings) -> frozenset[str]:
    """Those of this server's addresses that `peers` does not allow by name."""
    return frozenset(host for host in own if not any(ipaddress.ip_address(host) in each for each in peers.allow))


class _Policies:
    """The policy of each realm; those without ranges of their own share one."""

    def __init__(self, peers: PeerSettings, table: RealmTable, own: frozenset[str], relays: frozenset[str]) -> None:
        self._allow = (*peers.allow, *table.allowed)
        self._deny = (*peers.deny, *table.denied)
        self._own = own
        self._relays = relays
        self._shared = self._make((), ())

    def of(self, peers: PeerSettings, table: RealmTable) -> PeerPolicy:
        allow, deny = (*peers.allow, *table.allowed), (*peers.deny, *table.denied)
        return self._make(allow, deny) if allow or deny else self._shared

    def _make(self, allow: tuple[AddressRange, ...], deny: tuple[AddressRange, ...]) -> PeerPolicy:
        return PeerPolicy(
            allow=_ranges((*self._allow, *allow)),
            deny=_ranges((*self._deny, *deny)),
            own=self._own,
            relays=self._relays,
        )


def _origins(settings: Settings, tables: Tables) -> dict[str, str]:
    origins = {origin.normal(text): realm for text, realm in tables.origins.items() if realm != EVERY_REALM}
    for name, realm in settings.realms.items():
        origins |= {origin.normal(text): name for text in realm.origins}
    return origins


def _first(*values: int | None) -> int | None:
    """The first that is stated; 0 states that there is no limit."""
    return next((value for value in values if value is not None), None)


def _ranges(ranges: Iterable[AddressRange]) -> RangeSet:
    return RangeSet((each.first, each.last) for each in ranges)
