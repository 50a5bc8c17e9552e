from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from turnsvr import config
from turnsvr.config.settings import Settings


def test_a_good_file_is_shown_as_it_works(run: Run, settings_file: Path) -> None:
    result = run("check", settings_file)
    assert result.exit_code == 0
    assert result.stderr == ""
    shown = yaml.safe_load(result.stdout)
    assert shown["realm"] == "example.org"
    assert shown["limits"]["lifetime"] == "1h"
    assert "udp://0.0.0.0:3478" in shown["listen"]
    assert shown["credentials"]["secrets"] == ["**********"]
    assert shown.keys() == Settings.model_fields.keys()


def test_secrets_are_masked(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {secret: hush-hush-hush-hush, users: {alice: wonderland}}")
    result = run("check", settings_file)
    assert result.exit_code == 0
    assert "hush" not in result.output
    assert "wonderland" not in result.output
    assert "alice" in result.stdout


def test_queries_of_web_services_are_not_shown(run: Run, settings_file: Path) -> None:
    settings_file.write_text(
        "credentials:\n"
        '  hook: {url: "https://app.example.org/turn?key=hush", secret: hush-hush-hush-hush}\n'
        '  tokens: {url: "https://app.example.org/keys?key=hush", audience: turn}\n'
    )
    result = run("check", settings_file)
    assert result.exit_code == 0, result.output
    assert "hush" not in result.output
    shown = yaml.safe_load(result.stdout)["credentials"]
    assert shown["hook"]["url"] == "https://app.example.org/turn"
    assert shown["tokens"]["url"] == "https://app.example.org/keys"


def test_what_is_shown_is_a_settings_file_itself(run: Run, settings_file: Path) -> None:
    shown = run("check", settings_file).stdout
    assert config.loads(shown, "shown.yaml").realm == "example.org"


def test_every_mistake_has_its_line_and_no_traceback(run: Run, settings_file: Path) -> None:
    settings_file.write_text("realm: x\nlimits:\n  allocatons: 5\nlog: {level: loud}\n")
    result = run("check", settings_file)
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first == f'{settings_file}:3: limits.allocatons: unknown setting; did you mean "allocations"?'
    assert second.startswith(f"{settings_file}:4: log.level: ")


@pytest.mark.parametrize("command", [["check"], ["run", "-c"], ["credentials", "-c"]])
def test_a_file_that_is_not_there(run: Run, tmp_path: Path, command: list[str]) -> None:
    result = run(*command, tmp_path / "nowhere.yaml")
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path / 'nowhere.yaml'}: cannot be read: No such file or directory\n"


def test_run_refuses_a_file_with_mistakes(run: Run, settings_file: Path) -> None:
    settings_file.write_text("realm: x\n")
    result = run("run", "-c", settings_file)
    assert result.exit_code == 1
    assert "credentials: are missing" in result.stderr


def test_warnings_fail_only_when_strict(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {secret: short}")
    result = run("check", settings_file)
    assert result.exit_code == 0
    assert result.stderr == (
        f"{settings_file}: warning: credentials.secrets[0]: "
        "is shorter than 16 characters; make one with: turnsvr secret\n"
    )
    assert run("check", "--strict", settings_file).exit_code == 1


def test_notes_do_not_fail_even_when_strict(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {secret: long enough for a test}\npeers: {allow: 10.0.0.0/8}")
    result = run("check", "--strict", settings_file)
    assert result.exit_code == 0
    assert ": note: peers.allow[0]: " in result.stderr


def test_the_facts_of_the_host_are_asked(run: Run, settings_file: Path) -> None:
    settings_file.write_text(
        "credentials: {secret: long enough for a test}\n"
        "tls: {certificate: c.pem, key: k.pem}\n"
        "relay: {addresses: 192.0.2.77}\n"
    )
    settings_file.chmod(0o644)
    text = run("check", settings_file).stderr
    assert f"warning: tls.certificate: cannot read {settings_file.parent / 'c.pem'}: No such file or directory" in text
    assert "warning: relay.addresses[0]: 192.0.2.77 is not an address of this host" in text
    assert "warning: credentials: every user of this host can read the settings file" in text


def test_values_from_the_environment(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {secret: !env TURN_SECRET}")
    assert run("check", settings_file, TURN_SECRET="long enough for a test").exit_code == 0
    result = run("check", settings_file)
    assert result.exit_code == 1
    assert "takes the environment variable TURN_SECRET, which is not set" in result.stderr


def test_the_schema(run: Run) -> None:
    result = run("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["properties"].keys() == Settings.model_fields.keys()
