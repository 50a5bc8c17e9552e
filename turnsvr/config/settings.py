"""What can be set: every setting with its default, its unit and its one-line meaning.

Larger sections stand in modules of their own, as relaysettings.py. The models hold for Python callers as for the
file; what a file must say beyond them, config/__init__.py asks for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from turnsvr.config import fields
from turnsvr.config.acmesettings import AcmeSettings
from turnsvr.config.adminsettings import AdminSettings, StatusSettings
from turnsvr.config.credentialsettings import CredentialSettings, KnownUsers
from turnsvr.config.doorsettings import ProxySettings, ShareSettings
from turnsvr.config.ranges import (
    STUN_PORT,
    AddressRange,
    ListenAddress,
    PeerRange,
    PortRange,
)
from turnsvr.config.relaysettings import PeerSettings, RelaySettings
from turnsvr.config.restart import PRESENCE, RESTART, OnRestart
from turnsvr.config.tlssettings import TlsSettings
from turnsvr.config.units import BadValue
from turnsvr.config.usagesettings import UsageSettings
from turnsvr.config.websettings import WebSettings

__all__ = [
    "AcmeSettings",
    "AddressRange",
    "AdminSettings",
    "CredentialSettings",
    "KnownUsers",
    "LimitSettings",
    "ListenAddress",
    "LogSettings",
    "NatDiscoverySettings",
    "PeerRange",
    "PeerSettings",
    "PortRange",
    "ProxySettings",
    "PumpSettings",
    "RealmLimitSettings",
    "RealmSettings",
    "RedirectSettings",
    "RelaySettings",
    "Settings",
    "ShareSettings",
    "StatusSettings",
    "StunSettings",
    "TlsSettings",
    "WebSettings",
]

_HOUR = 3_600.0
_DAY = 86_400.0
_KIB = 1_024
_MIB = 1_048_576


class LimitSettings(fields.Section):
    """Bounds of what clients can take."""

    allocations_per_user: int = Field(default=12, ge=1, le=1_000_000)
    """Allocations that one user may hold at once."""
    allocation_rate_per_user: fields.PerSecond = 100.0
    """Allocations per second that one user may make, ten seconds' worth or all it may hold at once; 0 for no limit."""
    allocations: int = Field(default=10_000, ge=1, le=1_000_000)
    """Allocations that the server holds at once."""
    bandwidth_per_allocation: Annotated[fields.BytesPerSecond, Field(ge=1_000)] | None = None
    """Bytes per second that one allocation relays each way, at least 1 kB/s; no limit when absent."""
    lifetime: Annotated[fields.Seconds, Field(ge=60, le=30 * _DAY)] = _HOUR
    """Longest lifetime that an allocation is granted at a time, 1 minute to 30 days."""
    permissions_per_allocation: int = Field(default=256, ge=1, le=65_536)
    """Peer addresses that one allocation may hold permissions for."""
    channels_per_allocation: int = Field(default=256, ge=1, le=16_384)
    """Channels that one allocation may bind."""
    connections: int = Field(default=10_000, ge=1, le=1_000_000)
    """TCP and TLS connections that the server holds at once, and as many DTLS associations besides."""
    connections_per_address: int = Field(default=200, ge=1, le=1_000_000)
    """TCP and TLS connections from one client address."""
    answers_per_address: fields.PerSecond = 100.0
    """Unauthenticated answers (Binding, 401) a second to one client address, of which ten seconds' worth are saved up;
    0 for no limit."""
    peer_connections: int = Field(default=2_000, ge=1, le=1_000_000)
    """TCP connections to peers that the server holds at once, with `relay.tcp`."""
    peer_connections_per_user: int = Field(default=256, ge=1, le=1_000_000)
    """TCP connections to peers that one user may hold."""
    peer_connections_per_allocation: int = Field(default=64, ge=1, le=65_536)
    """TCP connections to peers that one allocation may hold."""
    peer_connects_per_allocation: int = Field(default=8, ge=1, le=65_536)
    """Of these, those that are still being made."""
    peer_attempts_per_allocation: int = Field(default=16, ge=1, le=65_536)
    """Of these, those that the client has given no connection of its own yet: 30 s, then they are closed. Peers that
    connect from one address have half of them."""
    peer_connect_rate_per_user: fields.PerSecond = 5.0
    """Connections to peers per second that one user may ask for, ten seconds' worth at once; 0 for no limit."""
    peer_connect_rate_per_address: fields.PerSecond = 20.0
    """Connections to peers per second that one client address may ask for, likewise."""
    idle_timeout: Annotated[fields.Seconds, Field(ge=1, le=_DAY)] = 30.0
    """How long a TCP or TLS connection may stay without an allocation, 1 s to 1 day."""
    stream_buffer: Annotated[fields.Bytes, Field(ge=16 * _KIB, le=64 * _MIB)] = 256 * _KIB
    """Output queued for one slow TCP or TLS client, 16 KiB to 64 MiB."""
    staying: Annotated[fields.Seconds, Field(ge=1, le=30 * _DAY)] | None = None
    """How long after an upgrade the old process goes on with sessions that could not move (TLS, DTLS, TCP relaying),
    1 s to 30 days; as long as they last when absent."""


