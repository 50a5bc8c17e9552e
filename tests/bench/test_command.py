"""`python -m bench` as a program: what it prints and writes, also when it is stopped half way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from tests.conftest import need
from tests.processes import children, wait_for

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
PATIENCE = 120


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench", *arguments]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    need("turnserver")
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)


def cases_of(path: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return cases


def test_it_writes_json_and_a_chart(tmp_path: Path) -> None:
    figures, picture = tmp_path / "out.json", tmp_path / "out.svg"
    ran = bench("--quick", "--case", "^start$", "--json", str(figures), "--chart", str(picture))
    assert ran.returncode == 0, ran.stderr
    assert re.match(r"start +\d+\.\d\d \[", ran.stdout)
    assert "ms to the first answer" in ran.stdout
    assert "1 case: 0 goals met, 0 missed" in ran.stdout
    assert "Only 1 pair a case" in ran.stdout
    (case,) = cases_of(figures)
    assert case["headline"]["advantage"]["median"] > 0
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.svg"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_there_is_and_a_later_run_takes_it_up(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    need("turnserver")
    figures = tmp_path / "out.json"
    shared = ["--pairs", "1", "--seconds", "5", "--json", str(figures)]
    with subprocess.Popen(
        command("--case", "^(start|threads)$", *shared), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        assert running.stdout.readline().startswith("start  ")
        assert [case["name"] for case in cases_of(figures)] == ["start"]
        server = child_of(running.pid)
        running.send_signal(number)
        out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == status, err
    # One that was just being made when the signal came ends by itself, a moment after the bench.
    wait_for((server,), "Z", PATIENCE)
    assert "stopped: interrupted" in out
    assert "not measured to the end: threads" in out
    assert [(case["name"], case["error"]) for case in cases_of(figures)] == [
        ("start", None),
        ("threads", "interrupted"),
    ]

    before = cases_of(figures)[0]
    again = bench("--case", "^start$", "--resume", *shared)
    assert again.returncode == 0, again.stderr
    assert not again.stdout.startswith("start  ")
    assert "ms to the first answer" in again.stdout
    assert cases_of(figures)[0] == before

    other = bench("--case", "^start$", "--resume", *shared, "--seconds", "4")
    assert other.returncode == 1
    assert "another setting: seconds is 5.0 there and 4.0 here" in other.stderr
    assert cases_of(figures)[0] == before


def child_of(pid: int) -> int:
    """The first process that it starts from now on, or has running."""
    deadline = time.monotonic() + PATIENCE
    while not (found := children(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return found[0]


def test_its_options_are_checked() -> None:
    def run(*arguments: str) -> tuple[int, str]:
        ran = CliRunner().invoke(main, arguments)
        return ran.exit_code, ran.output

    assert run("--list", "--case", "^tls/")[1].split() == [
        f"tls/{d}/16/singles/{s}" for d in ("up", "down") for s in (160, 1000)
    ]
    for arguments, text in (
        (("--case", "nosuch"), "no case matches"),
        (("--case", "("), "no regular expression"),
        (("--pairs", "0"), "--pairs is at least 1"),
        (("--resume",), "--resume needs --json"),
    ):
        status, output = run(*arguments)
        assert status == 2
        assert text in output
