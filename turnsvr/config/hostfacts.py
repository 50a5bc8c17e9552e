"""What advice has to know about this host: read here, judged in advice.py."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretStr

from turnsvr.config.settings import Settings, TlsSettings

if TYPE_CHECKING:
    from cryptography import x509

_UNPRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_STATUS = Path("/proc/self/status")
_CAP_NET_BIND_SERVICE = 10


@dataclass(frozen=True)
class CertificateFacts:
    """A certificate file; `problem` is empty when it could be read with its key. Times in seconds since 1970."""

    problem: str = ""
    problem_setting: str = ""
    not_before: float = 0
    not_after: float = 0
    key_matches: bool = True
    has_names: bool = True
    names: frozenset[str] = frozenset()
    """DNS names, in small letters."""

    def is_for(self, host: str) -> bool:
        """Whether a client that connects to this name takes it (RFC 6125 section 6.4)."""
        name = host.lower().rstrip(".")
        label, _, domain = name.partition(".")
        return name in self.names or (bool(label and domain) and f"*.{domain}" in self.names)


def read_certificate(tls: TlsSettings) -> CertificateFacts:
    """The facts about the first certificate of the file and its key; a problem is a fact, not an error."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    setting, path = "tls.certificate", tls.certificate
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        setting, path = "tls.key", tls.key
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        return CertificateFacts(f"cannot read {path}: {error.strerror}", setting)
    except TypeError:
        return CertificateFacts(f"{path} needs a pass phrase; store the key without one", setting)
    except Exception:
        # cryptography raises ValueError, UnsupportedAlgorithm and OpenSSL's own errors for a bad file.
        return CertificateFacts(f"{path} is no PEM file that can be used", setting)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return CertificateFacts(
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        key_matches=key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form),
        has_names=len(names := _names(certificate)) > 0,
        names=frozenset(each.value.lower() for each in names if isinstance(each, x509.DNSName)),
    )


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    from cryptography import x509

    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return []


def addresses_in(settings: Settings) -> set[str]:
    """Every address that the settings say this host has."""
    hosts = {address.host for address in settings.listeners()} | set(settings.relay.addresses or ())
    if settings.nat_discovery:
        hosts |= {*settings.nat_discovery.primary, *settings.nat_discovery.alternate}
    return hosts


def addresses_here(candidates: Iterable[str]) -> frozenset[str]:
    """Those of the candidates that this host has: a socket can be bound to them."""
    return frozenset(filter(_can_bind, candidates))


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        found = socket.getaddrinfo(address, 0, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(found[0][4])
    except OSError:
        return False
    return True


def lowest_port() -> int:
    """The lowest port that this process may bind: 0 with the privilege, usually 1024 without."""
    try:
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        if int(lines["CapEff"], 16) >> _CAP_NET_BIND_SERVICE & 1:
            return 0
        return int(_UNPRIVILEGED_PORTS.read_text())
    except (OSError, KeyError, ValueError):
        return 0 if os.name != "posix" or os.geteuid() == 0 else 1024


def is_public(path: Path) -> bool:
    """Whether every user of the host can read the file."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH) and os.name == "posix"
    except OSError:
        return False


def holds_secret(path: Path, settings: Settings) -> bool:
    """Whether a secret of the settings stands in the file itself, and not in one that the file names."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return False
    return any(secret in text for secret in _secrets(settings))


def _secrets(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from (each for name in type(value).model_fields for each in _secrets(getattr(value, name)))
    elif isinstance(value, Mapping):
        yield from (each for part in value.values() for each in _secrets(part))
    elif isinstance(value, (tuple, list)):
        yield from (each for part in value for each in _secrets(part))
    elif password := getattr(value, "password", None):  # in the URL of a database
        yield from _secrets(password)
