"""The laboratory: what it makes of its readings, and a short run of every row between real namespaces."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.lab import report
from bench.lab.cases import LabCase, cases
from bench.lab.measure import LabResult, Rig, compare, rig
from bench.lab.rows import COTURN, FAST, FORWARD, OTHER, PUMP, TC, XDP, Ready, Row, RowAbsent, ready, rows
from bench.lab.traffic import MARK, LabUnavailable, Traffic
from bench.servers import Coturn
from bench.statistics import Reading
from tests.conftest import need
from turnsvr.client.load_values import Direction, quantile
from turnsvr.relay.offload import system

CASE = LabCase(Direction.UP, 4, 160)
SLOW = 500.0
"""Packets a second: few, so that a busy machine carries them."""
QUIET = {"loss": 0.0, "sent_share": 1.0, "others": 0.01, "others_at_load": 0.0, "p50": 1e-5}


def readings(cpu: dict[str, float], **more: float) -> dict[str, Reading]:
    """By CPU time a packet, in microseconds, which is the p99 as well."""
    return {row: {**QUIET, "cpu": used / 1e6, "delivered": 1e5, "p99": used / 1e6, **more} for row, used in cpu.items()}


GOOD = {COTURN: 9.0, PUMP: 4.0, TC: 1.5, XDP: 0.3, FORWARD: 1.5}


def test_goals_are_held_to_the_coturn_that_was_asked_for() -> None:
    found = LabResult(CASE, [readings(GOOD)])
    assert [goal.met for goal in report.goals(found)] == [True] * 6
    slower = LabResult(CASE, [readings({**GOOD, OTHER: 5.0})])
    assert [str(goal) for goal in report.goals(slower) if not goal.met] == [
        f"CPU, {OTHER} / xdp 16.67 (>= 20) MISSED",
        f"CPU, {OTHER} / tc 3.33 (>= 5) MISSED",
    ]
    absent = LabResult(CASE, [readings({COTURN: 9.0, PUMP: 4.0})], absent={XDP: "no driver"})
    assert not any(goal.met for goal in report.goals(absent))
    assert report.goals(LabResult(CASE)) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"others": 0.3}, "other programs took up to 30% of the server's core"),
        ({"others_at_load": 0.06}, "6% of the load's core"),
        ({"loss": 0.1}, "10% lost at the rate that it had carried"),
        ({"sent_share": 0.5}, "only 50% of what was asked for was sent"),
    ],
)
def test_figures_that_do_not_hold_say_so(more: dict[str, float], said: str) -> None:
    assert report.doubts(LabResult(CASE, [readings(GOOD)])) == []
    busy = LabResult(CASE, [readings(GOOD, **more), readings(GOOD, **more)])
    assert any(said in doubt for doubt in report.doubts(busy))
    assert f"does not hold: {report.doubts(busy)[0]}" in report.table(busy, [Row(name) for name in GOOD])
    assert "measure again on a quiet machine: lab/up/4/160" in report.summary([busy])


def test_a_case_that_was_stopped_is_named() -> None:
    assert report.summary([LabResult(CASE, error="interrupted")]) == (
        f"0 goals met, 0 missed\nnot measured to the end: {CASE.name}"
    )


def test_rounds_that_differ_do_not_hold() -> None:
    found = LabResult(CASE, [readings(GOOD), readings({**GOOD, XDP: 0.6})])
    assert report.doubts(found) == ["xdp: CPU time a packet differs by 2.0 from round to round"]


def test_the_table_and_the_record_have_every_row() -> None:
    found = LabResult(CASE, [readings(GOOD), readings({**GOOD, XDP: 0.31})], absent={TC: "no TCX"})
    compared = [Row(name, label=f"by {name}") for name in GOOD]
    table = report.table(found, compared)
    assert "absent: no TCX" in table
    assert "goal: CPU, pump / xdp 13.12 (>= 8) met" in table
    written = json.loads(json.dumps(report.as_json([found], compared, {"pairs": 2}), allow_nan=False))
    (case,) = written["cases"]
    assert (case["name"], case["holds"], case["reference"], case["absent"]) == (CASE.name, True, COTURN, {TC: "no TCX"})
    assert case["rows"]["xdp"]["cpu_less_than"]["pump"]["median"] == pytest.approx(13.12, rel=1e-3)
    assert TC not in case["rows"]
    assert case["rows"]["xdp"]["metrics"]["half_cpu"]["median"] is None
    assert [set(each) for each in case["rounds"]] == [set(GOOD)] * 2
    assert [goal["met"] for goal in case["goals"]] == [True] * 6


def test_its_options_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        ran = CliRunner().invoke(main, ["--lab", *arguments])
        return ran.exit_code, ran.output

    assert run("--list")[1].split() == [case.name for case in cases()]
    assert run("--list", "--quick")[1].split() == ["lab/up/64/1000", "lab/down/64/1000"]
    for arguments, text in (
        (("--case", "nosuch"), "no case matches"),
        (("--case", "("), "no regular expression"),
        (("--chart", "x.svg"), "neither --resume nor --chart"),
    ):
        status, output = run(*arguments)
        assert status == 2
        assert text in output
    need("turnserver")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status, output = run("--quick")
    assert (status, "need root" in output) == (1, True)


@pytest.mark.parametrize(("flags", "known"), [(FAST, True), (FAST[:1], False), ((), False)])
def test_a_coturn_that_knows_its_fast_flags_has_a_further_row(
    tmp_path: Path, flags: tuple[str, ...], known: bool
) -> None:
    program = tmp_path / "turnserver"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 4.99 || echo "Usage: {" x ".join(flags)} x" >&2\n')
    program.chmod(0o755)
    assert Coturn(tmp_path, str(program)).knows(FAST) is known
    found = {row.name: row.label for row in rows(tmp_path, str(program)) if row.is_coturn and row.name != COTURN}
    assert found.get(OTHER) == "coturn 4.99"
    assert found.get(f"{OTHER} fast") == ("coturn 4.99 --multiplex-peer --udp-gso" if known else None)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: a socket is in it."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture(scope="module")
def made(folder: Path) -> Iterator[Rig]:
    need("clang")
    cores = sorted(os.sched_getaffinity(0))
    try:
        with rig(folder, cores) as ready_made:
            yield ready_made
    except LabUnavailable as error:
        pytest.skip(str(error))


def test_latency_is_counted_as_the_load_generator_does(tmp_path: Path) -> None:
    need("clang")
    try:
        traffic = Traffic(tmp_path)
    except LabUnavailable as error:
        pytest.skip(str(error))
    try:
        for at in (42, 46):  # a datagram's data, and those of its ChannelData
            before, began = traffic.arrived(), time.monotonic_ns()
            stamped = struct.pack("=QQ", MARK, began - 3_000_000)
            verdict, _, _ = system.run(traffic.counter, (bytes(at) + stamped).ljust(64, b"\0"))
            took = (time.monotonic_ns() - began) / 1e9
            counted = [now - then for now, then in zip(traffic.arrived(), before, strict=True)]
            assert (verdict, sum(counted)) == (1, 1)
            assert 0.003 * 0.97 <= quantile(counted, 0.5) <= (0.003 + took) * 1.03
        verdict, _, _ = system.run(traffic.counter, bytes(64))
        assert verdict == 2
        assert sum(traffic.arrived()) == 2
    finally:
        traffic.close()


@pytest.fixture(scope="module")
def compared(folder: Path) -> dict[str, Row]:
    found = {row.name: row for row in rows(folder, need("turnserver"))}
    assert OTHER not in found, "one coturn has one row, however it is named"
    return found


def measured(made: Rig, flows: Ready, case: LabCase) -> Reading:
    """A run in which something arrived: on a busy machine a server may have no core in all the time of one."""
    for _ in range(20):
        reading = made.run(flows, case, SLOW, 0.2)
        if reading["arrived"] > 0:
            break
    return reading


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        *((name, Direction.UP) for name in (COTURN, PUMP, TC, XDP, FORWARD)),
        *((name, Direction.DOWN) for name in (XDP, FORWARD)),
    ],
)
def test_every_row_delivers_what_the_kernel_sends(
    made: Rig, compared: dict[str, Row], name: str, direction: Direction
) -> None:
    case = LabCase(direction, 3, 160)
    try:
        with ready(compared[name], made.network, case, made.cores.server) as flows:
            reading = measured(made, flows, case)
    except RowAbsent as error:
        pytest.skip(str(error))
    assert reading["arrived"] > 0
    assert 0 < reading["sent"] <= 1.1 * SLOW * 0.2
    assert 0 < reading["p50"] <= reading["p99"] < 5
    assert reading["kernel_cpu"] > 0
    assert (reading["process_cpu"] > 0) is (name != FORWARD)
    assert reading["cpu"] == pytest.approx(reading["kernel_cpu"] + reading["process_cpu"])


@pytest.mark.parametrize(("name", "direction"), [(XDP, Direction.UP), (PUMP, Direction.DOWN), (FORWARD, Direction.UP)])
def test_sockets_send_in_place_of_the_kernel(
    made: Rig, compared: dict[str, Row], name: str, direction: Direction
) -> None:
    case = LabCase(direction, 3, 160, by_sockets=True)
    try:
        with ready(compared[name], made.network, case, made.cores.server) as flows:
            reading = measured(made, flows, case)
    except RowAbsent as error:
        pytest.skip(str(error))
    assert reading["arrived"] > 0
    assert 0 < reading["p50"] <= reading["p99"] < 5
    assert (reading["process_cpu"] > 0) is (name != FORWARD)


def test_rows_are_compared_in_turn_and_one_that_fails_is_left_out(
    made: Rig, compared: dict[str, Row], tmp_path: Path
) -> None:
    chosen = [Row("broken", Coturn(tmp_path, "/bin/false")), compared[PUMP], compared[FORWARD]]
    found, ticks = LabResult(CASE), list[str]()
    compare(made, found, chosen, 1, 0.1, ticks.append)
    assert ticks == [f"{CASE.name} {name}" for name in ("broken", PUMP, FORWARD)] * 2
    assert "ended with status 1" in found.absent["broken"]
    (each,) = found.rounds
    assert set(each) == {PUMP, FORWARD}
    assert all(0 < reading["p50"] <= reading["p99"] for reading in each.values())
    assert each[FORWARD]["half_rate"] == each[PUMP]["half_rate"] > 0
