"""Realms: what the settings and the tables of a store say of them together.

The tables' limits come before those of the settings, their peer ranges and origins are added, and a realm that stands
in the tables alone is served like any other. An ORIGIN that both give to a realm is the settings' to give.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from turnsvr import origin
from turnsvr.config.settings import AddressRange, PeerRange, PeerSettings, RealmSettings, Settings
from turnsvr.own import OwnHosts
from turnsvr.ranges import EVERY_PORT, IPAddress, Ports, joined
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


def join(settings: Settings, tables: Tables, own: OwnHosts, relays: frozenset[str]) -> Realms:
    """own: this host. relays: see PeerPolicy."""
    every_table = tables.realms.get(EVERY_REALM, _EMPTY)
    low, high = settings.relay.ports.low, settings.relay.ports.high
    policies = _Policies(settings.peers, every_table, own, relays, ((low, high),))

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
    names = {*settings.realms, *tables.realms, *tables.origins.values(), *_of_keys(settings)}
    names -= {EVERY_REALM, settings.realm}
    return Realms(
        default=rules(settings.realm, default),
        others={name: rules(name, settings.realms.get(name, default)) for name in sorted(names)},
        origins=_origins(settings, tables),
        listeners={
            Listener(not concrete.is_datagram, Address(concrete.host, concrete.port)): name
            for name, realm in settings.realms.items()
            for address in realm.listen
            for concrete in address.expand()
        },
    )


def _of_keys(settings: Settings) -> set[str]:
    """Realms of those who show access tokens, by the keys of the file."""
    oauth = settings.credentials.oauth
    return {key.realm for key in oauth.keys.values() if key.realm is not None} if oauth is not None else set()


class _Policies:
    """The policy of each realm; those without ranges of their own share one."""

    def __init__(
        self, peers: PeerSettings, table: RealmTable, own: OwnHosts, relays: frozenset[str], relay_ports: Ports
    ) -> None:
        self._allow = _allowed(peers, table)
        self._deny = (*peers.deny, *table.denied)
        self._own = own
        self._relays = relays
        self._relay_ports = relay_ports
        self._shared = self._make((), ())

    def of(self, peers: PeerSettings, table: RealmTable) -> PeerPolicy:
        allow, deny = _allowed(peers, table), (*peers.deny, *table.denied)
        return self._make(allow, deny) if allow or deny else self._shared

    def _make(self, allow: Sequence[PeerRange], deny: Sequence[AddressRange]) -> PeerPolicy:
        allow = (*self._allow, *allow)
        return PeerPolicy(
            allow=_ranges(each.addresses for each in allow if each.ports is None),
            deny=_ranges((*self._deny, *deny)),
            named=_named(allow),
            own=self._own,
            relays=self._relays,
            relay_ports=self._relay_ports,
        )


def _allowed(peers: PeerSettings, table: RealmTable) -> tuple[PeerRange, ...]:
    return (*peers.allow, *map(PeerRange, table.allowed))


def _named(allow: Iterable[PeerRange]) -> dict[IPAddress, Ports]:
    """The ports of each single address."""
    named: dict[IPAddress, Ports] = {}
    for each in allow:
        if each.is_single:
            ports = EVERY_PORT if each.ports is None else ((each.ports.low, each.ports.high),)
            named[each.addresses.first] = joined(named.get(each.addresses.first, ()), ports)
    return named


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
