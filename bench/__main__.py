"""`python -m bench`: turnsvr and coturn in turn on one core, the load on another, what arrives counted."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench import cases, chart, pairs, report
from bench.servers import Coturn, ServerFailed, Turnsvr
from turnsvr import __version__
from turnsvr.client.load_flows import CORE

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_PATH = click.Path(dir_okay=False, path_type=Path)
_FULL_PAIRS = 5
_QUICK_SECONDS, _QUICK_PAIRS = 0.6, 1


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--coturn", "program", default="turnserver", show_default=True, metavar="PATH", help="The coturn to run.")
@click.option("--case", "pattern", metavar="REGEX", help="Cases whose name has a match; all by default.")
@click.option("--list", "listing", is_flag=True, help="Print the cases' names and end.")
@click.option("--pairs", "count", default=_FULL_PAIRS, show_default=True, help="Pairs that count; one more runs first.")
@click.option("--seconds", default=1.5, show_default=True, help="Length of a run; steps of a search take a third.")
@click.option("--quick", is_flag=True, help="A few cases with one short pair each, to see where things stand.")
@click.option("--pump", type=click.Choice(["auto", "compiled", "portable"]), default="auto", show_default=True)
@click.option("--json", "json_file", type=_PATH, metavar="FILE", help="Write all that was measured.")
@click.option("--chart", "chart_file", type=_PATH, metavar="FILE", help="Write the ratios as an SVG chart.")
def main(
    program: str,
    pattern: str | None,
    listing: bool,
    count: int,
    seconds: float,
    quick: bool,
    pump: str,
    json_file: Path | None,
    chart_file: Path | None,
) -> None:
    """Compare turnsvr with coturn on this machine.

    Exit status 1 when a case could not be measured. Needs two cores; ten thousand allocations need as many open files.
    """
    chosen = _chosen(pattern, quick)
    if listing:
        click.echo("\n".join(case.name for case in chosen))
        return
    if quick:
        count, seconds = min(count, _QUICK_PAIRS), min(seconds, _QUICK_SECONDS)
    if count < 1 or not 0.1 <= seconds <= 60:
        raise click.UsageError("--pairs is at least 1, --seconds between 0.1 and 60")
    cores = _prepare()
    with tempfile.TemporaryDirectory(prefix="turnsvr-bench-") as folder:
        ours, theirs = Turnsvr(Path(folder), pump=pump), Coturn(Path(folder), program)
        try:
            version = theirs.version()
        except ServerFailed as error:
            raise click.ClickException(str(error)) from None
        results = _run(chosen, ours, theirs, count, seconds, cores)
    setting = _setting(version, pump, count, seconds)
    click.echo(report.table(results, ("turnsvr", "coturn")))
    if count < _FULL_PAIRS:
        click.echo(f"Only {count} pair{'s' * (count > 1)} a case: take {_FULL_PAIRS} before you believe a figure.")
    if json_file:
        json_file.write_text(json.dumps(report.as_json(results, setting), indent=1) + "\n")
    if chart_file:
        chart_file.write_text(chart.svg(results, "turnsvr against coturn", _subtitle(setting)))
    sys.exit(any(result.error for result in results))


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
    chosen: tuple[cases.Case, ...], ours: Turnsvr, theirs: Coturn, count: int, seconds: float, cores: list[int]
) -> list[pairs.Result]:
    runs = sum(2 * (count + 1) + (case.kind is cases.Kind.THREADS) for case in chosen)
    current = ""
    bar: ProgressBar[int] = click.progressbar(length=runs, file=sys.stderr, item_show_func=lambda _: current)
    with bar:

        def tick(name: str) -> None:
            nonlocal current
            current = name
            bar.update(1)

        return [pairs.run(case, ours, theirs, pairs=count, seconds=seconds, cores=cores, tick=tick) for case in chosen]


def _setting(version: str, pump: str, count: int, seconds: float) -> dict[str, Any]:
    return {
        "turnsvr": __version__,
        "pump": pump,
        "coturn": version,
        "kernel": platform.release(),
        "processor": _processor(),
        "python": platform.python_version(),
        "generator": CORE,
        "pairs": count,
        "seconds": seconds,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _subtitle(setting: dict[str, Any]) -> str:
    return (
        f"coturn {setting['coturn']}, one core each, medians of {setting['pairs']} pairs; "
        f"{setting['processor']}, Linux {setting['kernel']}"
    )


if __name__ == "__main__":
    main(prog_name="python -m bench")