class StunSettings(fields.Section):
    """How the server speaks STUN."""

    software: bool = True
    """Name the server and its version in answers (SOFTWARE)."""
    rfc3489: bool = False
    """Answer clients of RFC 3489, whose requests have no magic cookie."""
    icmp_indications: bool = False
    """Tell clients of ICMP errors from peers: Data indications without DATA, which end the calls of some clients."""
    mobility: bool = False
    """Let sessions go with their clients to other addresses, by tickets (RFC 8016)."""
    channels: Literal["0x4000-0x7FFF", "0x4000-0x4FFF"] = "0x4000-0x7FFF"
    """Channel numbers that clients may bind: those of RFC 5766, or the narrower range of RFC 8656."""

    @property
    def last_channel(self) -> int:
        return int(self.channels.rpartition("-")[2], 16)


class RedirectSettings(fields.Section):
    """Other servers that clients are sent to (300 Try Alternate)."""

    to: Annotated[fields.Endpoints, Field(min_length=1)]
    """Addresses and ports of the other servers, taken in turn; port 3478 when not written."""
    domain: str | None = Field(default=None, min_length=1, max_length=255)
    """Name in the other servers' certificates (ALTERNATE-DOMAIN), for TLS clients."""
    when: Literal["full", "always"] = "full"
    """Send clients on when no allocation is free here, or always."""


class NatDiscoverySettings(fields.Section):
    """NAT behaviour discovery (RFC 5780)."""

    primary: Annotated[fields.OneAFamily, Field(min_length=1)]
    """Address that clients know, one a family."""
    alternate: fields.OneAFamily = ()
    """Second address of the same family; without it only the port can change."""
    port: int = Field(default=STUN_PORT, ge=1, le=65_535)
    """Port that clients know."""
    alternate_port: int = Field(default=3_479, ge=1, le=65_535)
    """Second port."""

    @model_validator(mode="after")
    def _check_alternates(self) -> NatDiscoverySettings:
        if not {*map(fields.family_of, self.alternate)} <= {*map(fields.family_of, self.primary)}:
            raise BadValue("has an alternate of a family without a primary", "name both of a family")
        if set(self.alternate) & set(self.primary):
            raise BadValue("has one address as primary and alternate", "name two addresses of this host")
        if self.port == self.alternate_port:
            raise BadValue("has one port twice", "port and alternate_port differ")
        return self

    def listeners(self) -> tuple[ListenAddress, ...]:
        """Both ports of every address, over UDP and TCP."""
        return tuple(
            ListenAddress(transport, host, port)
            for host in (*self.primary, *self.alternate)
            for port in (self.port, self.alternate_port)
            for transport in ("udp", "tcp")
        )


InterfaceName = Annotated[str, Field(min_length=1, max_length=15, pattern=r"^[^\s/]+$")]


class PumpSettings(fields.Section):
    """What moves relayed packets."""

    kind: Annotated[Literal["auto", "compiled", "portable"], RESTART] = "auto"
    """Which pump; auto takes the compiled one when it is installed."""
    threads: Annotated[fields.Threads, RESTART] = "auto"
    """Threads of the compiled pump; auto is one a core."""
    gso: bool = True
    """Send equal packets to one destination as one (UDP_SEGMENT) where the kernel can."""
    busy_poll: int = Field(default=0, ge=0, le=1_000)
    """Microseconds for which a thread of the compiled pump looks for another packet before it sleeps."""

    offload: Annotated[Literal["off", "auto", "xdp", "tc"], RESTART] = "off"
    """Programs of the kernel that carry channels of UDP clients; auto takes native XDP where there is, else TC."""
    interfaces: Annotated[Literal["auto"] | tuple[InterfaceName, ...], RESTART] = "auto"
    """Where `offload` carries; auto is every Ethernet interface with an address."""

    def thread_count(self, cores: int) -> int:
        """Threads to start on a host that lends us this many cores."""
        return max(1, cores) if self.threads == "auto" else self.threads


class LogSettings(fields.Section):
    """Log on standard error, or in a file."""

    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages that are written."""
    file: fields.FilePath | None = None
    """File that lines are appended to, in place of standard error; opened again on SIGHUP and `turnsvr reload`."""


class RealmLimitSettings(fields.Section):
    """Bounds of one realm; those of `limits` where absent."""

    allocations: int | None = Field(default=None, ge=1, le=1_000_000)
    """Allocations that the realm holds at once, within those of the server."""
    allocations_per_user: int | None = Field(default=None, ge=1, le=1_000_000)
    """Allocations that one of its users may hold at once."""
    bandwidth_per_allocation: Annotated[fields.BytesPerSecond, Field(ge=1_000)] | None = None
    """Bytes per second that one of its allocations relays each way, at least 1 kB/s."""


class RealmSettings(fields.Section):
    """One more realm with users, secrets, limits and peers of its own."""

    origins: fields.OriginTexts = ()
    """Values of ORIGIN that choose this realm, as https://app.example.org."""
    listen: fields.ListenAddresses = ()
    """Listeners, of those that serve, that choose this realm."""
    credentials: KnownUsers = Field(default_factory=KnownUsers)
    """Users and secrets of this realm alone; a store, hook or token source serves all realms."""
    peers: PeerSettings = Field(default_factory=PeerSettings)
    """Peers beyond those that `peers` allows and denies to every realm."""
    limits: RealmLimitSettings = Field(default_factory=RealmLimitSettings)
    """Bounds of this realm; those of `limits` where absent."""


