"""Which core does what, and who took it: the kernel's threads that receive, processes, and other programs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench import process
from bench.lab.network import SET_CHECKSUMS, SET_GRO, VethPair, run, tune, within
from bench.lab.traffic import LabUnavailable

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)
"""Fields of /proc/stat that are no work: idle, iowait."""
_GUEST = 8
"""The first of those that others include."""


class Used(NamedTuple):
    """Seconds of processor time."""

    process: float
    """Of the server's process."""
    kernel: float
    """Of the threads that receive for the server."""
    load: float
    """Of those that send, and that receive at the far ends."""
    others: float
    """Of other programs, on the server's core."""
    others_at_load: float

    def since(self, before: Used) -> Used:
        return Used(*(now - then for now, then in zip(self, before, strict=True)))


@dataclass(frozen=True, slots=True)
class Cores:
    """The server's core and the load's, with the threads that receive for the ends on either."""

    server: int
    load: int
    near: Sequence[int]
    far: Sequence[int]

    def used(self, server: int | None, senders: Iterable[int]) -> Used:
        """So far; server and senders are processes."""
        of_process = process.cpu_seconds(server) if server else 0.0
        kernel = sum(map(_run_time, self.near))
        load = sum(map(_run_time, self.far)) + sum(map(process.cpu_seconds, senders)) + time.process_time()
        return Used(of_process, kernel, load, _busy(self.server) - of_process - kernel, _busy(self.load) - load)


def prepare(pairs: Sequence[VethPair], server_names: str, server: int, load: int) -> Cores:
    """Have threads receive for both ends of each pair, the server's on its core, as nice as this process.

    Raises LabUnavailable, OSError.
    """
    near: list[int] = []
    far: list[int] = []
    for pair in pairs:
        for namespace, name, found in ((server_names, pair.server_end, near), (pair.namespace, pair.name, far)):
            with within(namespace):
                tune(name, SET_GRO, 1)
                tune(name, SET_CHECKSUMS, 0)  # what a network card brings has whole ones
            run("ip", "netns", "exec", namespace, "sh", "-c", f"echo 1 > /sys/class/net/{name}/threaded")
            found.extend(_receivers(name))
    for threads, core in ((near, server), (far, load)):
        for thread in threads:
            os.sched_setaffinity(thread, {core})
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, 0))
    for thread in far:  # what has arrived is counted before more is sent
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
    return Cores(server, load, tuple(near), tuple(far))


def _receivers(interface: str) -> list[int]:
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().startswith(f"napi/{interface}-"):
                found.append(int(comm.parent.name))
        except OSError:
            continue
    if not found:
        raise LabUnavailable("no threads of the kernel receive for interfaces (threaded NAPI, Linux 5.12)")
    return found


def _run_time(thread: int) -> float:
    return int(Path(f"/proc/{thread}/schedstat").read_text().split()[0]) / 1e9


def _busy(core: int) -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            return sum(int(each) for at, each in enumerate(fields[:_GUEST]) if at not in _IDLE) * _TICK
    raise LabUnavailable(f"the kernel counts nothing for core {core}")
