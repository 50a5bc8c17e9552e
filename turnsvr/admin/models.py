"""What the admin interface answers, as models: they are its OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from turnsvr.admin.context import Level, PacketReader
from turnsvr.config import units


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Mistake(_Model):
    """Why nothing was done."""

    error: str = Field(description="One sentence.")


class Flow(_Model):
    """What was relayed in one direction: application data, without headers."""

    packets: int
    bytes: int
    packets_per_second: float = Field(description="Now, measured over half a second to five.")
    bits_per_second: float = Field(description="Now, measured over half a second to five.")


class Traffic(_Model):
    from_client: Flow
    to_client: Flow


class SessionTraffic(Traffic):
    dropped: int = Field(description="Packets of either direction that were dropped.")


class Permission(_Model):
    """A peer that the client may reach, by IP address (RFC 8656 section 9)."""

    peer: str
    remaining: float = Field(description="Seconds.")


class Channel(_Model):
    """A channel (RFC 8656 section 12)."""

    number: int = Field(description="16384 (0x4000) to 32767 (0x7FFF).")
    peer: str = Field(description="Address and port.")
    remaining: float = Field(description="Seconds.")


class PeerConnection(_Model):
    """A TCP connection to a peer (RFC 6062)."""

    peer: str = Field(description="Address and port.")
    stage: Literal["connecting", "unbound", "bound"] = Field(
        description="Being made; waiting for a connection of the client; joined with one."
    )
    client: str | None = Field(description="Address and port of the client's connection that it is joined with.")


class Session(_Model):
    """One allocation."""

    id: int
    user: str = Field(description="The user name, or what stands for one that is itself a secret.")
    quota_user: str = Field(description="The name by which limits count: NAME of EXPIRY:NAME.")
    realm: str
    transport: Literal["udp", "tcp", "tls", "dtls"]
    client: str = Field(description="Address and port of the client, as the server sees it.")
    server: str = Field(description="Address and port that the client reached.")
    relayed: list[str] = Field(description="Relayed transport addresses, one a family.")
    relay: Literal["udp", "tcp"] = Field(description="How it reaches its peers.")
    age: float = Field(description="Seconds since it began.")
    remaining: float = Field(description="Seconds that it lives on if the client does not refresh it.")
    pump: str = Field(description="What relays its packets.")
    reader: PacketReader = Field(description="Who reads what the client sends: the pump itself, or asyncio.")
    traffic: SessionTraffic
    permission_count: int
    channel_count: int
    connection_count: int = Field(description="TCP connections to peers.")
    permissions: list[Permission] | None = Field(default=None, description="In lists only with detail=true.")
    channels: list[Channel] | None = Field(default=None, description="In lists only with detail=true.")
    connections: list[PeerConnection] | None = Field(default=None, description="In lists only with detail=true.")


class SessionPage(_Model):
    """A part of the sessions that match."""

    sessions: list[Session]
    total: int = Field(description="Sessions that match, on all pages.")
    next: str | None = Field(description="The cursor of the next page; null on the last one.")


class Ended(_Model):
    ended: int = Field(description="Sessions that ended.")
    revoked: int = Field(default=0, description="User names that are refused from now on, until they expire.")


class EndedUser(Ended):
    not_revoked: list[str] = Field(
        default=[], description="User names that cannot be revoked, since they are not time-limited; absent for none."
    )


class Draining(_Model):
    draining: bool
    sessions: int = Field(description="Sessions that still live.")


class Upgraded(_Model):
    """What a new process has taken over."""

    pid: int
    version: str
    sessions: int = Field(description="Sessions that it goes on with.")
    staying: int = Field(description="Sessions that cannot move, and stay in the process before it until they end.")
    seconds: float = Field(description="For which no packet was read; packets waited meanwhile.")


class Reload(_Model):
    file: str
    restart: list[str] = Field(description="Names of settings that have changed and hold until a restart.")
    taken: list[str] = Field(description="Names of such settings that a new process has taken.")
    successor: Upgraded | None = Field(description="That process; null where none was started.")
    reason: str | None = Field(description="Why a new process could not go on; null where none was started.")


class Mistakes(Mistake):
    """Settings with mistakes: the old ones stay, all of them."""

    mistakes: list[str] = Field(description="One sentence each: file, line, setting, what is wrong.")


def _seconds(value: Any) -> float | None:
    try:
        return None if value is None else units.parse_duration(value)
    except units.BadValue as error:
        raise ValueError(f"{error.problem}; {error.hint}") from None


Duration = Annotated[
    Annotated[float, Field(gt=0, le=30 * 86_400)] | None,
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}], "examples": ["10m", 600]}),
]


class LogLevelChange(_Model):
    level: Level
    seconds: Duration = Field(
        default=None, alias="for", description="How long, as 10m or in seconds; without it until the next reload."
    )


class LogLevel(_Model):
    level: Level
    remaining: float | None = Field(description="Seconds until the settings' own level holds again; null for good.")


class Sessions(_Model):
    now: int
    started: dict[str, int] = Field(description="Since the server started, by transport.")
    ended: dict[str, int] = Field(description="Since the server started, by reason.")


class Status(_Model):
    """The server as a whole."""

    version: str
    pid: int
    uptime: float = Field(description="Seconds.")
    ready: bool = Field(description="Whether it takes new sessions and nothing is wrong.")
    draining: bool
    problems: list[str] = Field(description="What is wrong, a sentence each.")
    pump: str
    offload: list[str] = Field(
        description="What carries channels in the kernel, by interface, and how much; empty without pump.offload."
    )
    listening: list[str]
    admin: list[str] = Field(description="Where this interface is served.")
    relay: list[str] = Field(description="Addresses of relays, as clients are told them.")
    external: list[str] = Field(
        description="External addresses that the server finds by itself: for which relay address, and who told."
    )
    realms: list[str]
    sessions: Sessions
    connections: int = Field(description="TCP and TLS connections of clients.")
    peer_connections: int = Field(description="TCP connections to peers.")
    authentications_failed: int
    peers_refused: int
    relayed: Traffic
    drops: dict[str, int] = Field(description="Packets that were dropped, by reason.")
    binding_answers: int
    challenges: int = Field(description="Allocate requests without credentials that the pump answered.")
    open_files: dict[str, int] = Field(
        description="How many files the process may open (limit, where the system sets one), and each part's share."
    )
    certificate_expires: str | None = Field(description="ISO 8601 in UTC; null without a certificate of one's own.")
    stores: dict[str, str] = Field(description="Where users are looked up, each with ok or what is wrong.")
    log: LogLevel
