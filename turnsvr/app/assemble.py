"""What the settings mean to each room: the rules' configuration, the pump's, the peer policy, the streams' limits.

Pure, but for the host: its addresses and cores are arguments, and here is where they are asked for.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from turnsvr import __version__, relay
from turnsvr.app import realms
from turnsvr.app.realms import Realms
from turnsvr.config import doorsettings
from turnsvr.config.doorsettings import ShareSettings
from turnsvr.config.fields import ANY_OF_FAMILY, family_of
from turnsvr.config.settings import ListenAddress, NatDiscoverySettings, RedirectSettings, Settings, TlsSettings
from turnsvr.credentials.api import Traits
from turnsvr.net import hosts
from turnsvr.net.arrival import HTTP_PROTOCOLS
from turnsvr.net.connections import StreamLimits
from turnsvr.net.doors import OWN_WEB, Backend, Door, Doors, StreamListener
from turnsvr.net.ownaddresses import delivered_here
from turnsvr.net.splice import SpliceLimits
from turnsvr.net.tls import TlsFiles
from turnsvr.own import OwnHosts
from turnsvr.ranges import RangeSet
from turnsvr.relay.api import PumpSettings, RelayAddress
from turnsvr.relay.offload.settings import OffloadSettings
from turnsvr.stores.api import Tables
from turnsvr.stun.address import Address, Family
from turnsvr.turn.config import OtherAddress, Redirect, ServerConfig

_MAX_RESERVATIONS = 1_024
_NO_TABLES = Tables()
_TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of this host: all its addresses, those to relay from when the settings name none, its cores."""

    own: frozenset[str]
    """Addresses and CIDR prefixes that the kernel delivers to it."""
    relay: tuple[str, ...]
    cores: int = 1
    external: Mapping[str, str] = field(default_factory=dict)
    """External address by relay address, of those that are not in the settings and were found."""
    former: frozenset[str] = frozenset()
    """Addresses at which sessions that may still live were relayed, before others were found."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings, divided into what each room needs."""

    server: ServerConfig
    pump: PumpSettings
    offload: OffloadSettings | None
    """Programs of the kernel below the pump; None for none."""
    streams: StreamLimits
    splices: SpliceLimits
    doors: Doors


def plan(settings: Settings, host: Host, *, traits: Traits, tables: Tables = _NO_TABLES) -> Plan:
    """traits: what is to be known of the credentials of all realms. tables: what a store says."""
    relays = relay_addresses(settings, host)
    advertised = host.former.union(relay.advertised for relay in relays)
    own = own_hosts(settings, host)
    return Plan(
        server=_server_config(settings, relays, realms.join(settings, tables, own, advertised), traits),
        pump=_pump_settings(settings, host, relays),
        offload=_offload_settings(settings),
        streams=StreamLimits(
            connections=settings.limits.connections,
            connections_per_address=settings.limits.connections_per_address,
            idle_timeout=settings.limits.idle_timeout,
            buffer=settings.limits.stream_buffer,
        ),
        splices=_splices(settings.share),
        doors=doors(settings),
    )


_DEFAULT_FAMILIES = {"ipv4": Family.IPV4, "ipv6": Family.IPV6, "client": None}


def doors(settings: Settings) -> Doors:
    """The stream listeners of which there is more to say than where they are."""
    proxy, share = settings.proxy, settings.share
    proxied = set(_streams(settings, proxy.listen)) if proxy else set()
    shared = set(_streams(settings, share.listen)) if share else set()
    balancers = RangeSet((each.first, each.last) for each in proxy.trusted) if proxy else None
    only = set(_streams(settings, ())) if settings.tls is not None and settings.tls.only else set()
    only = {each for each in only if each.transport == "tls"}
    http, names = _shared(share)
    return {
        each: Door(
            balancers if each in proxied else None,
            http if each in shared else None,
            each in shared and each.transport == "tcp",
            names if each in shared else {},
            each in only,
        )
        for each in proxied | shared | only
    }


