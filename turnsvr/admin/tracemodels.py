"""What traces are asked for and what they answer, as models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from turnsvr.admin.asked import Asked
from turnsvr.net.tracing.traces import MAX_SECONDS

_MAX_NAME = 1_024
_MAX_ADDRESS = 80


class TraceWanted(Asked):
    """Exactly one of user, session and client."""

    user: str | None = Field(
        default=None, min_length=1, max_length=_MAX_NAME, description="User name, as in GET /sessions."
    )
    session: int | None = Field(default=None, ge=1, le=2**63, description="The session's id.")
    client: str | None = Field(
        default=None, max_length=_MAX_ADDRESS, description="IP address of the client, with or without port."
    )
    seconds: float = Field(default=600.0, gt=0, le=MAX_SECONDS, description="How long.")
    data: bool = Field(default=False, description="Whether relayed data are wanted as well.")


class OneTrace(Asked):
    id: int = Field(ge=1, le=2**63, description="The trace's id.")


class TraceToRead(OneTrace):
    wait: float = Field(default=1.0, ge=0, le=5, description="Seconds to wait for something to come.")
    raw: bool = Field(default=False, description="Whether the bytes are wanted as well.")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class TraceOpened(_Model):
    id: int


class TraceClosed(_Model):
    closed: int = Field(description="Traces that ended.")


class TracedAttribute(_Model):
    name: str
    value: str = Field(description="For people; of a secret only that it is there.")


class _Traced(_Model):
    at: float = Field(description="Seconds since 1970.")
    from_client: bool
    session: int | None = Field(description="The session that it belongs to; null where there is none yet.")
    bytes: str | None = Field(description="In base64; null unless raw=true.")


class TracedMessage(_Traced):
    """A STUN or TURN message. Its bytes hold no secret: zeros, or asterisks in a user name, are in the place of one."""

    what: Literal["message"] = "message"
    transport: Literal["udp", "tcp", "tls", "dtls"]
    client: str
    server: str
    method: str
    kind: Literal["request", "indication", "success", "error", ""]
    transaction: str
    proven: bool | None = Field(
        description="Of an answer: whether the request's MESSAGE-INTEGRITY was right; null where it had none."
    )
    attributes: list[TracedAttribute]
    problem: str = Field(description="What is wrong with its form; empty for nothing.")
    size: int


class TracedPacket(_Traced):
    """A packet that was relayed."""

    what: Literal["packet"] = "packet"
    relayed: str = Field(description="Relayed transport address.")
    peer: str
    size: int = Field(description="Bytes of application data; those given may be fewer.")


class TracePage(_Model):
    """What has come since the page before."""

    events: list[Annotated[TracedMessage | TracedPacket, Field(discriminator="what")]]
    left_out: int = Field(description="Messages and packets that found no room, since too many came at once.")
    ended: str = Field(description="Why nothing more comes; empty while the trace goes on.")
