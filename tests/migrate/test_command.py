"""`turnsvr import-coturn`: where settings and report go, and what is overwritten."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Run, run
from turnsvr import config
from turnsvr.migrate.source import MAX_BYTES

__all__ = ["run"]

SOURCE = "use-auth-secret\nstatic-auth-secret=north-north-north\nrealm=example.org\nmultiplex-peer\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "turnserver.conf"
    file.write_text(SOURCE)
    return file


def test_settings_go_to_standard_output_and_the_report_to_standard_error(run: Run, source: Path) -> None:
    result = run("import-coturn", source)
    assert result.exit_code == 0
    assert config.loads(result.stdout, "x").realm == "example.org"
    assert "3 taken over, 0 not needed here, 1 not supported" in result.stderr
    assert "line 4, multiplex-peer: " in result.stderr
    assert "north" not in result.stderr


def test_standard_input(run: Run) -> None:
    result = run("import-coturn", "-", stdin=SOURCE)
    assert result.exit_code == 0
    assert "made from standard input" in result.stdout
    assert result.stderr.startswith("standard input: ")


def test_a_file_is_written_for_its_owner_alone(run: Run, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "turnsvr.yaml"
    result = run("import-coturn", source, "-o", output)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "1 not supported" in result.stdout
    assert f"next: turnsvr check {output}" in result.stdout
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert config.load(output).realm == "example.org"
    assert sorted(tmp_path.iterdir()) == [source, output]
    assert run("check", output).exit_code == 0


def test_an_existing_file_is_overwritten_only_by_force(run: Run, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "turnsvr.yaml"
    output.write_text("mine")
    output.chmod(0o644)
    result = run("import-coturn", source, "-o", output)
    assert result.exit_code == 1
    assert result.stderr == f"turnsvr: {output} exists; --force overwrites it\n"
    assert output.read_text() == "mine"
    assert run("import-coturn", source, "-o", output, "--force").exit_code == 0
    assert config.load(output).realm == "example.org"
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert sorted(tmp_path.iterdir()) == [source, output]


def test_the_report_as_json(run: Run, source: Path, tmp_path: Path) -> None:
    result = run("import-coturn", source, "-o", tmp_path / "turnsvr.yaml", "--json")
    report = json.loads(result.stdout)
    assert [(each["line"], each["key"], each["outcome"]) for each in report["lines"]] == [
        (1, "use-auth-secret", "taken"),
        (2, "static-auth-secret", "taken"),
        (3, "realm", "taken"),
        (4, "multiplex-peer", "unsupported"),
    ]
    assert report["notes"]
    assert json.loads(run("import-coturn", source, "--json").stderr) == report


def test_a_secret_that_is_made_is_another_each_time(run: Run) -> None:
    made = {re.findall(r"secret: (\S+)", run("import-coturn", "-", stdin="no-auth").stdout)[0] for _ in range(3)}
    assert len(made) == 3
    assert all(len(secret) == 64 for secret in made)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xff\xfer\0", "is UTF-16 text; save it as UTF-8"),
        (b"#" * (MAX_BYTES + 9), f"is larger than {MAX_BYTES} bytes"),
    ],
)
def test_no_turnserver_conf(run: Run, tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "turnserver.conf"
    file.write_bytes(content)
    result = run("import-coturn", file)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{file}: {text}\n")


def test_files_that_are_not_there(run: Run, source: Path, tmp_path: Path) -> None:
    result = run("import-coturn", tmp_path / "nowhere.conf")
    assert result.exit_code == 1
    assert "No such file" in result.stderr
    assert "Traceback" not in result.stderr
    result = run("import-coturn", source, "-o", tmp_path / "nowhere" / "turnsvr.yaml")
    assert result.exit_code == 1
    assert "No such file" in result.stderr
