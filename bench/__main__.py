"""`python -m bench`: turnsvr and coturn in turn on one core, the load on another, what arrives counted."""

from __future__ import annotations

import os
import re
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench import cases, chart, pairs, record, report
from bench.lab import command as laboratory
from bench.machine import describe
from bench.progress import progress
from bench.servers import Coturn, ServerFailed, Turnsvr
from bench.stopping import Stopped, stoppable

_PATH = click.Path(dir_okay=False, path_type=Path)
_FULL_PAIRS = laboratory.FULL_ROUNDS
_UNFINISHED = "interrupted"
_QUICK_SECONDS, _QUICK_PAIRS = 0.6, 1


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--coturn", "program", default="turnserver", show_default=True, metavar="PATH", help="The coturn to run.")
@click.option("--case", "pattern", metavar="REGEX", help="Cases whose name has a match; all by default.")
@click.option("--list", "listing", is_flag=True, help="Print the cases' names and end.")
@click.option("--pairs", "count", default=_FULL_PAIRS, show_default=True, help="Pairs that count; one more runs first.")
@click.option(
    "--seconds",
    default=1.2,
    show_default=True,
    help="Of a run: of all windows of latency together, five steps of a search.",
)
@click.option("--quick", is_flag=True, help="A few cases with one short pair each, to see where things stand.")
@click.option("--pump", type=click.Choice(["auto", "compiled", "portable"]), default="auto", show_default=True)
@click.option(
    "--busy-poll",
    type=click.IntRange(0, 1_000),
    default=0,
    show_default=True,
    metavar="US",
    help="pump.busy_poll of turnsvr's settings, in microseconds.",
)
@click.option("--json", "json_file", type=_PATH, metavar="FILE", help="Write all that was measured, after each case.")
@click.option("--resume", is_flag=True, help="Keep the cases that the file of --json has; it must be of this setting.")
@click.option("--lab", is_flag=True, help="Between network namespaces, with lone packets made in the kernel; as root.")
@click.option("--chart", "chart_file", type=_PATH, metavar="FILE", help="Write the ratios as an SVG chart.")
def main(
    program: str,
    pattern: str | None,
    listing: bool,
    count: int,
    seconds: float,
    quick: bool,
    pump: str,
    busy_poll: int,
    json_file: Path | None,
    resume: bool,
    lab: bool,
    chart_file: Path | None,
) -> None:
    """Compare turnsvr with coturn on this machine.

    Prints a line for each case as it is done, and a table at the end. Exit status 1 when a case could not be measured,
    130 or 143 after Ctrl-C or SIGTERM, which keep what was measured until then. Needs two cores; ten thousand
    allocations need as many open files.
    """
    in_lab, chosen = (laboratory.chosen(pattern, quick), ()) if lab else ([], _chosen(pattern, quick))
    if listing:
        click.echo("\n".join([*(case.name for case in in_lab), *(case.name for case in chosen)]))
        return
    if quick:
        count, seconds = min(count, _QUICK_PAIRS), min(seconds, _QUICK_SECONDS)
    if count < 1 or not 0.1 <= seconds <= 60:
        raise click.UsageError("--pairs is at least 1, --seconds between 0.1 and 60")
    if resume and not json_file:
        raise click.UsageError("--resume needs --json FILE")
    if lab and (resume or chart_file):
        raise click.UsageError("--lab has neither --resume nor --chart")
    if json_file and not os.access(json_file.parent, os.W_OK):
        raise click.UsageError(f"no file can be written in {json_file.parent}")
    asked = {"pump": pump, "busy_poll": busy_poll, "pairs": count, "seconds": seconds}
    if lab:
        sys.exit(laboratory.run(in_lab, program, {**describe(), **asked}, json_file))
    with tempfile.TemporaryDirectory(prefix="turnsvr-bench-") as folder:
        ours, theirs = Turnsvr(Path(folder), pump=pump, busy_poll=busy_poll), Coturn(Path(folder), program)
        try:
            setting = {**describe(), "coturn": theirs.version(), **asked}
            results = _earlier(json_file if resume else None, setting)
        except (ServerFailed, record.BadRecord, OSError) as error:
            raise click.ClickException(str(error)) from None
        status = _run(chosen, results, ours, theirs, json_file, setting)
    click.echo()
    click.echo(report.table(results, ("turnsvr", "coturn")))
    click.echo(report.summary(results))
    if count < _FULL_PAIRS:
        click.echo(f"Only {count} pair{'s' * (count > 1)} a case: take {_FULL_PAIRS} before you believe a figure.")
    if chart_file:
        chart_file.write_text(chart.svg(results, "turnsvr against coturn", _subtitle(setting)))
    sys.exit(status or any(result.error for result in results))


def _chosen(pattern: str | None, quick: bool) -> tuple[cases.Case, ...]:
    known = cases.all_cases()
    if quick and pattern is None:
        known = tuple(case for case in known if case.name in cases.QUICK)
    try:
        chosen = cases.select(pattern or "", known)
    except re.error as error:
        raise click.UsageError(f"--case is no regular expression: {error}") from None
    if not chosen:
        raise click.UsageError(f"no case matches {pattern!r}; see --list")
    return chosen


def _earlier(path: Path | None, setting: dict[str, Any]) -> list[pairs.Result]:
    return record.read(path, setting, cases.all_cases()) if path and path.exists() else []


def _prepare() -> list[int]:
    """Take the load's core and all open files allowed; answers the cores, the servers' first, the load's last."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise click.ClickException("the bench needs two cores: one for a server, one for the load")
    os.sched_setaffinity(0, cores[-1:])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return cores


def _run(
    chosen: Sequence[cases.Case],
    results: list[pairs.Result],
    ours: Turnsvr,
    theirs: Coturn,
    json_file: Path | None,
    setting: dict[str, Any],
) -> int:
    """Add the chosen cases that the results do not have yet, and write the file after each; answers the exit status."""
    have = {result.case.name for result in results}
    order = {case.name: number for number, case in enumerate(cases.all_cases())}
    left = [case for case in chosen if case.name not in have]
    count, seconds = setting["pairs"], setting["seconds"]
    cores = _prepare()
    try:
        with stoppable(), progress(sum(pairs.ticks(case, count) for case in left)) as shown:
            for case in left:
                near = pairs.sibling(case, results)
                result = pairs.Result(case, error=_UNFINISHED)
                results.append(result)
                results.sort(key=lambda found: order[found.case.name])
                pairs.run(result, ours, theirs, pairs=count, seconds=seconds, cores=cores, near=near, tick=shown.tick)
                if json_file:
                    record.write(json_file, results, setting)
                shown.say(report.row(result))
    except Stopped as stopped:
        if json_file:
            record.write(json_file, results, setting)
        return stopped.status
    return 0


def _subtitle(setting: dict[str, Any]) -> str:
    return (
        f"coturn {setting['coturn']}, one core each, medians of {setting['pairs']} pairs; "
        f"{setting['processor']}, Linux {setting['kernel']}"
    )


if __name__ == "__main__":
    main(prog_name="python -m bench")
