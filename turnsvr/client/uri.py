"""STUN and TURN URIs as text and as the legs they stand for (RFC 7064, RFC 7065)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from turnsvr.stun.address import Transport, pack_host

DEFAULT_PORT = 3478
DEFAULT_TLS_PORT = 5349

_URI = re.compile(
    r"(?P<scheme>[a-z]+):(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:/?#@\s]+)(:(?P<port>\d{1,5}))?(\?(?P<query>.*))?",
    re.ASCII | re.IGNORECASE,
)
_MAX_URI_CHARACTERS = 512


class BadUri(ValueError):
    """The text is no URI of a server; says what would be one."""


class Leg(NamedTuple):
    """One way to a server."""

    transport: Transport
    port: int


@dataclass(frozen=True, slots=True)
class ServerUri:
    """A server as the user names it; port and transport are None where the URI leaves them out."""

    scheme: str
    host: str
    port: int | None
    transport: Transport | None

    @property
    def is_turn(self) -> bool:
        return self.scheme in {"turn", "turns"}

    def legs(self) -> tuple[Leg, ...]:
        """What to try: the one that is named, else every one whose port is known.

        TLS has a port of its own, so it is left out where only the other port is given.
        """
        if self.scheme.endswith("s"):
            return (Leg(self.transport or Transport.TLS, self.port or DEFAULT_TLS_PORT),)
        port = self.port or DEFAULT_PORT
        if self.transport is not None:
            return (Leg(self.transport, port),)
        plain = (Leg(Transport.UDP, port), Leg(Transport.TCP, port))
        return (*plain, Leg(Transport.TLS, DEFAULT_TLS_PORT)) if port == DEFAULT_PORT else plain

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port is not None else ""
        if self.transport is None or not self.is_turn:
            return f"{self.scheme}:{host}{port}"
        return f"{self.scheme}:{host}{port}?transport={'tcp' if self.transport.is_stream else 'udp'}"


def parse(text: str) -> ServerUri:
    """The server in text; raises BadUri."""
    match = _URI.fullmatch(text) if len(text) <= _MAX_URI_CHARACTERS else None
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in {"stun", "stuns", "turn", "turns"}:
        raise BadUri(
            f"{text[:80]!r} is no server; write turn:host, turn:host:port?transport=tcp, turns:host or stun:host"
        )
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65_536:
        raise BadUri(f"port {port} in {text!r} is not between 1 and 65535")
    return ServerUri(scheme, _host(match["host"], text), port, _transport(scheme, match["query"], text))


def _host(host: str, text: str) -> str:
    if not host.startswith("["):
        return host
    try:
        pack_host(host[1:-1])
    except OSError:
        raise BadUri(f"{host} in {text!r} is no IPv6 address") from None
    return host[1:-1]


def _transport(scheme: str, query: str | None, text: str) -> Transport | None:
    if query is None:
        return Transport.TLS if scheme.endswith("s") else None
    found = {"transport=udp": Transport.UDP, "transport=tcp": Transport.TCP}.get(query.lower())
    if found is None or not scheme.startswith("turn"):
        raise BadUri(f"?{query} in {text!r} is not understood; turn: and turns: take ?transport=udp or ?transport=tcp")
    if scheme == "turns":
        return Transport.DTLS if found is Transport.UDP else Transport.TLS
    return found
