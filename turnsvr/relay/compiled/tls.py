"""TLS in the pump: contexts for it, where the OpenSSL that Python itself uses can be reached."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from turnsvr.relay.api import TlsContext


def make_context(like: ssl.SSLContext, certificate: Path, key: Path, protocols: Sequence[str]) -> TlsContext | None:
    """A server context for connections that the pump serves; None where it serves none.

    like: what it negotiates, which has loaded the same PEM files. protocols: those of ALPN that we speak, at most 256
    bytes with a byte before each. Raises ValueError with OpenSSL's reason.
    """
    return None if missing() else _make_context(like, certificate, key, protocols, datagrams=False)


def _make_context(
    like: ssl.SSLContext, certificate: Path, key: Path, protocols: Sequence[str], *, datagrams: bool
) -> TlsContext:
    older = [each["name"] for each in like.get_ciphers() if each["protocol"] != "TLSv1.3"]
    context: TlsContext = _pump().TlsContext(
        os.fsencode(certificate),
        os.fsencode(key),
        like.options | ssl.OP_NO_RENEGOTIATION,
        max(0, like.minimum_version),
        max(0, like.maximum_version),
        ":".join((f"@SECLEVEL={like.security_level}", *older)).encode(),
        b"".join(bytes((len(each),)) + each.encode() for each in protocols),
        datagrams,
    )
    return context


def make_datagram_context(like: ssl.SSLContext, certificate: Path, key: Path, protocols: Sequence[str]) -> TlsContext:
    """As make_context(), for DTLS 1.2. Raises ValueError where the pump serves none, or `like` wants a later one."""
    if missing():
        raise ValueError(missing())
    if like.minimum_version > ssl.TLSVersion.TLSv1_2:
        raise ValueError(f"{ssl.OPENSSL_VERSION} has no DTLS 1.3")
    return _make_context(like, certificate, key, protocols, datagrams=True)


def describe() -> str:
    """Who serves TLS, and why."""
    reason = missing()
    return f"in asyncio ({reason})" if reason else f"in the pump ({ssl.OPENSSL_VERSION})"


@cache
def missing() -> str:
    """Why the compiled pump cannot serve TLS here, in a word or two; "" when it can."""
    try:
        module = _pump()
    except (ImportError, AttributeError):
        return "there is no compiled pump"
    reason: str = module.find_libssl(getattr(import_module("_ssl"), "__file__", None), ssl.OPENSSL_VERSION_NUMBER)
    return reason


def _pump() -> ModuleType:
    return import_module("turnsvr.relay.compiled._pump")
