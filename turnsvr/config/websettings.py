"""The settings of the HTTP listener. Importing them needs none of the packages that serve it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from turnsvr.config import fields
from turnsvr.config.locations import split_http_url
from turnsvr.config.ranges import EVERY_ADDRESS, AddressRange, parse_host
from turnsvr.config.restart import RESTART
from turnsvr.config.units import BadValue

_DAY = 86_400.0
MAX_TTL = 30 * _DAY
"""Seconds that credentials last at most, whatever the settings and the caller say."""
_KIB = 1_024
_HTTP_PORT = 8_080
_HTTPS_PORT = 8_443
_MIN_KEY_CHARACTERS = 16
_LISTEN_PATTERN = r"^(https?)://(\*|\[[0-9a-fA-F:.%\w]+\]|[0-9.]+)(:[0-9]{1,5})?$"
_LISTEN = re.compile(r"(https?)://(\*|\[[^\[\]]+\]|[^:\[\]/]+)(?::([0-9]{1,5}))?/?", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.ASCII | re.IGNORECASE)
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


@dataclass(frozen=True, slots=True)
class WebListen:
    """Where HTTP is served: host an IP address or `*` (every one of both families), port 0 any free one.

    An optional one may be left out when the host lacks its address family.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    optional: bool = False

    @classmethod
    def parse(cls, value: object) -> WebListen:
        if isinstance(value, cls):
            return value
        match = _LISTEN.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise BadValue(
                "is not an HTTP listening address",
                "write http:// or https://, address and port, as http://127.0.0.1:8080 or https://*:8443",
            )
        scheme: Literal["http", "https"] = "https" if match[1].lower() == "https" else "http"
        host = EVERY_ADDRESS if match[2] == EVERY_ADDRESS else parse_host(match[2].strip("[]"))
        port = int(match[3]) if match[3] else _HTTPS_PORT if scheme == "https" else _HTTP_PORT
        if port > 65_535:
            raise BadValue("has a port that does not exist", "ports are 0 to 65535")
        return cls(scheme, host, port)

    def expand(self) -> tuple[WebListen, ...]:
        """This address, or for `*` the wildcard address of each family, the IPv6 one first and both optional."""
        if self.host != EVERY_ADDRESS:
            return (self,)
        return tuple(WebListen(self.scheme, host, self.port, optional=True) for host in ("::", "0.0.0.0"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_origin(value: object) -> str:
    """A web origin as browsers write it: `https://app.example.org`, with a port if it is not the scheme's own."""
    bad = BadValue("is not an origin", "write https://app.example.org, without a path; * is not one")
    parts = split_http_url(value, bad)
    if parts.path not in ("", "/") or parts.query or parts.username:
        raise bad
    host = parts.hostname or ""
    usual = {"http": 80, "https": 443}[parts.scheme]
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if parts.port in (None, usual) else f":{parts.port}")


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadValue("is no such name", "write 1 to 64 letters, digits, . _ or -, beginning with a letter or digit")
    return name


def _check_key(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < _MIN_KEY_CHARACTERS:
        raise BadValue(f"is shorter than {_MIN_KEY_CHARACTERS} characters", "make one with: turnsvr secret")
    return fields.check_secret(key)


def _parse_hash(value: object) -> str:
    match = _HASH.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise BadValue("is no SHA-256 hash", "write the 64 hex digits of: printf %s KEY | sha256sum")
    return match[1].lower()


def _check_host(host: str) -> str:
    text = host.strip("[]")
    if ":" in text or re.fullmatch(r"[0-9.]+", text):
        return parse_host(text)
    if not _HOST_NAME.fullmatch(text):
        raise BadValue("is no host name", "write turn.example.org, without scheme, port or path")
    return text


_ORIGIN = {"type": "string", "examples": ["https://app.example.org"]}
_LISTEN_SCHEMA = {"type": "string", "pattern": _LISTEN_PATTERN, "examples": ["http://127.0.0.1:8080", "https://*:8443"]}
_AsText = PlainSerializer(str, return_type=str, when_used="json")

Name = Annotated[str, AfterValidator(_check_name)]
Origins = Annotated[
    tuple[Annotated[str, PlainValidator(parse_origin)], ...],
    BeforeValidator(_split),
    WithJsonSchema({"anyOf": [_ORIGIN, {"type": "array", "items": _ORIGIN}]}),
]
WebListens = Annotated[
    tuple[Annotated[WebListen, PlainValidator(WebListen.parse), _AsText], ...],
    BeforeValidator(_split),
    WithJsonSchema({"anyOf": [_LISTEN_SCHEMA, {"type": "array", "items": _LISTEN_SCHEMA}]}),
]
KeyHash = Annotated[str, PlainValidator(_parse_hash), WithJsonSchema({"type": "string", "pattern": _HASH.pattern})]
HostName = Annotated[str, AfterValidator(_check_host)]
Ttl = Annotated[fields.Seconds, Field(ge=30, le=MAX_TTL)]


class WebTlsSettings(fields.Section):
    """A certificate of its own for https:// listeners."""

    certificate: fields.FilePath
    """PEM file with the certificate and its chain; read again when it changes."""
    key: fields.FilePath
    """PEM file with the certificate's private key, without a pass phrase."""


class WebKeySettings(fields.Section):
    """One caller that may ask for credentials."""

    name: Name
    """What the caller is called: the user of AWS and Basic callers, and in logs."""
    key: Annotated[SecretStr, AfterValidator(_check_key)] | None = None
    """The API key, at least 16 characters; turnsvr secret makes one."""
    key_hash: KeyHash | None = None
    """SHA-256 of the API key in hexadecimal, in place of the key; AWS callers need the key itself."""
    origins: Origins = ()
    """Origins of the web pages that may use the key from a browser; any of `origins` when empty."""
    ttl: Ttl | None = None
    """Longest lifetime of the caller's credentials, 30 s to 30 days; the general ttl when absent."""
    quota: int | None = Field(default=None, ge=1, le=1_000_000)
    """Credentials of this caller that may be in force at once; no limit when absent."""
    tag: Name | None = None
    """What the caller's sessions carry in user names and so in the session log; the name when absent."""

    @model_validator(mode="after")
    def _one_key(self) -> WebKeySettings:
        if (self.key is None) == (self.key_hash is None):
            raise BadValue("has both key and key_hash, or neither", "write one of them")
        return self


class WebProxySettings(fields.Section):
    """Balancers in front of HTTP that tell where connections come from (PROXY protocol, versions 1 and 2)."""

    trusted: Annotated[fields.Ranges, Field(min_length=1)]
    """Addresses of the balancers. Others are refused where a header is asked for."""
    listen: WebListens = ()
    """Listeners, of those in web.listen, whose connections begin with a header; all of them when empty."""


class SignallingSettings(fields.Section):
    """Bounds of rooms, in which two browsers find each other."""

    rooms: int = Field(default=1_000, ge=1, le=100_000)
    """Rooms at once."""
    members: int = Field(default=4, ge=2, le=16)
    """Members of one room."""
    message_size: Annotated[fields.Bytes, Field(ge=4 * _KIB, le=1_024 * _KIB)] = 64 * _KIB
    """Largest message, 4 KiB to 1 MiB; a session description with many tracks has some 10 KiB."""
    messages: fields.PerSecond = 20.0
    """Messages per second of one member, five seconds' worth at once; 0 for no limit."""
    sessions_per_address: int = Field(default=50, ge=1, le=100_000)
    """Peers of one client address that may be connected at once, in rooms or not."""
    idle_timeout: Annotated[fields.Seconds, Field(ge=10, le=_DAY)] = 3_600.0
    """How long a member may stay alone in a room, or in none, 10 s to 1 day."""


class WebSettings(fields.Section):
    """HTTP: ICE-server lists for applications, health, metrics, signalling and a test page."""

    listen: Annotated[WebListens, Field(min_length=1), RESTART] = (WebListen("http", "127.0.0.1", _HTTP_PORT),)
    """Where HTTP is served; https:// takes the certificate of web.tls or else of tls."""
    tls: Annotated[WebTlsSettings | None, RESTART] = None
    """A certificate of its own for https:// listeners; that of TURN clients when absent."""
    host: HostName | None = None
    """Name or address in the turn: URLs; what the caller wrote into its request when absent."""
    keys: tuple[WebKeySettings, ...] = ()
    """Callers that may ask for credentials."""
    public: bool = False
    """Give short-lived credentials to callers without a key, so that all who reach this listener can relay."""
    ttl: Ttl = _DAY
    """Longest lifetime of credentials, and the usual one, 30 s to 30 days."""
    public_ttl: Ttl = 600.0
    """Longest lifetime of the credentials of callers without a key, 30 s to 30 days."""
    relay_only: bool = False
    """Tell browsers to use relayed candidates alone, so that peers never see each other's addresses."""
    origins: Origins = ()
    """Origins of web pages elsewhere that may call from a browser (CORS); this server's own page always may."""
    trusted_proxies: fields.Ranges = ()
    """Addresses of reverse proxies whose X-Forwarded-For, -Proto and -Host headers are believed."""
    proxy: WebProxySettings | None = None
    """Balancers whose connections begin with a header of the PROXY protocol; none when absent."""
    requests_per_address: fields.PerSecond = 10.0
    """Requests per second of one client address without a key; 0 for no limit."""
    requests_per_key: fields.PerSecond = 100.0
    """Requests per second of one key; 0 for no limit."""
    connections: int = Field(default=1_000, ge=1, le=100_000)
    """HTTP and WebSocket connections at once; for more, those end that wait for their clients."""
    connections_per_address: int = Field(default=100, ge=1, le=100_000)
    """Connections from one client address; not of `trusted_proxies`."""
    page: bool = True
    """Serve the test page at /."""
    metrics: fields.Ranges = (AddressRange.parse("127.0.0.0/8"), AddressRange.parse("::1"))
    """Addresses that may read /metrics; an empty list switches it off."""
    signalling: Annotated[SignallingSettings | None, RESTART] = Field(default_factory=SignallingSettings)
    """Bounds of rooms, in which two browsers find each other."""

    @model_validator(mode="after")
    def _check_names(self) -> WebSettings:
        names = [key.name for key in self.keys]
        if len(set(names)) != len(names):
            raise BadValue("has two keys of one name", "give each key its own name")
        return self

    def listeners(self) -> tuple[WebListen, ...]:
        """Every listener with a concrete address, `*` written out."""
        return tuple(concrete for address in self.listen for concrete in address.expand())


def for_trying_out(*, tls: bool) -> WebSettings:
    """Everything on, on every address so that a phone can open it, and credentials for every client that reaches it."""
    listen = [WebListen("http", EVERY_ADDRESS, _HTTP_PORT)]
    if tls:
        listen.append(WebListen("https", EVERY_ADDRESS, _HTTPS_PORT))
    return WebSettings(listen=tuple(listen), public=True)
