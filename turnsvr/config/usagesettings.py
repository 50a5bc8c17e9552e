"""The settings of usage records: what each session relayed, for billing and for reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from turnsvr.config import fields
from turnsvr.config.statedirectory import state_directory
from turnsvr.config.units import BadValue

_MIB = 1024 * 1024


def _spool() -> Path:
    return state_directory("usage")


class UsageSettings(fields.Section):
    """A record of what each session relayed; lines of a file, requests to a web service, or both."""

    file: fields.FilePath | None = None
    """File that records are appended to, each a line of JSON. SIGHUP opens it again."""
    url: fields.HttpUrl | None = None
    """http:// or https:// address that takes records in POST requests."""
    secret: fields.Secret | None = None
    """Signs the requests, so that the service knows who sends them."""
    every: Annotated[fields.Seconds, Field(ge=0, le=86_400)] = 0.0
    """How often a session that lasts has a record in between, 10 s to 1 day; 0 for one at its end alone."""
    batch: int = Field(default=500, ge=1, le=10_000)
    """Records that go in one request, at most."""
    timeout: Annotated[fields.Seconds, Field(ge=0.1, le=60)] = 10.0
    """How long the service may take for one request, 100 ms to 1 minute."""
    ca: fields.FilePath | None = None
    """PEM file with the authorities that vouch for the service; the system's own when absent."""
    spool: fields.FilePath = Field(default_factory=_spool)
    """Directory of the records that the service has not taken yet; in systemd's StateDirectory or /var/lib/turnsvr when
    absent."""
    spool_size: Annotated[fields.Bytes, Field(ge=_MIB, le=1024 * 1024 * _MIB)] = 256 * _MIB
    """How large the spool may become, from 1 MiB; then the newest records are left out, and counted."""

    @model_validator(mode="after")
    def _has_a_place(self) -> UsageSettings:
        if self.file is None and self.url is None:
            raise BadValue("says nowhere to put records", "write file, url or both")
        if (self.url is None) != (self.secret is None):
            raise BadValue("has url without secret, or secret without url", "write both; `turnsvr secret` makes one")
        if 0 < self.every < 10:
            raise BadValue("every: is less than 10 s", "write 1m, or 0 for a record at the end alone")
        return self
