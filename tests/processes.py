"""Processes, and threads by their numbers, as proc(5) tells of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from tests.conftest import PATIENCE


def threads(process: int | None = None) -> set[int]:
    """Numbers of a process's threads, this one's by default. Raises OSError when it is gone."""
    return {int(name) for name in os.listdir(f"/proc/{process or 'self'}/task")}


def children(process: int) -> list[int]:
    """What it has started and is not gone; nothing when it is gone itself."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def state(number: int) -> str:
    """One letter of proc(5), such as S asleep, T stopped, Z ended; nothing when it is gone."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def sleeps(number: int) -> int:
    """How often it went to sleep."""
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))


def wait_for(numbers: Iterable[int], states: str, patience: float = PATIENCE) -> None:
    """Until each is in one of these states, or gone; fails after so many seconds."""
    left = list(numbers)
    deadline = time.monotonic() + patience
    while left := [number for number in left if state(number) not in states]:
        assert time.monotonic() < deadline, f"{left} are not {' or '.join(states)} yet"
        time.sleep(0.01)