def http_protocols(share: ShareSettings | None) -> tuple[str, ...]:
    """What ALPN offers for HTTP on shared listeners, the best first."""
    if share is None or share.http is None:
        return ()
    return tuple(reversed(HTTP_PROTOCOLS)) if share.http2 else HTTP_PROTOCOLS[:1]


def _shared(share: ShareSettings | None) -> tuple[Backend | Literal["web"] | None, dict[str, Backend]]:
    """Who serves HTTP, and who takes which names."""
    if share is None:
        return None, {}
    http = share.http if share.http is None or share.http == OWN_WEB else _backend(share.http)
    return http, {name: _backend(each) for name, each in share.pass_through.items()}


def _backend(backend: doorsettings.Backend) -> Backend:
    return Backend(backend.path or Address(backend.host, backend.port), backend.header)


def _splices(share: ShareSettings | None) -> SpliceLimits:
    if share is None:
        return SpliceLimits()
    return SpliceLimits(share.connections, share.connections_per_address, share.idle_timeout)


def _streams(settings: Settings, named: Iterable[ListenAddress]) -> Iterator[StreamListener]:
    """The stream listeners that are named, all where none is; one at a wildcard address names all at its port."""
    wanted = {_place(each, each.host) for address in named for each in address.expand()}
    for each in settings.listeners():
        places = {_place(each, host) for host in (each.host, ANY_OF_FAMILY[family_of(each.host)])}
        if not each.is_datagram and (not wanted or wanted & places):
            yield StreamListener(each.transport, Address(each.host, each.port))


def _place(address: ListenAddress, host: str) -> tuple[str, str, int]:
    """TCP and TLS listeners have their ports in common, but for 0, which is any."""
    return ("" if address.port else address.transport), host, address.port


def relay_addresses(settings: Settings, host: Host) -> tuple[RelayAddress, ...]:
    """None with stun_only."""
    if settings.stun_only:
        return ()
    inner = settings.relay.addresses or host.relay
    external = settings.relay.external_for
    return tuple(RelayAddress(each, external(each) or host.external.get(each) or each) for each in inner)


def own_hosts(settings: Settings, host: Host) -> OwnHosts:
    """This host, under all of its names."""
    return OwnHosts(host.own, {relay.host: relay.advertised for relay in relay_addresses(settings, host)})


def host_of(own: frozenset[str]) -> Host:
    """own: as Host has it."""
    return Host(own, hosts.default_relay_addresses(), hosts.usable_cores())


def host_here() -> Host:
    """The host that this process runs on, as of now."""
    return host_of(delivered_here())


def own_hosts_here(settings: Settings) -> OwnHosts:
    """The host that this process runs on, as of now."""
    return own_hosts(settings, host_here())


