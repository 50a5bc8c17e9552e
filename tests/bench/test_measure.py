"""The bench on real servers: it measures what is there, and says when nothing is."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import process
from bench.cases import Case, Kind
from bench.loaded import WINDOWS, Loaded, carried, compare, in_turn, ready
from bench.measure import measure
from bench.metrics import goals
from bench.pairs import Result, run
from bench.servers import Coturn, Running, Server, ServerFailed, Turnsvr
from tests.conftest import need
from tests.processes import state, threads
from turnsvr.client.load_flows import OfferedTraffic
from turnsvr.client.load_session import LoadError
from turnsvr.client.load_values import Direction, Load
from turnsvr.stun.address import Transport

SECONDS = 0.3
TRAFFIC = OfferedTraffic(flows=2, size=160)
SLOW = 500.0
"""Packets a second: few, so that a busy machine carries them."""


@pytest.fixture(params=["turnsvr", "coturn"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    if request.param == "coturn":
        return Coturn(tmp_path, need("turnserver"))
    return Turnsvr(tmp_path)


@pytest.fixture(autouse=True)
def _own_cores() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cores)


CASES = [Case("up", traffic=TRAFFIC), Case("binding", Kind.BINDING)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_server_carries_is_found(server: Server, case: Case) -> None:
    with ready(server, case, [0]) as loaded:
        figures = carried(loaded, SECONDS, SLOW)
    assert figures["delivered"] > 100
    assert 0 < figures["cpu"] < 0.1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_servers_are_loaded_in_turn(tmp_path: Path, case: Case) -> None:
    servers = (Turnsvr(tmp_path), Coturn(tmp_path, need("turnserver")))
    ticks: list[str] = []
    pair = compare(servers, case, SECONDS, (SLOW, SLOW), cores=[0], known=True, tick=ticks.append)
    assert ticks == [f"{case.name} turnsvr", f"{case.name} coturn"]
    for figures in pair:
        assert 0 < figures["p50"] <= figures["p99"] < 5
        assert 0 < figures["half_cpu"] < 0.1
        assert figures["windows"] == WINDOWS >= figures["windows_disturbed"] >= 0
        assert 0 <= figures["idle"] < 1


def test_a_pair_that_only_warms_up_has_no_latency(tmp_path: Path) -> None:
    servers = (Turnsvr(tmp_path), Turnsvr(tmp_path))
    pair = compare(servers, CASES[0], 0.1, (SLOW, SLOW), cores=[0], known=False)
    assert all(figures["delivered"] > 0 and "p99" not in figures for figures in pair)


def test_windows_at_half_load_are_at_half_load(server: Server) -> None:
    with ready(server, CASES[0], [0]) as loaded, ready(server, CASES[0], [0]) as other:
        seen: list[tuple[int, float, float]] = []

        def watched(one: Loaded, number: int) -> Loaded:
            def offer(rate: float, seconds: float, exact: bool) -> Load:
                seen.append((number, rate, seconds))
                return one.offer(rate, seconds, exact)

            return Loaded(one.running, one.flows, offer)

        in_turn([watched(loaded, 0), watched(other, 1)], 300, 0.7)
    numbers = [number for number, _, _ in seen]
    assert all({*numbers[at : at + 2]} == {0, 1} for at in range(0, 2 * WINDOWS, 2))
    assert len(numbers) == 2 * WINDOWS
    assert {(rate, round(seconds, 9)) for _, rate, seconds in seen} == {(300, 0.1)}


def test_a_settled_server_takes_hardly_any_time(server: Server) -> None:
    with ready(server, CASES[0], [0]) as loaded:
        loaded.running.settle()
        before = process.cpu_seconds(loaded.running.pid)
        time.sleep(0.5)
        assert process.cpu_seconds(loaded.running.pid) - before < 0.05


def test_cycles_are_measured(server: Server) -> None:
    figures = measure(server, Case("cycles", Kind.CYCLES), 2.0)
    assert figures["cycles"] > 1
    assert figures["cycle_cpu"] > 0


@pytest.mark.parametrize("direction", list(Direction))
def test_relaying_over_tcp_is_measured(server: Server, direction: Direction) -> None:
    case = Case("tcprelay", Kind.TCP_RELAY, OfferedTraffic(direction, 2, transport=Transport.TCP))
    figures = measure(server, case, SECONDS)
    assert figures["bytes"] > 100_000
    assert 0 < figures["byte_cpu"] < 1e-6


def test_memory_and_start_are_measured(server: Server) -> None:
    figures = measure(server, Case("memory", Kind.MEMORY, count=200), SECONDS)
    assert 100 < figures["pss"] < 1_000_000
    assert figures["base"] > 100_000
    assert 0 < measure(server, Case("start", Kind.START), SECONDS)["start"] < 20


def test_a_server_that_stands_still_delivers_nothing(server: Server) -> None:
    with ready(server, CASES[0], [0]) as loaded:
        stop(loaded.running)
        try:
            assert loaded.step(1_000, 0.1).counts.delivered == 0
            with pytest.raises(LoadError, match=r"delivered none of \d+ packets"):
                carried(loaded, SECONDS, SLOW)
            (figures,) = in_turn([loaded], SLOW, 0.1)
            assert figures["half_loss"] == 1
            assert math.isnan(figures["p99"])
        finally:
            loaded.running.process.send_signal(signal.SIGCONT)


def stop(running: Running) -> None:
    """Returns when every thread stands still: on a busy machine that is not at once."""
    running.process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while any(state(thread) != "T" for thread in threads(running.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_server_that_has_ended_is_an_error(server: Server) -> None:
    with ready(server, CASES[0], [0]) as loaded:
        loaded.running.process.kill()
        loaded.running.process.wait()
        assert loaded.flows.run(TRAFFIC.load(1_000, 0.1)).delivered == 0
        with pytest.raises(ServerFailed, match=f"{server.name} ended with status -9"):
            carried(loaded, SECONDS, SLOW)


def test_a_server_that_does_not_start_ends_its_case_alone(tmp_path: Path) -> None:
    broken = Coturn(tmp_path, "/bin/false")
    with pytest.raises(ServerFailed, match="cannot be run"):
        broken.version()
    ticks: list[str] = []
    ours = Turnsvr(tmp_path)
    found = Result(Case("start", Kind.START))
    run(found, ours, broken, pairs=1, seconds=SECONDS, cores=[0, 0], tick=ticks.append)
    assert (found.pairs, ticks) == ([], ["start turnsvr", "start coturn"])
    assert "coturn ended with status 1" in found.error


def test_a_case_is_run_from_warming_up_to_its_goals(tmp_path: Path) -> None:
    servers = Turnsvr(tmp_path), Coturn(tmp_path, need("turnserver"))
    ticks: list[str] = []
    found = Result(Case("up", traffic=TRAFFIC, goal=0.01), error="interrupted")
    run(found, *servers, pairs=1, seconds=SECONDS, cores=[0, 0], near=(SLOW, SLOW), tick=ticks.append)
    assert (found.error, len(found.pairs)) == ("", 1)
    assert ticks == ["up turnsvr", "up coturn"] * 2
    assert all(rate > 100 for rate in found.rates)
    assert [goal.name for goal in goals(found)][1:] == ["p99"]
    assert goals(found)[0].met


def test_cpu_time_is_the_process_and_memory_is_bytes() -> None:
    spin = "import sys, time\nwhile time.process_time() < 0.3: pass\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE) as spinning:
        before = process.cpu_seconds(spinning.pid)
        while process.cpu_seconds(spinning.pid) < before + 0.1:
            assert spinning.poll() is None
        assert process.memory(spinning.pid).rss > 1_000_000
        assert sum(process.thread_seconds(spinning.pid).values()) > 0
        spinning.kill()
