"""What the bench makes of its readings: medians, ratios, verdicts, table, JSON and chart."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import pytest

from bench import chart, report
from bench.cases import QUICK, Case, Kind, all_cases, select
from bench.loaded import latency
from bench.metrics import goals, headline
from bench.pairs import Result, sibling, ticks
from bench.statistics import Pair, Spread, ratio, spread
from bench.threads import balance, scaling
from turnsvr.client.load_sweep import SweepStep
from turnsvr.client.load_values import HISTOGRAM_SIZE, TICK, LoadCounts, bucket_of


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
    found = headline(result(({"delivered": 300.0, "cpu": 1.0}, {"delivered": 100.0, "cpu": 1.0})))
    assert (found.metric, found.advantage.median, found.by_cpu) == ("delivered", 3, False)


def test_cpu_time_decides_where_the_generator_is_the_limit() -> None:
    limited = {"delivered": 300.0, "cpu": 2e-6, "generator_limited": 1.0}
    other = {"delivered": 200.0, "cpu": 8e-6, "generator_limited": 0.0}
    compared = result((limited, other), (limited, other), ({**limited, "generator_limited": 0.0}, other))
    found = headline(compared)
    assert (found.metric, found.advantage.median, found.by_cpu) == ("cpu", 4, True)
    assert any("4.00 times less" in note for note in report.notes(compared))


@pytest.mark.parametrize(("delivered", "p99", "met"), [(120.0, 1.0, [True, True]), (119.0, 1.1, [False, False])])
def test_goals_of_rate_and_latency_are_met_or_missed(delivered: float, p99: float, met: list[bool]) -> None:
    found = goals(result(({"delivered": delivered, "p99": p99}, {"delivered": 100.0, "p99": 1.0})))
    assert [goal.met for goal in found] == met
    assert [(goal.name, goal.bound) for goal in found] == [("ratio", 1.2), ("p99", 1)]


@pytest.mark.parametrize(
    ("limited", "expected"), [(0.0, "ratio 2.00 (>= 1.2) met"), (1.0, "CPU ratio 4.00 (>= 1.2) met")]
)
def test_relaying_over_tcp_is_judged_by_its_bytes_or_by_what_they_cost(limited: float, expected: str) -> None:
    case = next(case for case in all_cases() if case.kind is Kind.TCP_RELAY)
    ours = {"bytes": 2e8, "byte_cpu": 1e-9, "generator_limited": limited}
    found = Result(case, [Pair(ours, {"bytes": 1e8, "byte_cpu": 4e-9})])
    assert [str(goal) for goal in goals(found)] == [expected]


def test_memory_has_a_goal_and_a_case_without_pairs_has_none() -> None:
    memory = Result(Case("memory/1000", Kind.MEMORY), [Pair({"pss": 9.0}, {"pss": 8.0})])
    assert [str(goal) for goal in goals(memory)] == ["pss 1.12 (<= 1) MISSED"]
    assert goals(result()) == []


def test_a_narrow_miss_does_not_read_like_the_bound() -> None:
    late = goals(result(({"delivered": 1.2, "p99": 1.004}, {"delivered": 1.0, "p99": 1.0})))
    assert [str(goal) for goal in late] == ["ratio 1.20 (>= 1.2) met", "p99 1.0040 (<= 1) MISSED"]


def test_a_latency_that_was_not_measured_meets_no_goal() -> None:
    rate, late = goals(result(({"delivered": 200.0, "p99": math.nan}, {"delivered": 100.0, "p99": 1.0})))
    assert (rate.met, late.met) == (True, False)


def test_the_summary_counts_goals_and_names_what_is_missed() -> None:
    good = result(({"delivered": 200.0, "p99": 1.0}, {"delivered": 100.0, "p99": 1.0}))
    slow = result(({"delivered": 200.0, "p99": 3.0}, {"delivered": 100.0, "p99": 1.0}))
    said = report.summary([good, slow, Result(Case("cycles", Kind.CYCLES), error="refused")])
    assert said.splitlines() == [
        "3 cases: 3 goals met, 1 missed",
        "  up/16/singles/1000 p99 3.00 (<= 1) MISSED",
        "not measured to the end: cycles",
    ]


def test_a_row_has_the_ratio_and_the_goals_or_why_it_stopped() -> None:
    row = report.row(result(({"delivered": 200.0, "p99": 3.0}, {"delivered": 100.0, "p99": 1.0})))
    assert re.fullmatch(r"up/16/singles/1000 +2\.00 \[2\.00 - 2\.00\] +ratio 2\.00 .* met, p99 3\.00 .* MISSED", row)
    assert report.row(Result(Case("tls/up"), error="refused")).split() == ["tls/up", "-", "stopped:", "refused"]


def window(late: int, *, sent: int = 100, preempted: int = 0) -> SweepStep:
    """A hundred packets of which two are late by so many ticks, and the rest by ten."""
    histogram = [0] * HISTOGRAM_SIZE
    histogram[bucket_of(10)], histogram[bucket_of(late)] = 98, 2
    return SweepStep(1, LoadCounts(sent, 100, 80, 0.8, 0, 0, 0, 0, 0, 0, 0, histogram), 1e-3, 1.0, preempted)


def test_one_hiccup_does_not_decide_the_latency_but_is_counted() -> None:
    steps = [window(50), window(40), window(60), window(30_000, sent=200, preempted=9), window(20)]
    found = latency(steps)
    assert found["p99"] == pytest.approx(50 * TICK)
    assert found["p50"] == pytest.approx(10 * TICK)
    assert found["half_cpu"] == pytest.approx(1e-5)
    assert found["half_loss"] == pytest.approx(1 / 6)
    assert (found["windows"], found["windows_disturbed"]) == (5, 1)
    notes = " ".join(report.notes(result(({**found, "delivered": 2.0, "idle": 0.02}, {"delivered": 1.0}))))
    for text in ("in 1 of 5 windows", "more than 1 % at half load", "took 2.0% of the core"):
        assert text in notes


def test_windows_in_which_all_come_late_are_late() -> None:
    assert latency([window(late) for late in (20, 500, 600, 700, 30)])["p99"] > 400 * TICK


def test_a_search_begins_at_the_rate_of_the_case_most_like_it() -> None:
    cases = {case.name: case for case in all_cases()}

    def measured(name: str, rate: float) -> Result:
        return Result(cases[name], [Pair({"delivered": rate}, {"delivered": rate / 2})])

    results = [
        measured("up/16/singles/160", 10.0),
        measured("up/16/trains/1000", 20.0),
        measured("tls/up/16/singles/160", 30.0),
        measured("binding", 40.0),
    ]
    assert sibling(cases["up/16/singles/1000"], results) == (10, 5)
    assert sibling(cases["up/256/trains/1000"], results) == (20, 10)
    assert sibling(cases["tls/up/16/singles/1000"], results) == (30, 15)
    assert sibling(cases["cycles"], results) == (0, 0)
    assert sibling(cases["up/1/singles/160"], [Result(cases["up/1/singles/1000"])]) == (0, 0)


def test_ticks_are_known_beforehand() -> None:
    assert ticks(Case("up"), 5) == 12
    assert ticks(Case("threads", Kind.THREADS), 5) == 13


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
