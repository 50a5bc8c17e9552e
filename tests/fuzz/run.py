"""Fuzz every target for a bounded time: python -m tests.fuzz.run --seconds 60.

Hypothesis takes half of the time and shrinks what it finds; atheris, where this Python has it, takes the other half
and is led by coverage. Exit status 1 on a finding, whose bytes are printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.inputs import ANYTHING
from tests.fuzz.targets import TARGETS, corpus

_BATCH = 100
"""Inputs between two looks at the clock."""
_START = 300.0
"""Seconds in which atheris must have begun, besides its time: it instruments what it imports, and tries the seeds."""
_END = 60.0
"""Seconds beyond its time in which it must have ended."""
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one target under one engine. finding: what went wrong and the bytes that did it."""

    target: str
    engine: str
    inputs: int
    finding: str | None = None


def try_corpus(name: str, target: Callable[[bytes], None]) -> Result:
    """Every seed, as it is."""
    seeds = corpus()
    for number, data in enumerate(seeds, 1):
        finding = _try(target, data)
        if finding is not None:
            return Result(name, "corpus", number, finding)
    return Result(name, "corpus", len(seeds))


def try_hypothesis(name: str, target: Callable[[bytes], None], seconds: float, first_seed: int) -> Result:
    """Batches of inputs until the time is over; at least one."""
    until = time.monotonic() + seconds
    tried, worst = 0, b""

    @settings(
        max_examples=_BATCH,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(ANYTHING)
    def batch(data: bytes) -> None:
        nonlocal tried, worst
        tried += 1
        try:
            target(data)
        except BaseException:
            worst = data
            raise

    for number in count(first_seed):
        try:
            seed(number)(batch)()
        except Exception:
            return Result(name, "hypothesis", tried, _describe(worst))
        if time.monotonic() >= until:
            return Result(name, "hypothesis", tried)
    raise AssertionError


def try_atheris(name: str, seconds: float, first_seed: int) -> Result:
    """In a process of its own, because libFuzzer ends the process."""
    with tempfile.TemporaryDirectory() as directory:
        seeds = Path(directory, "seeds")
        seeds.mkdir()
        for number, data in enumerate(corpus()):
            Path(seeds, str(number)).write_bytes(data)
        command = [
            *(sys.executable, "-m", "tests.fuzz.engine", name),
            *(f"-max_total_time={max(int(seconds), 1)}", f"-seed={first_seed + 1}", "-max_len=2048", "-timeout=30"),
            *("-print_final_stats=1", f"-artifact_prefix={directory}/", str(seeds)),
        ]
        patience = _START + seconds + _END
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=patience, check=False
            )
        except subprocess.TimeoutExpired as late:
            return Result(name, "atheris", 0, f"it did not end within {late.timeout:.0f} s")
        executed = _EXECUTED.search(done.stderr)
        inputs = int(executed[1]) if executed else 0
        if done.returncode == 0:
            return Result(name, "atheris", inputs)
        crashes = [path.read_bytes().hex() for path in Path(directory).iterdir() if path.is_file()]
        return Result(name, "atheris", inputs, f"{done.stdout}{done.stderr}\ninput: {' '.join(crashes)}")


def _try(target: Callable[[bytes], None], data: bytes) -> str | None:
    try:
        target(data)
    except Exception:
        return _describe(data)
    return None


def _describe(data: bytes) -> str:
    return f"{traceback.format_exc()}\ninput: {data.hex()}"


def run(
    targets: Mapping[str, Callable[[bytes], None]], seconds: float, first_seed: int, *, atheris: bool
) -> list[Result]:
    """Every target under every engine, within about that many seconds."""
    share = seconds / len(targets) / (2 if atheris else 1)
    results = []
    for name, target in targets.items():
        results.append(try_corpus(name, target))
        results.append(try_hypothesis(name, target, share, first_seed))
        if atheris:
            results.append(try_atheris(name, share, first_seed))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fuzz the codec and the rules.")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for everything together")
    parser.add_argument(
        "--seed", type=int, default=None, help="the same seed tries the same inputs (default: by the clock)"
    )
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only this one (repeat)")
    options = parser.parse_args(arguments)
    first_seed = int(time.time()) % 2**31 if options.seed is None else options.seed
    atheris = importlib.util.find_spec("atheris") is not None
    if not atheris:
        print("fuzz: no atheris for this Python; hypothesis takes all of the time")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started = time.monotonic()
    targets = {name: TARGETS[name] for name in options.target or TARGETS}
    results = run(targets, options.seconds, first_seed, atheris=atheris)
    findings = [result for result in results if result.finding is not None]
    for result in findings:
        print(f"fuzz: {result.target} under {result.engine}:\n{result.finding}", file=sys.stderr)
    inputs = ", ".join(f"{result.target}/{result.engine} {result.inputs}" for result in results)
    verdict = f"{len(findings)} FINDINGS" if findings else "no findings"
    print(f"fuzz: {verdict} in {time.monotonic() - started:.0f} s with seed {first_seed} (inputs: {inputs})")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
