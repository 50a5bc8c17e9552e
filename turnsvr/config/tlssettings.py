"""What can be set of TLS for clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from turnsvr.config import fields
from turnsvr.config.acmesettings import AcmeSettings
from turnsvr.config.units import BadValue

_NO_FILE = Path()


class TlsSettings(fields.Section):
    """TLS for clients (tls:// and dtls:// listeners)."""

    certificate: fields.FilePath
    """PEM file with the certificate and its chain; read again when it changes."""
    key: fields.FilePath
    """PEM file with the certificate's private key, without a pass phrase."""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """Oldest TLS version that clients may use; 1.3 leaves no DTLS, of which OpenSSL has 1.2 alone."""
    ciphers: str | None = Field(default=None, min_length=1)
    """OpenSSL cipher list for TLS 1.2; Python's own choice when absent."""
    only: bool = False
    """Turn clients away that speak without TLS on a tls:// listener; otherwise each listener takes both."""
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
