"""Every key of coturn has a verdict of its own, and none is forgotten."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import need
from tests.migrate.conftest import imported, outcomes
from turnsvr.config.settings import Settings
from turnsvr.config.wording import section_of
from turnsvr.migrate.keys import KEYS, Into, Unneeded, Unsupported
from turnsvr.migrate.report import Outcome

DOCUMENT = Path(__file__).parents[2] / "docs" / "coturn.md"

COTURN_4_17 = """
    listening-ip listening-port tls-listening-port alt-listening-port alt-tls-listening-port listening-device aux-server
    tcp-proxy-port sock-buf-size udp-self-balance relay-ip relay-device external-ip min-port max-port no-udp-relay
    no-tcp-relay allocation-default-address-family keep-address-family server-relay no-udp no-tcp no-tls dtls no-dtls
    stun-only no-stun lt-cred-mech no-auth user realm use-auth-secret static-auth-secret rest-api-separator oauth
    server-name secure-stun stale-nonce check-origin-consistency userdb psql-userdb mysql-userdb mongo-userdb
    redis-userdb redis-statsdb secret-key-file user-quota total-quota max-bps bps-capacity max-allocate-lifetime
    channel-lifetime permission-lifetime max-allocate-timeout allowed-peer-ip denied-peer-ip no-multicast-peers
    allow-loopback-peers unauthorized-ratelimit unauthorized-ratelimit-rps cert pkey pkey-pwd CA-file cipher-list
    ec-curve-name dh-file dh566 dh1066 tlsv1 tlsv1_1 no-tlsv1_2 alternate-server tls-alternate-server
    udp-alternate-server tcp-alternate-server proc-user proc-group pidfile daemon mobility acme-redirect log-file syslog
    syslog-facility simple-log no-stdout-log log-binding log-min-level new-log-timestamp new-log-timestamp-format
    verbose Verbose relay-threads cpus fingerprint software-attribute no-software-attribute rfc5780 no-rfc5780
    stun-backward-compatibility rfc3489-compatibility rfc5766-channel-numbers include-reason-string prometheus
    prometheus-port prometheus-address prometheus-path prometheus-tls prometheus-cert prometheus-key
    prometheus-username-labels cli no-cli cli-ip cli-port cli-password cli-max-output-sessions web-admin web-admin-ip
    web-admin-port web-admin-listen-on-workers respond-http-unsupported raw-public-keys stateless-nonce
    stateless-nonce-secret multiplex-peer multiplex-peer-port multiplex-peer-max-peers udp-recvmmsg udp-recvmmsg-log
    udp-gso drain-min-allocations
"""
"""What coturn 4.17 reads."""

DEAD = """
    no-loopback-peers no-tlsv1 no-tlsv1_1 no-sslv2 no-sslv3 dh2066 prod no-stun-backward-compatibility
    secret-ts-exp-time ne
"""
"""What still stands in files and means nothing to it."""

SAMPLES = (
    "",
    "1",
    "no",
    "maybe",
    "3478",
    "10.0.0.5",
    "10.0.0.5/10.0.0.6",
    "alice:wonderland",
    "/a/file",
    "ipv6",
    "a=b",
)


@pytest.mark.parametrize("key", [*COTURN_4_17.split(), *DEAD.split()])
def test_a_key_is_known(key: str) -> None:
    assert key in KEYS


def test_every_option_of_the_real_program_is_known() -> None:
    usage = subprocess.run([need("turnserver"), "-h"], capture_output=True, text=True, timeout=30, check=False).stdout
    options = set(re.findall(r"^\s+(?:-\w[ ,]+)*--([A-Za-z][\w-]+)", usage, re.MULTILINE))
    assert len(options) > 90
    assert options - KEYS.keys() == set()


def test_every_line_of_coturns_own_example_is_known() -> None:
    """The file that Debian installs, with what is commented out switched on."""
    need("turnserver")
    lines = Path("/etc/turnserver.conf").read_text().splitlines()
    switched_on = [re.sub(r"^# ?(?=[A-Za-z][\w-]+(=|$))", "", line) for line in lines]
    report = imported("\n".join(switched_on)).report
    assert len(report.verdicts) > 100
    assert [each for each in report.verdicts if "coturn does not know it" in each.text] == []


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_key_alone_gets_one_verdict_that_says_something(key: str) -> None:
    for value in SAMPLES:
        report = imported(f"{key}={value}\n").report
        assert [(each.line, each.key) for each in report.verdicts] == [(1, key)], value
        assert report.verdicts[0].text
        assert "coturn does not know it" not in report.verdicts[0].text


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_key_said_twice_gets_two_verdicts(key: str) -> None:
    report = imported(f"{key}=10.0.0.5\n# between\n{key}=10.0.0.5\n").report
    assert [each.line for each in report.verdicts] == [1, 3]


def test_settings_that_keys_become_are_there() -> None:
    for rule in KEYS.values():
        if isinstance(rule, Into):
            section: object = Settings
            for name in rule.settings.split("."):
                assert isinstance(section, type)
                assert name in section.model_fields, rule.settings  # type: ignore[attr-defined]
                section = section_of(section.model_fields[name].annotation)  # type: ignore[attr-defined]


def test_settings_that_texts_name_are_there() -> None:
    """`limits.allocations` in a verdict's text is a setting of that name."""
    sections = {name: section_of(field.annotation) for name, field in Settings.model_fields.items()}
    texts = [
        rule.why if isinstance(rule, Unneeded) else rule.instead
        for rule in KEYS.values()
        if isinstance(rule, (Unneeded, Unsupported))
    ]
    named = [pair for text in texts for pair in re.findall(r"\b([a-z_]+)\.([a-z_0-9]+)\b", text)]
    named = [(section, name) for section, name in named if section in sections]
    assert len(named) > 10
    for section, name in named:
        model = sections[section]
        assert model is not None
        assert name in model.model_fields, f"{section}.{name}"


def test_the_document_names_every_key() -> None:
    named = set(re.findall(r"`([A-Za-z][\w-]*)(?:=[^`]*)?`", DOCUMENT.read_text()))
    assert KEYS.keys() - named == set()


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("lisening-port=3478", "listening-port may be meant"),
        ("server-name:turn.example.org", "server-name may be meant"),
        ("--verbose", "without dashes"),
        ("-L 10.0.0.5", "without dashes and with their long names"),
        ("L=10.0.0.5", "listening-ip is its long name"),
        ("something-else=1", ""),
    ],
)
def test_what_coturn_does_not_know_either(line: str, hint: str) -> None:
    [(outcome, text)] = outcomes(line)
    assert outcome is Outcome.UNSUPPORTED
    assert text.startswith("coturn does not know it either")
    assert hint in text
