"""What is made for a run without a settings file."""

from __future__ import annotations

import ipaddress
import json
import socket
import tempfile
from pathlib import Path

import pytest
from cryptography import x509

from tests.credentials.callers import CALLER
from turnsvr.app import firstrun
from turnsvr.config.settings import ListenAddress, Settings
from turnsvr.credentials.shared_secret import SharedSecrets

OWN = ["127.0.0.1", "::1", "192.168.1.7", "fe80::1"]
LISTENING = [ListenAddress.parse(text) for text in ("udp://[::]:3478", "udp://0.0.0.0:3478", "tcp://0.0.0.0:3478")]
TLS = ListenAddress.parse("tls://0.0.0.0:5349")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{}", True),
        ('{"stun_only": true}', False),
        ('{"credentials": {"secret": "x"}}', False),
        ('{"credentials": {"users": {"a": "b"}}}', False),
    ],
)
def test_a_secret_is_made_only_where_nobody_could_relay(text: str, wanted: bool) -> None:
    assert Settings.model_validate_json(text).has_no_user is wanted


def test_the_invitation_is_an_rtc_configuration_with_credentials_for_a_day() -> None:
    run = firstrun.improvise(Settings(), OWN)
    now = 1_800_000_000.0
    text = run.invitation("192.168.1.7", [*LISTENING, TLS], now)
    assert "  tls://192.168.1.7:5349   (self-signed certificate: browsers refuse it)" in text.splitlines()
    configuration = json.loads(text[text.index("\n{") : text.rindex("}") + 1])
    stun, turn = configuration["iceServers"]
    assert stun == {"urls": ["stun:192.168.1.7:3478"]}
    assert turn["urls"] == ["turn:192.168.1.7:3478?transport=udp", "turn:192.168.1.7:3478?transport=tcp"]
    source = SharedSecrets([run.settings.credentials.secrets[0].get_secret_value()])
    assert source.find_now(turn["username"], "turnsvr", now + 86_399, CALLER)
    assert not source.find_now(turn["username"], "turnsvr", now + 86_400, CALLER)
    assert run.secret not in text


def test_each_run_has_a_secret_of_its_own() -> None:
    assert firstrun.improvise(Settings(), OWN).secret != firstrun.improvise(Settings(), OWN).secret


def test_the_safe_peer_policy_stays() -> None:
    assert firstrun.improvise(Settings(), OWN).settings.peers == Settings().peers


def test_without_listeners_named_tls_is_served_besides() -> None:
    listeners = firstrun.improvise(Settings(), OWN).settings.listeners()
    assert {(each.transport, each.port) for each in listeners} == {("udp", 3478), ("tcp", 3478), ("tls", 5349)}


def test_the_certificate_names_the_host_and_all_its_addresses(tmp_path: Path) -> None:
    files = firstrun.write_self_signed(tmp_path, OWN)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(map(str, names.get_values_for_type(x509.IPAddress))) == set(OWN)
    assert set(names.get_values_for_type(x509.DNSName)) == {socket.gethostname(), "localhost"}
    assert all(ipaddress.ip_address(each) for each in OWN)


def test_no_file_of_the_key_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    firstrun.self_signed_contexts(OWN)
    assert list(tmp_path.iterdir()) == []
