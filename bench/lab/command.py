"""`python -m bench --lab` from the cases that were chosen to what is printed and written."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench import record
from bench.lab import measure, report
from bench.lab.cases import LabCase, cases
from bench.lab.rows import Row, rows
from bench.lab.traffic import LabUnavailable
from bench.progress import progress
from bench.servers import ServerFailed
from bench.stopping import Stopped, stoppable

FULL_ROUNDS = 5
_UNFINISHED = "interrupted"
QUICK = ("lab/up/64/1000", "lab/down/64/1000")


def chosen(pattern: str | None, quick: bool) -> list[LabCase]:
    """Raises UsageError."""
    try:
        wanted = re.compile(pattern or "")
    except re.error as error:
        raise click.UsageError(f"--case is no regular expression: {error}") from None
    found = [each for each in cases() if wanted.search(each.name)]
    if quick and pattern is None:
        found = [each for each in found if each.name in QUICK]
    if not found:
        raise click.UsageError(f"no case matches {pattern!r}; see --lab --list")
    return found


def run(wanted: Sequence[LabCase], program: str, setting: dict[str, Any], json_file: Path | None) -> int:
    """Measure, print a table for each case as it is done, and write after each; answers the exit status.

    Raises ClickException where this machine cannot be a laboratory.
    """
    with tempfile.TemporaryDirectory(prefix="turnsvr-lab-") as folder:
        try:
            compared = rows(Path(folder), program, pump=setting["pump"], busy_poll=setting["busy_poll"])
            setting |= {"rows": {row.name: row.label for row in compared}}
            return _measure(wanted, compared, Path(folder), setting, json_file)
        except (ServerFailed, LabUnavailable) as error:
            raise click.ClickException(str(error)) from None


def _measure(
    wanted: Sequence[LabCase],
    compared: Sequence[Row],
    folder: Path,
    setting: dict[str, Any],
    json_file: Path | None,
) -> int:
    results: list[measure.LabResult] = []
    count, seconds, status = setting["pairs"], setting["seconds"], 0

    def keep() -> None:
        if json_file:
            record.save(json_file, report.as_json(results, compared, setting))

    runs = len(wanted) * len(compared) * (count + 1)
    try:
        with stoppable(), measure.rig(folder, _cores()) as made, progress(runs) as shown:
            for case in wanted:
                result = measure.LabResult(case, error=_UNFINISHED)
                results.append(result)
                measure.compare(made, result, compared, count, seconds, shown.tick)
                result.error = ""
                keep()
                shown.say(report.table(result, compared) + "\n")
    except Stopped as stopped:
        keep()
        status = stopped.status
    click.echo(report.summary(results))
    if count < FULL_ROUNDS:
        click.echo(f"Only {count} round{'s' * (count > 1)} a case: take {FULL_ROUNDS} before you believe a figure.")
    return status or int(any(result.absent for result in results))


def _cores() -> list[int]:
    """All there are; this process takes the last, which is the load's. Raises LabUnavailable."""
    if os.geteuid() != 0:
        raise LabUnavailable("network namespaces and programs in the kernel need root")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise LabUnavailable("two cores are needed: one for the server, one for the load")
    os.sched_setaffinity(0, cores[-1:])
    return cores
