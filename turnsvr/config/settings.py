"""What can be set: every setting with its default, its unit and its one-line meaning.

The models hold for Python callers as for the file; what a file must say beyond them is config.py's to ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from turnsvr.config import fields
from turnsvr.config.acmesettings import AcmeSettings
from turnsvr.config.adminsettings import AdminSettings, StatusSettings
from turnsvr.config.credentialsettings import CredentialSettings, KnownUsers
from turnsvr.config.ranges import (
    STUN_PORT,
    AddressRange,
    Endpoint,
    ListenAddress,
    PeerRange,
    PortRange,
    parse_external_source,
    parse_host,
)
from turnsvr.config.restart import PRESENCE, RESTART, OnRestart, mark_of
from turnsvr.config.units import BadValue
from turnsvr.config.websettings import WebSettings

__all__ = [
    "AcmeSettings",
    "AddressRange",
    "AdminSettings",
    "CredentialSettings",
    "Endpoint",
    "KnownUsers",
    "LimitSettings",
    "ListenAddress",
    "LogSettings",
    "NatDiscoverySettings",
    "PeerRange",
    "PeerSettings",
    "PortRange",
    "PumpSettings",
    "RealmLimitSettings",
    "RealmSettings",
    "RedirectSettings",
    "RelaySettings",
    "Settings",
    "StatusSettings",
    "StunSettings",
    "TlsSettings",
    "WebSettings",
    "json_schema",
]

_HOUR = 3_600.0
_DAY = 86_400.0
_KIB = 1_024
_MIB = 1_048_576
_NO_FILE = Path()


class TlsSettings(fields.Section):
    """TLS for clients (tls:// listeners)."""

    certificate: fields.FilePath
    """PEM file with the certificate and its chain; read again when it changes."""
    key: fields.FilePath
    """PEM file with the certificate's private key, without a pass phrase."""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """Oldest TLS version that clients may use."""
    ciphers: str | None = Field(default=None, min_length=1)
    """OpenSSL cipher list for TLS 1.2; Python's own choice when absent."""
    acme: AcmeSettings | None = None
    """Has an ACME authority issue the certificate, in place of the files; none when absent."""

    @model_validator(mode="wrap")
    @classmethod
    def _files_of_acme(cls, value: object, handler: ModelWrapValidatorHandler[TlsSettings]) -> TlsSettings:
        if not isinstance(value, Mapping) or value.get("acme") is None:
            return handler(value)
        if value.get("certificate") is not None or value.get("key") is not None:
            raise BadValue("has acme and a certificate or key", "write one of both: acme keeps files of its own")
        made = handler({**value, "certificate": _NO_FILE, "key": _NO_FILE})
        assert made.acme is not None
        return made.model_copy(update={"certificate": made.acme.certificate, "key": made.acme.certificate})

    @model_serializer(mode="wrap")
    def _without_files_of_acme(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.acme is not None:
            del written["certificate"], written["key"]
        return written


class RelaySettings(fields.Section):
    """Where relayed transport addresses come from."""

    addresses: Annotated[fields.IpTexts, Field(min_length=1)] | None = None
    """Local addresses that relay; found by itself when absent."""
    external: fields.External = Field(default_factory=dict)
    """What one-to-one NAT puts in place of relay addresses: one, one a family, relay: external, auto, or a name."""
    external_stun: Annotated[fields.StunServers, Field(max_length=8)] = ()
    """STUN servers that `external: auto` asks where no cloud tells; two well-known ones when absent."""
    external_interval: Annotated[fields.Seconds, Field(ge=1, le=_DAY)] = 300.0
    """How often an external address that is found by itself is looked at again, 1 s to 1 day."""
    ports: fields.Ports = PortRange(49_152, 65_535)
    """Ports of relayed transport addresses."""

    _external_source: str | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _take_source(cls, value: Any, handler: ModelWrapValidatorHandler[RelaySettings]) -> RelaySettings:
        """What finds the external address by itself stands beside the addresses that are written down."""
        source = parse_external_source(value.get("external")) if isinstance(value, Mapping) else None
        if source is None:
            return handler(value)
        made = handler({**value, "external": {}})
        made._external_source = source
        return made

    @model_serializer(mode="wrap")
    def _write_source(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return written if self._external_source is None else {**written, "external": self._external_source}

    @property
    def external_source(self) -> str | None:
        """`auto`, or the DNS name of the external address; None where addresses are written down, or none is."""
        return self._external_source

    def external_for(self, address: str) -> str | None:
        """The address that is written down for this relay address, None when none is."""
        relay = parse_host(address)
        return self.external.get(relay) or self.external.get(fields.ANY_OF_FAMILY[fields.family_of(relay)])


class PeerSettings(fields.Section):
    """Which peers may be reached beyond the safe default, which refuses private and other special-purpose ranges."""

    allow: fields.PeerRanges = ()
    """What may be reached although the default or `deny` refuses it; this host only by addresses, best with ports."""
    deny: fields.Ranges = ()
    """Ranges that are refused besides the default ones."""


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
    """TCP and TLS connections that the server holds at once."""
    connections_per_address: int = Field(default=200, ge=1, le=1_000_000)
    """TCP and TLS connections from one client address."""
    answers_per_address: fields.PerSecond = 100.0
    """Unauthenticated answers (Binding, 401) a second to one client address, of which ten seconds' worth are saved up;
    0 for no limit."""
    idle_timeout: Annotated[fields.Seconds, Field(ge=1, le=_DAY)] = 30.0
    """How long a TCP or TLS connection may stay without an allocation, 1 s to 1 day."""
    stream_buffer: Annotated[fields.Bytes, Field(ge=16 * _KIB, le=64 * _MIB)] = 256 * _KIB
    """Output queued for one slow TCP or TLS client, 16 KiB to 64 MiB."""


class StunSettings(fields.Section):
    """How the server speaks STUN."""

    software: bool = True
    """Name the server and its version in answers (SOFTWARE)."""
    rfc3489: bool = False
    """Answer clients of RFC 3489, whose requests have no magic cookie."""
    icmp_indications: bool = False
    """Tell clients of ICMP errors from peers: Data indications without DATA, which end the calls of some clients."""
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
        return (*discovery, *(each for each in named if not any(_overlap(each, other) for other in discovery)))

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
    return same_host and one.port == other.port and (one.transport == "udp") == (other.transport == "udp")


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the settings file, its defaults written as the file writes them."""
    from turnsvr.config.descriptions import describe

    schema = Settings.model_json_schema()
    describe(schema, Settings)
    for kind in _sections():
        describe(schema["$defs"].get(kind.__name__, {}), kind)
        _mark_restarts(schema["$defs"].get(kind.__name__, {}), kind)
    _mark_restarts(schema, Settings)
    written = Settings().model_dump(mode="json")
    for name, section in schema["properties"].items():
        definition = schema["$defs"].get(section.get("$ref", "").rpartition("/")[2])
        if definition is not None:
            section.pop("default", None)
            section["description"] = definition["description"]
            for field, value in written[name].items():
                definition["properties"][field]["default"] = value
    tls = schema["$defs"]["TlsSettings"]
    tls["anyOf"] = [{"required": tls.pop("required")}, {"required": ["acme"]}]
    credentials = schema["$defs"]["CredentialSettings"]["properties"]
    credentials["secret"] = {
        "type": "string",
        "minLength": 1,
        "writeOnly": True,
        "description": "One shared secret.",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "turnsvr.yaml"}


def _mark_restarts(schema: dict[str, Any], kind: type[fields.Section]) -> None:
    """Have editors say what a reload does not change."""
    for name, described in schema.get("properties", {}).items():
        mark = mark_of(kind, name)
        if mark is not None and not mark.presence:
            described["description"] = f"{described.get('description', '')} Only a restart changes it.".strip()


def _sections(kind: type[fields.Section] = fields.Section) -> Iterator[type[fields.Section]]:
    """Every section, however deep."""
    for each in kind.__subclasses__():
        yield each
        yield from _sections(each)
