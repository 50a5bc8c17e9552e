"""What the kernel says about a running server: CPU time and memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_CLOCK_OF_PROCESS = 2
"""CPUCLOCK_SCHED: of a whole process, threads that ended included (clock_getcpuclockid(3))."""
_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Memory(NamedTuple):
    """Bytes: proportional set size and resident set size."""

    pss: int
    rss: int


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads, with the clock's nanoseconds. Raises OSError when the process is gone."""
    return time.clock_gettime(~pid << 3 | _CLOCK_OF_PROCESS)


def thread_seconds(pid: int) -> dict[int, float]:
    """User and system time of each living thread, to 10 ms."""
    seconds = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        seconds[int(task.name)] = (int(fields[11]) + int(fields[12])) * _TICK
    return seconds


def preemptions(pid: int) -> int:
    """How often another program took the core from one of its threads."""
    return sum(_involuntary(task / "status") for task in Path(f"/proc/{pid}/task").iterdir())


def _involuntary(status: Path) -> int:
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["nonvoluntary_ctxt_switches"])


def memory(pid: int) -> Memory:
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        values[name] = int(value.split()[0]) * 1024
    return Memory(values["Pss"], values["Rss"])
