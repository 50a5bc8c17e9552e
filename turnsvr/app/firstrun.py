"""Serving without a settings file: a secret and a certificate made for the run, and what to paste into a browser."""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import SecretStr

from turnsvr import __version__
from turnsvr.config.settings import ListenAddress, Settings
from turnsvr.credentials import ice, shared_secret
from turnsvr.net.selfsigned import self_signed
from turnsvr.net.tls import TlsContexts, TlsFiles

_CREDENTIAL_LIFETIME = 86_400
_CERTIFICATE_LIFETIME = timedelta(days=90)
_ALLOCATIONS_PER_USER = 1000
"""All who try the server out share one user name."""
_MAX_COMMON_NAME = 64


@dataclass(frozen=True)
class FirstRun:
    """Settings that serve, the secret in them, and contexts for TLS."""

    settings: Settings
    secret: str
    tls: TlsContexts

    def invitation(self, host: str, listening: Sequence[ListenAddress], now: float | None = None) -> str:
        """What to tell the operator: URLs, and an RTCConfiguration good for a day. host: how others reach us.

        It has no `turns:` URL, since browsers refuse a certificate that no authority has signed.
        """
        now = time.time() if now is None else now
        username, password = shared_secret.make(self.secret, "", _CREDENTIAL_LIFETIME, now)
        plain = [address for address in listening if not address.needs_certificate]
        configuration = ice.ice_servers(host, plain, username, password)
        until = datetime.fromtimestamp(now + _CREDENTIAL_LIFETIME, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return "\n".join(
            (
                f"turnsvr {__version__}, no settings file: realm {self.settings.realm}, a secret made for this run",
                "",
                *_urls(host, listening),
                "",
                f"For new RTCPeerConnection( … ), until {until}:",
                "",
                json.dumps(configuration, indent=2),
                "",
            )
        )


def improvise(settings: Settings, own_addresses: Iterable[str]) -> FirstRun:
    """Make the secret and the certificate; TLS is served besides, unless the settings say where to listen."""
    secret = secrets.token_hex(32)
    listen = settings.listen or tuple(ListenAddress.parse(f"{transport}://*") for transport in ("udp", "tcp", "tls"))
    credentials = settings.credentials.model_copy(update={"secrets": (SecretStr(secret),)})
    limits = settings.limits.model_copy(update={"allocations_per_user": _ALLOCATIONS_PER_USER})
    improvised = settings.model_copy(update={"listen": listen, "credentials": credentials, "limits": limits})
    datagrams = any(address.transport == "dtls" for address in listen)
    return FirstRun(improvised, secret, self_signed_contexts(own_addresses, for_datagrams=datagrams))


def self_signed_contexts(addresses: Iterable[str], *, for_datagrams: bool = False) -> TlsContexts:
    """TLS contexts with a certificate made for this host; no file of it is left. Raises CertificateError."""
    with tempfile.TemporaryDirectory(prefix="turnsvr-") as directory:
        files = write_self_signed(Path(directory), addresses)
        return TlsContexts(files, watch=False, for_datagrams=for_datagrams)


def write_self_signed(directory: Path, addresses: Iterable[str]) -> TlsFiles:
    """Make a key and a certificate for this host's name and these addresses, and write both into the directory."""
    files = TlsFiles(directory / "certificate.pem", directory / "key.pem")
    key, certificate = _certificate(socket.gethostname() or "localhost", addresses)
    files.key.write_bytes(key)
    files.certificate.write_bytes(certificate)
    return files


def _certificate(name: str, addresses: Iterable[str]) -> tuple[bytes, bytes]:
    """A key, and a certificate for a server of this name and these addresses."""
    names: list[x509.GeneralName] = [
        x509.DNSName(each) for each in dict.fromkeys((name, "localhost")) if each.isascii()
    ]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(addresses)]
    return self_signed(
        name[:_MAX_COMMON_NAME],
        names,
        _CERTIFICATE_LIFETIME,
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    )


def _urls(host: str, listening: Iterable[ListenAddress]) -> list[str]:
    lines = dict.fromkeys(
        f"  {ListenAddress(address.transport, host, address.port)}"
        + ("   (self-signed certificate: browsers refuse it)" if address.needs_certificate else "")
        for address in listening
    )
    return list(lines)
