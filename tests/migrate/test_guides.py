"""What the guides tell people to write becomes settings that are known in full."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.conftest import run
from tests.migrate.conftest import SURROUNDINGS
from tests.migrate.guides import expected, source
from turnsvr.migrate import Outcome, convert
from turnsvr.migrate.source import read
from turnsvr.net.tls import TlsFiles

__all__ = ["run"]

UNSUPPORTED: dict[str, set[str]] = {
    "bigbluebutton": set(),
    "debian-stock": set(),
    "jitsi": set(),
    "matrix-docker-ansible": set(),
    "nextcloud-talk": set(),
    "prosody": set(),
    "static-users": set(),
    "synapse": set(),
}
"""All that each guide's file loses."""


def test_the_settings_are_as_they_should(guide: str) -> None:
    assert convert(source(guide), f"{guide}.conf", SURROUNDINGS).text == expected(guide).read_text()


def test_every_line_has_one_verdict(guide: str) -> None:
    report = convert(source(guide), guide, SURROUNDINGS).report
    assert [each.line for each in report.verdicts] == [option.line for option in read(source(guide))]


def test_nothing_else_is_lost(guide: str) -> None:
    report = convert(source(guide), guide, SURROUNDINGS).report
    lost = {each.key for each in report.verdicts if each.outcome is Outcome.UNSUPPORTED}
    assert lost == UNSUPPORTED[guide]


def test_no_secret_is_in_the_report(guide: str) -> None:
    report = convert(source(guide), guide, SURROUNDINGS).report
    for option in read(source(guide)):
        if option.key in ("static-auth-secret", "user"):
            assert option.value.rpartition(":")[2] not in report.as_text(guide) + str(report.as_json(guide))


def test_check_finds_no_mistake(guide: str, run: object, tmp_path: Path, certificate: TlsFiles) -> None:
    """Where the machine has what the settings name: the certificate, and the addresses to listen at."""
    settings = tmp_path / "turnsvr.yaml"
    settings.write_text(on_this_host(convert(source(guide), guide, SURROUNDINGS).text, certificate))
    settings.chmod(0o600)
    result = run("check", settings)  # type: ignore[operator]
    assert result.exit_code == 0, result.stderr


def on_this_host(text: str, tls: TlsFiles) -> str:
    """Settings with this host's certificate, and listeners at an address that it has."""
    text = re.sub(r"^(\s*certificate:).*", rf"\1 {tls.certificate}", text, flags=re.MULTILINE)
    text = re.sub(r"^(\s*key:).*", rf"\1 {tls.key}", text, flags=re.MULTILINE)
    text = re.sub(r"^(\s*file:) /var/log/", r"\1 /tmp/", text, flags=re.MULTILINE)
    return re.sub(r"(udp|tcp|tls)://[0-9][0-9.]*:", r"\1://127.0.0.1:", text)
