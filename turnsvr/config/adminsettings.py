"""The settings of watching and controlling the server: the admin interface, and coturn's status keys in Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from turnsvr.config import fields
from turnsvr.config.restart import RESTART
from turnsvr.config.units import BadValue
from turnsvr.config.websettings import WebListens


class AdminSettings(fields.Section):
    """Watching and controlling: sessions, drain, reload, log level, over HTTP on a socket of their own."""

    socket: Annotated[Literal["auto", "off"] | Path, RESTART] = "auto"
    """Unix socket whose permissions decide who may use it; auto: /run/turnsvr, or the user's own runtime directory."""
    listen: Annotated[WebListens, RESTART] = ()
    """Where the same is served over HTTP to those who have the token; nowhere when empty."""
    token: fields.Secret | None = None
    """What callers of `listen` must bring as Bearer; turnsvr secret makes one."""

    @model_validator(mode="after")
    def _has_token(self) -> AdminSettings:
        if self.listen and self.token is None:
            raise BadValue("listens without a token", "add admin.token, from: turnsvr secret")
        return self


class StatusSettings(fields.Section):
    """Sessions as coturn tells of them in Redis (redis-statsdb), for programs that read them."""

    redis: fields.StoreLocation
    """redis://… address of the Redis server."""
    interval: Annotated[fields.Seconds, Field(ge=1, le=3_600)] = 10.0
    """How often each session's traffic is published, 1 s to 1 hour."""

    @model_validator(mode="after")
    def _is_redis(self) -> StatusSettings:
        if self.redis.dialect not in ("redis", "rediss"):
            raise BadValue("is not in Redis", "write redis: redis://host/0")
        return self
