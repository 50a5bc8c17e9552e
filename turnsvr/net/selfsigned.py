"""Certificates signed with their own key: until an authority's is there, or to prove a name to one.

Importing it takes a tenth of a second, so its users do that where they need one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_CLOCK_SKEW = timedelta(hours=1)
"""How far behind ours a clock may be that finds the certificate valid."""


def self_signed(
    common_name: str,
    names: Sequence[x509.GeneralName],
    lifetime: timedelta,
    *extensions: tuple[x509.ExtensionType, bool],
) -> tuple[bytes, bytes]:
    """A private key and its certificate, in PEM.

    common_name: of subject and issuer, empty for none; at most 64 characters. names: the alternative names of the
    subject. extensions: others, each with whether it is critical.
    """
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectAlternativeName(names), critical=not common_name)  # RFC 5280 section 4.2.1.6
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(key, SHA256())
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.public_bytes(Encoding.PEM),
    )
