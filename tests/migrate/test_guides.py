"""What the guides tell people to write becomes settings that are known in full."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import run
from tests.migrate.conftest import SURROUNDINGS
from tests.migrate.guides import expected, source
from turnsvr.migrate import Outcome, convert
from turnsvr.migrate.source import read

__all__ = ["run"]

UNSUPPORTED = {
    "bigbluebutton": {"keep-address-family"},
    "debian-stock": set(),
    "jitsi": {"keep-address-family"},
    "matrix-docker-ansible": set(),
    "nextcloud-talk": {"log-file"},
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


def test_check_finds_no_mistake(guide: str, run: object, tmp_path: Path) -> None:
    settings = tmp_path / "turnsvr.yaml"
    settings.write_text(convert(source(guide), guide, SURROUNDINGS).text)
    settings.chmod(0o600)
    result = run("check", settings)  # type: ignore[operator]
    assert result.exit_code == 0, result.stderr
