"""The unit file, as systemd itself judges it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import need
from turnsvr.admin.places import SYSTEM_DIRECTORY

UNIT = Path(__file__).parents[2] / "systemd" / "turnsvr.service"


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [need("systemd-analyze"), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_the_sandbox_is_rated_under_two() -> None:
    answer = run("security", "--offline=true", "--no-pager", UNIT)
    match = re.search(r"Overall exposure level for turnsvr\.service: ([0-9.]+)", answer)
    assert match is not None, answer
    assert float(match[1]) < 2.0


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """The program's place is the operator's; here it is a program that exists."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/turnsvr/bin/turnsvr", sys.executable))
    answer = run("verify", "--man=no", copy)
    assert "turnsvr.service" not in answer, answer


def test_a_group_may_be_let_in_as_the_unit_says(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    added = "RuntimeDirectory=turnsvr\nRuntimeDirectoryMode=2750\nGroup=daemon"
    text = UNIT.read_text().replace("/opt/turnsvr/bin/turnsvr", sys.executable)
    copy.write_text(text.replace("RuntimeDirectory=turnsvr", added))
    answer = run("verify", "--man=no", copy)
    assert "turnsvr.service" not in answer, answer


def test_the_unit_asks_for_what_the_server_does() -> None:
    lines = UNIT.read_text().splitlines()
    for expected in (
        "Type=notify",
        "DynamicUser=yes",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "ExecReload=/bin/kill -HUP $MAINPID",
        f"RuntimeDirectory={SYSTEM_DIRECTORY.name}",
    ):
        assert expected in lines
    assert any(line.startswith("WatchdogSec=") for line in lines)
    assert any(line.startswith("LimitNOFILE=") for line in lines)
