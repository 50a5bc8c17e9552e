"""What the bench makes of its readings: medians, ratios, verdicts, table, JSON and chart."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bench import chart, report
from bench.__main__ import main
from bench.cases import QUICK, Case, Kind, all_cases, select
from bench.pairs import Result
from bench.statistics import Pair, Spread, ratio, spread
from bench.threads import balance, scaling


def result(*pairs: tuple[dict[str, float], dict[str, float]], goal: float | None = 1.2) -> Result:
    return Result(Case("up/16/singles/1000", goal=goal), [Pair(*pair) for pair in pairs])


def test_a_spread_is_median_least_and_greatest() -> None:
    assert Spread.of([5, 1, 3, math.nan]) == (3, 1, 5)
    assert all(map(math.isnan, Spread.of([math.nan])))
    assert spread([{"cpu": 2.0}, {}, {"cpu": 4.0}], "cpu") == (3, 2, 4)


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """The machine was half as fast in the second pair; the ratio does not change."""
    pairs = [Pair({"delivered": 200.0}, {"delivered": 100.0}), Pair({"delivered": 100.0}, {"delivered": 50.0})]
    assert ratio(pairs, "delivered") == (2, 2, 2)
    assert math.isnan(ratio([Pair({"loss": 0.0}, {"loss": 0.0})], "loss").median)


def test_delivered_packets_decide() -> None:
    found = report.headline(result(({"delivered": 300.0, "cpu": 1.0}, {"delivered": 100.0, "cpu": 1.0})))
    assert (found.metric, found.advantage.median, found.by_cpu) == ("delivered", 3, False)


def test_cpu_time_decides_where_the_generator_is_the_limit() -> None:
    limited = {"delivered": 300.0, "cpu": 2e-6, "generator_limited": 1.0}
    other = {"delivered": 200.0, "cpu": 8e-6, "generator_limited": 0.0}
    compared = result((limited, other), (limited, other), ({**limited, "generator_limited": 0.0}, other))
    found = report.headline(compared)
    assert (found.metric, found.advantage.median, found.by_cpu) == ("cpu", 4, True)
    assert any("4.00 times less" in note for note in report.notes(compared))


@pytest.mark.parametrize(("delivered", "word"), [(120.0, "met"), (119.0, "missed")])
def test_a_goal_is_met_or_missed(delivered: float, word: str) -> None:
    assert report.verdict(result(({"delivered": delivered}, {"delivered": 100.0}))) == f"goal 1.2: {word}"
    assert report.verdict(result()) == ""


def test_what_a_reader_must_know_is_said() -> None:
    lossy = result(({"loss": 0.2, "disturbed": 2.0, "lost_at_generator": 3.0, "delivered": 1.0}, {"delivered": 1.0}))
    lossy.error = "coturn ended with status 1"
    notes = " ".join(report.notes(lossy))
    for text in ("more than 1 %", "in 2 runs", "3 packets were lost at the generator", "coturn ended with status 1"):
        assert text in notes


def test_table_json_and_chart_show_every_case() -> None:
    results = [
        result(({"delivered": 3e5, "p99": 1e-4, "cpu": 3e-6}, {"delivered": 1e5, "p99": 2e-4, "cpu": math.nan})),
        Result(Case("memory/1000", Kind.MEMORY), [Pair({"pss": 4000.0}, {"pss": 8000.0})]),
        Result(Case("tls/<up>"), error="refused"),
    ]
    table = report.table(results, ("turnsvr", "coturn"))
    assert re.search(r"delivered /s.*300,000 \[300,000 - 300,000\].*100,000.*3\.00 \[3\.00 - 3\.00\]", table)
    assert "stopped: refused" in table

    written = json.dumps(report.as_json(results, {"pairs": 1}), allow_nan=False)
    first, memory, failed = json.loads(written)["cases"]
    assert first["metrics"]["p99"]["ratio"]["median"] == 0.5
    assert first["metrics"]["cpu"]["theirs"]["median"] is None
    assert memory["headline"]["advantage"]["median"] == 2
    assert failed["error"] == "refused"

    picture = ElementTree.fromstring(chart.svg(results, "turnsvr & coturn", "one core"))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "turnsvr & coturn" in texts
    assert "up/16/singles/1000" in texts
    assert "tls/<up>" not in texts
    assert "prefers-color-scheme: dark" in ElementTree.tostring(picture, encoding="unicode")


def test_cases_have_names_of_their_own() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names)) >= 36 + 4 + 8 + 6
    assert set(QUICK) <= set(names)
    assert [case.name for case in select("^binding$", all_cases())] == ["binding"]


def test_threads_are_compared_by_cost_and_evenness() -> None:
    assert balance([1.0, 1.0, 0.1], 2) == 2
    assert balance([3.0, 1.0], 2) == pytest.approx(4 / 3)
    assert math.isnan(balance([0.0], 2))
    assert scaling({"cpu": 4.0, "balance": 1.0}, {"cpu": 5.0, "balance": 2.0}) == pytest.approx(1.6)


def test_the_command_lists_and_refuses() -> None:
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
    ):
        status, output = run(*arguments)
        assert status == 2
        assert text in output
