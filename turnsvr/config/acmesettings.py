"""The settings of a certificate that an ACME authority issues (RFC 8555)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from turnsvr.config import fields
from turnsvr.config.statedirectory import state_directory
from turnsvr.config.units import BadValue

_DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]", re.ASCII)
_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,255}")


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _check_domain(name: str) -> str:
    name = name.lower().rstrip(".")
    if not _DOMAIN.fullmatch(name):
        raise BadValue(
            "is no domain name that can be proven here",
            "write turn.example.org; wildcards and addresses are proven in other ways",
        )
    return name


def _check_unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise BadValue("names one domain twice", "name each domain once")
    return names


def _check_email(email: str) -> str:
    if not _EMAIL.fullmatch(email):
        raise BadValue("is no mail address", "write admin@example.org")
    return email


def _directory() -> Path:
    return state_directory("acme")


_NAME = {"type": "string", "examples": ["turn.example.org"]}
Domains = Annotated[
    tuple[Annotated[str, AfterValidator(_check_domain)], ...],
    BeforeValidator(_split),
    AfterValidator(_check_unique),
    Field(min_length=1, max_length=100),
    WithJsonSchema({"anyOf": [_NAME, {"type": "array", "items": _NAME}]}),
]


class AcmeSettings(fields.Section):
    """A certificate that an ACME authority issues and that is renewed by itself."""

    domains: Domains
    """Names in the certificate, each of which leads to this server."""
    email: Annotated[str, AfterValidator(_check_email)] | None = None
    """Where the authority may write to about the account."""
    authority: fields.HttpUrl = "https://acme-v02.api.letsencrypt.org/directory"
    """Address of the authority's directory; its terms of service are agreed to."""
    ca: fields.FilePath | None = None
    """PEM file with the authorities that vouch for the address, in place of the system's."""
    challenge: Literal["tls-alpn-01", "http-01"] = "tls-alpn-01"
    """How a name is proven: on the TLS listener, which is reached on port 443, or over HTTP on port 80."""
    http_port: int = Field(default=80, ge=1, le=65_535)
    """Port that is listened on while http-01 goes on, unless `web` serves http:// there."""
    directory: fields.FilePath = Field(default_factory=_directory)
    """Where account, key and certificate are kept; in systemd's StateDirectory or /var/lib/turnsvr when absent."""

    @property
    def certificate(self) -> Path:
        """The file with the key and the certificate; each authority has a directory of its own."""
        place = urlsplit(self.authority).netloc.rpartition("@")[2]
        return self.directory / re.sub("[^A-Za-z0-9.-]", "-", place).lstrip(".") / "certificate.pem"
