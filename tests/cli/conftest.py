from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from turnsvr.cli import main

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Runs `turnsvr` with arguments, in an environment without the variables it reads unless they are given."""

    def invoke(*arguments: str | Path, stdin: str = "", **environ: str) -> Result:
        variables = {"TURN_SECRET": None, "TURN_PASSWORD": None, **environ}
        return CliRunner().invoke(main, list(map(str, arguments)), input=stdin, env=variables, prog_name="turnsvr")

    return invoke


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    file = tmp_path / "turnsvr.yaml"
    file.write_text("realm: example.org\ncredentials:\n  secret: north-north-north\n")
    file.chmod(0o600)
    return file