class Settings(fields.Section):
    """A whole server. Without any setting it serves, with a secret made for the run."""

    realm: fields.Realm = "turnsvr"
    """Realm of the long-term credentials, usually the domain name."""
    listen: Annotated[
        Annotated[fields.ListenAddresses, Field(min_length=1)] | None, OnRestart(meaning="named_listeners")
    ] = None
    """Where clients are served; when absent UDP and TCP on 3478 of every address, with tls TLS on 5349."""
    tls: Annotated[TlsSettings | None, PRESENCE] = None
    """Certificate for TLS clients; no TLS when absent."""
    proxy: ProxySettings | None = None
    """Balancers in front that tell where TCP and TLS clients come from (PROXY protocol); none when absent."""
    share: ShareSettings | None = None
    """HTTP, and TLS servers of other names, on the ports of TURN clients; none when absent."""
    relay: RelaySettings = Field(default_factory=RelaySettings)
    """Where relayed transport addresses come from."""
    credentials: CredentialSettings = Field(default_factory=CredentialSettings)
    """Who may relay."""
    realms: dict[fields.Realm, RealmSettings] = Field(default_factory=dict)
    """More realms by name, each chosen by ORIGIN or by listener; `realm` is that of all other clients."""
    peers: PeerSettings = Field(default_factory=PeerSettings)
    """Which peers may be reached beyond the safe default."""
    limits: LimitSettings = Field(default_factory=LimitSettings)
    """Bounds of what clients can take."""
    stun: StunSettings = Field(default_factory=StunSettings)
    """How the server speaks STUN."""
    redirect: RedirectSettings | None = None
    """Other servers that clients are sent to; none when absent."""
    stun_only: bool = False
    """Serve STUN Binding alone: no relay, no credentials."""
    nat_discovery: Annotated[NatDiscoverySettings | None, RESTART] = None
    """NAT behaviour discovery (RFC 5780); off when absent."""
    pump: PumpSettings = Field(default_factory=PumpSettings)
    """What moves relayed packets."""
    web: Annotated[WebSettings | None, PRESENCE] = None
    """HTTP: ICE-server lists, health, metrics, signalling and a test page; off when absent."""
    admin: AdminSettings = Field(default_factory=AdminSettings)
    """Watching and controlling over a socket of its own."""
    status: Annotated[StatusSettings | None, RESTART] = None
    """Sessions as coturn tells of them in Redis; off when absent."""
    usage: Annotated[UsageSettings | None, RESTART] = None
    """A record of what each session relayed; off when absent."""
    survive: Annotated[Literal["none", "restart", "crash"], RESTART] = "restart"
    """What sessions outlive beside `turnsvr upgrade`: a restart by systemd, a crash of the server as well, or none."""
    log: LogSettings = Field(default_factory=LogSettings)
    """Log on standard error."""

    @property
    def has_credentials(self) -> bool:
        """Whether any user could relay."""
        realms = (realm.credentials for realm in self.realms.values())
        return self.credentials.any_user or any(known.users or known.secrets for known in realms)

    @property
    def has_no_user(self) -> bool:
        """Whether no user could relay though relaying is wanted, as without a settings file."""
        return not self.stun_only and not self.has_credentials

    def listeners(self) -> tuple[ListenAddress, ...]:
        """Every listener with a concrete address; never empty.

        With nat_discovery its addresses are listened on one by one, and a wildcard in their place gives way.
        """
        named = self.named_listeners()
        if self.nat_discovery is None:
            return named
        discovery = self.nat_discovery.listeners()
        secured = (
            replace(other, transport="dtls")
            for other in discovery
            if other.is_datagram and any(each.transport == "dtls" and _overlap(each, other) for each in named)
        )
        return (
            *discovery,
            *secured,
            *(each for each in named if not any(_overlap(each, other) for other in discovery)),
        )

    def named_listeners(self) -> tuple[ListenAddress, ...]:
        """What `listen` says, `*` and the default written out."""
        transports = ("udp", "tcp", "tls") if self.tls else ("udp", "tcp")
        default = tuple(ListenAddress.parse(f"{transport}://*") for transport in transports)
        return tuple(concrete for address in self.listen or default for concrete in address.expand())


def _overlap(one: ListenAddress, other: ListenAddress) -> bool:
    """Whether both would listen on the same port of the same address."""
    same_family = fields.family_of(one.host) == fields.family_of(other.host)
    any_host = {one.host, other.host} & {"0.0.0.0", "::"}
    same_host = one.host == other.host or (same_family and bool(any_host))
    return same_host and one.port == other.port and one.is_datagram == other.is_datagram
