"""What may stand behind the question mark of a database's URL: TLS in the words of libpq, and a Unix socket.

- `sslmode`: `disable`, `prefer` (PostgreSQL alone, and its default), `require` (any server), `verify-ca` (someone
  with a good certificate), `verify-full` (the host itself; the default of rediss, and with sslrootcert)
- `sslrootcert`: PEM file with the authorities that vouch for the server, in place of the system's
- `sslcert`, `sslkey`: PEM files with the certificate and key to present
- `socket`: path of the server's Unix socket, its directory for PostgreSQL
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Literal

from turnsvr.config.locations import StoreUrl
from turnsvr.config.units import BadValue

_KNOWN = ("sslmode", "sslrootcert", "sslcert", "sslkey", "socket")
_MODES = {
    "postgresql": ("disable", "prefer", "require", "verify-ca", "verify-full"),
    "mysql": ("disable", "require", "verify-ca", "verify-full"),
    "redis": ("disable",),
    "rediss": ("require", "verify-ca", "verify-full"),
}
_DEFAULT_MODE = {"postgresql": "prefer", "mysql": "disable", "redis": "disable", "rediss": "verify-full"}


@dataclass(frozen=True, slots=True)
class Options:
    """How to reach a database server; tls is None for plain text."""

    tls: ssl.SSLContext | Literal["prefer"] | None = None
    socket: str | None = None


def parse(url: StoreUrl) -> Options:
    """Raises BadValue for an option that is unknown, or a file that cannot be read."""
    given = dict(url.options)
    for name in given:
        if name not in _KNOWN:
            raise BadValue(f"has the unknown option {name!a}", f"known are {', '.join(_KNOWN)}")
    modes = _MODES[url.dialect]
    default = _DEFAULT_MODE[url.dialect]
    if "sslrootcert" in given and "verify-full" in modes:
        default = "verify-full"
    mode = given.get("sslmode", default)
    if mode not in modes:
        raise BadValue("has an sslmode that does not exist here", f"{url.dialect} has {', '.join(modes)}")
    if mode in ("disable", "prefer"):
        for name in ("sslrootcert", "sslcert", "sslkey"):
            if name in given:
                raise BadValue(
                    f"has {name} without TLS", f"add sslmode={modes[-1]}" if len(modes) > 1 else "use rediss:"
                )
        return Options("prefer" if mode == "prefer" else None, given.get("socket"))
    return Options(_context(mode, given), given.get("socket"))


def place(url: StoreUrl) -> str:
    """Kind, host and database, for people; neither user nor password."""
    if url.dialect == "sqlite":
        return str(url)
    host = dict(url.options).get("socket") or (f"[{url.host}]" if ":" in url.host else url.host)
    return f"{url.dialect}://{host}{f':{url.port}' if url.port else ''}/{url.database}"


def _context(mode: str, given: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.get("sslrootcert"))
    except OSError:
        raise BadValue("has an sslrootcert that cannot be read", "name a PEM file with certificates") from None
    if mode != "verify-full":
        context.check_hostname = False
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    if "sslcert" in given:
        try:
            context.load_cert_chain(given["sslcert"], given.get("sslkey"), password=_no_pass_phrase)
        except OSError:
            raise BadValue("has an sslcert or sslkey that cannot be read", "name PEM files that match") from None
    elif "sslkey" in given:
        raise BadValue("has sslkey without sslcert", "name both")
    return context


def _no_pass_phrase() -> str:
    """In place of OpenSSL's question on the terminal."""
    return ""
