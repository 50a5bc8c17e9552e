"""The settings of what stands beside TURN on stream listeners: balancers in front, and HTTP and others behind."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from turnsvr.config import fields
from turnsvr.config.ranges import parse_host
from turnsvr.config.units import BadValue

_DAY = 86_400.0
_MAX_NAMES = 1_000
_BACKEND = re.compile(r"(proxy\+)?(?:tcp://(\[[^\[\]]+\]|[^:\[\]/]+):([0-9]{1,5})|unix:(/[^\0]{1,100}))", re.IGNORECASE)
_NAME = re.compile(
    r"(?=.{1,253}$)(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
)
OWN_WEB = "web"
"""The HTTP server of the section web."""


class ProxySettings(fields.Section):
    """Balancers in front that tell where connections come from (PROXY protocol, versions 1 and 2)."""

    trusted: Annotated[fields.Ranges, Field(min_length=1)]
    """Addresses of the balancers. Others are refused where a header is asked for."""
    listen: fields.ListenAddresses = ()
    """TCP and TLS listeners, of those that serve, whose connections begin with a header; all of them when empty."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A server that connections are passed on to: at an IP address and port, or at a Unix socket."""

    host: str
    port: int
    path: str = ""
    header: bool = False
    """Whether each begins with a PROXY header, version 2."""

    @classmethod
    def parse(cls, value: object) -> Backend:
        if isinstance(value, cls):
            return value
        match = _BACKEND.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise BadValue(
                "is no server to pass connections to",
                "write tcp://127.0.0.1:8080, unix:/run/app.sock, or either with proxy+ in front for a PROXY header",
            )
        header = match[1] is not None
        if match[4]:
            return cls("", 0, match[4], header)
        port = int(match[3])
        if not 1 <= port <= 65_535:
            raise BadValue("has a port that does not exist", "ports are 1 to 65535")
        return cls(parse_host(match[2].strip("[]")), port, header=header)

    def reaches(self) -> Iterator[tuple[str, int]]:
        """Addresses and ports that a server may listen at which connections to this one reach, as far as is plain."""
        if self.path:
            return
        yield self.host, self.port
        if ipaddress.ip_address(self.host.partition("%")[0]).is_loopback:
            yield fields.ANY_OF_FAMILY[fields.family_of(self.host)], self.port

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        place = f"unix:{self.path}" if self.path else f"tcp://{host}:{self.port}"
        return f"proxy+{place}" if self.header else place


def _parse_http(value: object) -> Backend | Literal["web"] | None:
    if value is None:
        return None
    return "web" if value == OWN_WEB else Backend.parse(value)


def _parse_name(value: object) -> str:
    name = value.strip().lower().removesuffix(".") if isinstance(value, str) else ""
    if not _NAME.fullmatch(name):
        raise BadValue("is no name of a TLS server", "write shop.example.org, or *.example.org for all names below")
    return name


_EXAMPLES = ["tcp://127.0.0.1:8080", "unix:/run/app.sock", "proxy+tcp://10.0.0.7:443"]
_AsText = PlainSerializer(str, return_type=str, when_used="json")
_BackendText = Annotated[
    Backend, PlainValidator(Backend.parse), _AsText, WithJsonSchema({"type": "string", "examples": _EXAMPLES})
]


def _one(value: object) -> object:
    return {} if value is None else value


class ShareSettings(fields.Section):
    """HTTP, and TLS servers of other names, on the ports of TURN clients."""

    http: Annotated[
        Backend | Literal["web"] | None,
        PlainValidator(_parse_http),
        PlainSerializer(lambda http: http and str(http), when_used="json"),
        WithJsonSchema({"type": "string", "examples": [OWN_WEB, *_EXAMPLES]}),
    ] = None
    """What serves HTTP that comes to a TCP listener or inside TLS: `web` or another server; refused when absent."""
    pass_through: Annotated[
        dict[Annotated[str, PlainValidator(_parse_name)], _BackendText],
        BeforeValidator(_one),
        Field(max_length=_MAX_NAMES),
    ] = Field(default_factory=dict)
    """Names whose TLS connections another server takes, unopened, by the name that the client asks for (SNI)."""
    listen: fields.ListenAddresses = ()
    """TCP and TLS listeners, of those that serve, that share their ports; all of them when empty."""
    http2: bool = False
    """Offer HTTP/2 inside TLS, which the other server of `http` then has to speak without TLS."""
    connections: int = Field(default=1_000, ge=1, le=100_000)
    """Connections to other servers at once; for more, those end that have been idle for longest."""
    connections_per_address: int = Field(default=100, ge=1, le=100_000)
    """Connections to other servers from one client address."""
    idle_timeout: Annotated[fields.Seconds, Field(ge=1, le=_DAY)] = 600.0
    """How long a connection to another server may carry nothing, 1 s to 1 day."""

    @model_validator(mode="wrap")
    @classmethod
    def _http_alone(cls, value: Any, handler: ModelWrapValidatorHandler[ShareSettings]) -> ShareSettings:
        """A text is who serves HTTP."""
        made = handler({"http": value} if isinstance(value, str) else value)
        if isinstance(value, str | Mapping) and made.http is None and not made.pass_through:
            raise BadValue("shares ports with no server", "write http: web, or pass_through: {NAME: tcp://…}")
        return made

    @property
    def has_backends(self) -> bool:
        """Whether connections are passed on to other servers."""
        return isinstance(self.http, Backend) or bool(self.pass_through)
