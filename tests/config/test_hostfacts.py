"""Facts read from real files and real sockets."""

from __future__ import annotations

import dataclasses
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from turnsvr import config
from turnsvr.config import hostfacts
from turnsvr.config.settings import Settings, TlsSettings

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=90)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def certificate(key: ec.EllipticCurvePrivateKey, names: list[str]) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "turn.test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(END)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture
def tls(tmp_path: Path) -> TlsSettings:
    key = new_key()
    (tmp_path / "c.pem").write_bytes(certificate(key, ["turn.test"]))
    (tmp_path / "k.pem").write_bytes(pem(key))
    return TlsSettings(certificate=tmp_path / "c.pem", key=tmp_path / "k.pem")


def test_a_good_certificate(tls: TlsSettings) -> None:
    facts = hostfacts.read_certificate(tls)
    expected = hostfacts.CertificateFacts(not_before=START.timestamp(), not_after=END.timestamp())
    assert facts == dataclasses.replace(expected, names=frozenset({"turn.test"}))


@pytest.mark.parametrize(
    ("host", "names", "fits"),
    [
        ("turn.example.org", ["turn.example.org"], True),
        ("Turn.Example.ORG.", ["turn.EXAMPLE.org"], True),
        ("turn.example.org", ["*.example.org"], True),
        ("a.turn.example.org", ["*.example.org"], False),
        ("example.org", ["*.example.org"], False),
        ("turn.example.org", ["example.org", "www.example.org"], False),
        ("org", ["*."], False),
    ],
)
def test_for_which_host_it_is(tls: TlsSettings, host: str, names: list[str], fits: bool) -> None:
    tls.certificate.write_bytes(certificate(new_key(), names))
    assert hostfacts.read_certificate(tls).is_for(host) is fits


def test_the_key_of_another_certificate(tls: TlsSettings) -> None:
    tls.key.write_bytes(pem(new_key()))
    assert not hostfacts.read_certificate(tls).key_matches


def test_a_certificate_without_names(tls: TlsSettings) -> None:
    tls.certificate.write_bytes(certificate(new_key(), []))
    assert not hostfacts.read_certificate(tls).has_names


def test_the_first_certificate_of_a_chain_counts(tls: TlsSettings) -> None:
    tls.certificate.write_bytes(tls.certificate.read_bytes() + certificate(new_key(), []))
    facts = hostfacts.read_certificate(tls)
    assert facts.key_matches
    assert facts.has_names


def test_a_key_with_a_pass_phrase(tls: TlsSettings) -> None:
    tls.key.write_bytes(pem(new_key(), BestAvailableEncryption(b"x")))
    facts = hostfacts.read_certificate(tls)
    assert facts.problem_setting == "tls.key"
    assert "needs a pass phrase" in facts.problem


@pytest.mark.parametrize("content", [b"", b"no pem", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"])
@pytest.mark.parametrize("setting", ["certificate", "key"])
def test_files_that_are_no_pem(tls: TlsSettings, content: bytes, setting: str) -> None:
    getattr(tls, setting).write_bytes(content)
    facts = hostfacts.read_certificate(tls)
    assert facts.problem_setting == f"tls.{setting}"
    assert "is no PEM file that can be used" in facts.problem


def test_files_that_are_not_there(tls: TlsSettings) -> None:
    tls.key.unlink()
    assert hostfacts.read_certificate(tls).problem == f"cannot read {tls.key}: No such file or directory"
    tls.certificate.unlink()
    assert hostfacts.read_certificate(tls).problem_setting == "tls.certificate"


def test_addresses_here_are_those_that_can_be_bound() -> None:
    candidates = {"127.0.0.1", "0.0.0.0", "192.0.2.77", "fe80::1%nowhere"}
    assert hostfacts.addresses_here(candidates) == {"127.0.0.1", "0.0.0.0"}


def test_addresses_in_settings() -> None:
    settings = Settings.model_validate(
        {
            "listen": "udp://127.0.0.1",
            "relay": {"addresses": "10.0.0.5"},
            "nat_discovery": {"primary": "10.0.0.6", "alternate": "10.0.0.7"},
        }
    )
    assert hostfacts.addresses_in(settings) == {"127.0.0.1", "10.0.0.5", "10.0.0.6", "10.0.0.7"}


def test_the_lowest_port_can_be_bound() -> None:
    lowest = hostfacts.lowest_port()
    assert 0 <= lowest <= 1024
    if lowest:
        with socket.socket() as listener, pytest.raises(PermissionError):
            listener.bind(("127.0.0.1", lowest - 1))


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_public_file(tmp_path: Path) -> None:
    file = tmp_path / "turnsvr.yaml"
    file.write_text("")
    file.chmod(0o640)
    assert not hostfacts.is_public(file)
    file.chmod(0o644)
    assert hostfacts.is_public(file)
    assert not hostfacts.is_public(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("section", "stands"),
    [
        ("credentials: {secret: 0123456789abcdef0123}", True),
        ("credentials: {secret: !file secret}", False),
        ("credentials: {secret: !env SECRET}", False),
        ("credentials: {users: {alice: wonderland}}", True),
        ("credentials: {users: {alice: !file secret}}", False),
        ("credentials: {store: 'postgresql://u:hidden-away@localhost/d'}", True),
        ("credentials: {store: !file store}", False),
        ("realms: {b.example.org: {listen: ['udp://*'], credentials: {secret: 0123456789abcdef0123}}}", True),
        (
            "credentials: {secret: !file secret}\nadmin: {listen: 'http://127.0.0.1:1', token: 0123456789abcdef0123}",
            True,
        ),
        ("credentials: {secret: !file secret}\nweb: {keys: [{name: a, key: 0123456789abcdef0123}]}", True),
    ],
)
def test_whether_a_secret_stands_in_the_file_itself(tmp_path: Path, section: str, stands: bool) -> None:
    (tmp_path / "secret").write_text("from the vault, long enough")
    (tmp_path / "store").write_text("postgresql://u:hidden-away@localhost/d")
    file = tmp_path / "turnsvr.yaml"
    file.write_text(f"realm: example.org\n{section}\n")
    settings = config.load(file, environ={"SECRET": "from the environment, long enough"})
    assert hostfacts.holds_secret(file, settings) is stands
