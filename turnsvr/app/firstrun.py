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
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import SecretStr

from turnsvr import __version__
from turnsvr.config.settings import ListenAddress, Settings
from turnsvr.credentials import ice, shared_secret
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
        plain = [address for address in listening if address.transport != "tls"]
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
    return FirstRun(improvised, secret, self_signed_contexts(own_addresses))


def self_signed_contexts(addresses: Iterable[str]) -> TlsContexts:
    """TLS contexts with a certificate made for this host; no file of it is left."""
    with tempfile.TemporaryDirectory(prefix="turnsvr-") as directory:
        return TlsContexts(write_self_signed(Path(directory), addresses), watch=False)


def write_self_signed(directory: Path, addresses: Iterable[str]) -> TlsFiles:
    """Make a key and a certificate for this host's name and these addresses, and write both into the directory."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, socket.gethostname() or "localhost", addresses)
    files = TlsFiles(directory / "certificate.pem", directory / "key.pem")
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def _certificate(key: ec.EllipticCurvePrivateKey, name: str, addresses: Iterable[str]) -> x509.Certificate:
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MAX_COMMON_NAME])])
    names: list[x509.GeneralName] = [
        x509.DNSName(each) for each in dict.fromkeys((name, "localhost")) if each.isascii()
    ]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(addresses)]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _CERTIFICATE_LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256())
    )


def _urls(host: str, listening: Iterable[ListenAddress]) -> list[str]:
    lines = dict.fromkeys(
        f"  {ListenAddress(address.transport, host, address.port)}"
        + ("   (self-signed certificate: browsers refuse it)" if address.transport == "tls" else "")
        for address in listening
    )
    return list(lines)
