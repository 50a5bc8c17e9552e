"""A short, seeded run of the fuzzers, and that they can find something."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.inputs import ANYTHING
from tests.fuzz.run import main, run, try_atheris
from tests.fuzz.targets import TARGETS, corpus
from turnsvr.stun.message import Message

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


def test_there_is_a_corpus() -> None:
    assert len(corpus()) >= 40


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_corpus(target: Callable[[bytes], None]) -> None:
    for data in corpus():
        target(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@settings(derandomize=True, max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=ANYTHING)
def test_the_same_inputs_each_time(target: Callable[[bytes], None], data: bytes) -> None:
    target(data)


def test_a_finding_is_shrunk_and_shown() -> None:
    def broken(data: bytes) -> None:
        assert b"\x21\x12" not in data or len(data) < 30

    results = run({"broken": broken}, 0, 1, atheris=False)
    findings = [result.finding for result in results if result.finding is not None]
    assert len(findings) == 2
    assert all("AssertionError" in finding and "input: " in finding for finding in findings)


@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris is not installed for this Python")
def test_atheris_runs_a_target() -> None:
    result = try_atheris("attributes", 1, 1)
    assert result.finding is None, result.finding
    assert result.inputs > 0


def test_the_command_says_how_it_went(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tests.fuzz.run.importlib.util.find_spec", lambda name: None)
    assert main(["--seconds", "0", "--seed", "1", "--target", "codec"]) == 0
    assert "no findings" in capsys.readouterr().out
    monkeypatch.setitem(TARGETS, "codec", Message.parse)
    assert main(["--seconds", "0", "--seed", "1", "--target", "codec"]) == 1
    assert "FINDINGS" in capsys.readouterr().out