def reservations(allocations: int) -> int:
    """Ports that may be held at once for clients that asked for a pair, where there may be so many allocations."""
    return min(_MAX_RESERVATIONS, max(1, allocations // 4))


def tls_files(tls: TlsSettings) -> TlsFiles:
    return TlsFiles(tls.certificate, tls.key, _TLS_VERSIONS[tls.minimum_version], tls.ciphers)


def refuses_dtls(settings: Settings) -> tuple[str, str] | None:
    """The setting that keeps the dtls:// listeners from being served and why; None where they are, or there is none."""
    if not any(each.transport == "dtls" for each in settings.listeners()):
        return None
    if refusal := relay.refuses_dtls(settings.pump.kind):
        return "listen", f"dtls:// cannot be served: {refusal}"
    if settings.tls is not None and _TLS_VERSIONS[settings.tls.minimum_version] > ssl.TLSVersion.TLSv1_2:
        hint = "take dtls:// out of listen, or write 1.2"
        return "tls.minimum_version", f"{ssl.OPENSSL_VERSION} has no DTLS 1.3; {hint}"
    return None


def _server_config(settings: Settings, relays: Iterable[RelayAddress], joined: Realms, traits: Traits) -> ServerConfig:
    limits, stun = settings.limits, settings.stun
    return ServerConfig(
        realm=joined.default,
        realms=joined.others,
        origins=joined.origins,
        listeners=joined.listeners,
        families=frozenset(relay.family for relay in relays),
        default_family=_DEFAULT_FAMILIES[settings.relay.default_family],
        allocations=limits.allocations,
        allocation_rate_per_user=limits.allocation_rate_per_user,
        reservations=reservations(limits.allocations),
        tcp=settings.relay.tcp,
        peer_connections=limits.peer_connections,
        peer_connections_per_user=limits.peer_connections_per_user,
        peer_connections_per_allocation=limits.peer_connections_per_allocation,
        peer_connects_per_allocation=limits.peer_connects_per_allocation,
        peer_attempts_per_allocation=limits.peer_attempts_per_allocation,
        peer_connect_rate_per_user=limits.peer_connect_rate_per_user,
        peer_connect_rate_per_address=limits.peer_connect_rate_per_address,
        permissions_per_allocation=limits.permissions_per_allocation,
        channels_per_allocation=limits.channels_per_allocation,
        max_lifetime=int(limits.lifetime),
        nonce_lifetime=settings.credentials.nonce_lifetime,
        channel_last=stun.last_channel,
        software=f"turnsvr {__version__}" if stun.software else None,
        rfc3489=stun.rfc3489,
        icmp_indications=stun.icmp_indications,
        mobility=stun.mobility,
        anonymity=traits.anonymity,
        md5_first=traits.md5_alone,
        access_tokens=None if settings.credentials.oauth is None else settings.credentials.oauth.server_name,
        redirect=_redirect(settings.redirect),
        other_addresses=other_addresses(settings.nat_discovery),
    )


def other_addresses(discovery: NatDiscoverySettings | None) -> dict[Address, OtherAddress]:
    """What is on the other side of each discovery listener (RFC 5780 section 6.1): other address, other port."""
    if discovery is None:
        return {}
    pairs = {Address(host, 0).family: host for host in discovery.alternate}
    partners = {host: pairs.get(Address(host, 0).family) for host in discovery.primary}
    partners |= {other: host for host, other in partners.items() if other is not None}
    ports = {discovery.port: discovery.alternate_port, discovery.alternate_port: discovery.port}
    return {
        Address(host, port): OtherAddress(partner, ports[port]) for host, partner in partners.items() for port in ports
    }


def _redirect(redirect: RedirectSettings | None) -> Redirect | None:
    if redirect is None:
        return None
    to = tuple(Address(other.host, other.port) for other in redirect.to)
    return Redirect(to, redirect.domain, always=redirect.when == "always")


def _pump_settings(settings: Settings, host: Host, relays: tuple[RelayAddress, ...]) -> PumpSettings:
    limits = settings.limits
    return PumpSettings(
        relay_addresses=relays,
        ports=(settings.relay.ports.low, settings.relay.ports.high),
        bandwidth=float(limits.bandwidth_per_allocation or 0),
        answers_per_address=limits.answers_per_address,
        max_permissions=limits.permissions_per_allocation,
        max_channels=limits.channels_per_allocation,
        max_sessions=limits.allocations,
        gso=settings.pump.gso,
        busy_poll=settings.pump.busy_poll / 1e6,
        threads=settings.pump.thread_count(host.cores),
        stream_buffer=limits.stream_buffer,
        peer_errors=settings.stun.icmp_indications,
        associations=limits.connections,
        associations_per_address=limits.connections_per_address,
        idle_timeout=limits.idle_timeout,
    )


def _offload_settings(settings: Settings) -> OffloadSettings | None:
    mode, interfaces = settings.pump.offload, settings.pump.interfaces
    return None if mode == "off" else OffloadSettings(mode, None if interfaces == "auto" else interfaces)
