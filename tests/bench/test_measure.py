"""The bench on real servers: it measures what is there, and says when nothing is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import process
from bench.cases import Case, Kind
from bench.measure import Hint, loaded, measure
from bench.pairs import run
from bench.servers import PEER_HOST, Coturn, Plan, Running, Server, ServerFailed, Turnsvr
from tests.conftest import need
from turnsvr.client.load_flows import Traffic, relay_flows
from turnsvr.client.load_session import LoadError

SECONDS = 0.3
TRAFFIC = Traffic(flows=2, size=160)
SLOW = Hint(rate=500, half=200)
"""Few packets, so that a busy machine carries them."""


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


def test_a_relay_is_measured(server: Server) -> None:
    figures = measure(server, Case("up", traffic=TRAFFIC), SECONDS, SLOW)
    assert figures["delivered"] > 100
    assert 0 < figures["cpu"] < 0.1
    assert 0 < figures["p50"] <= figures["p99"] < 5


def test_bindings_and_cycles_are_measured(server: Server) -> None:
    assert measure(server, Case("binding", Kind.BINDING), SECONDS, SLOW)["delivered"] > 100
    figures = measure(server, Case("cycles", Kind.CYCLES), SECONDS, Hint())
    assert figures["cycles"] > 1
    assert figures["cycle_cpu"] > 0


def test_memory_and_start_are_measured(server: Server) -> None:
    figures = measure(server, Case("memory", Kind.MEMORY, count=200), SECONDS, Hint())
    assert 100 < figures["pss"] < 1_000_000
    assert figures["base"] > 100_000
    assert 0 < measure(server, Case("start", Kind.START), SECONDS, Hint())["start"] < 20


def test_a_server_that_stands_still_delivers_nothing(server: Server) -> None:
    with (
        server.start(Plan()) as running,
        relay_flows(running.address, server.login, TRAFFIC, peer_host=PEER_HOST) as flows,
    ):
        stop(running)
        try:
            assert flows.run(TRAFFIC.load(1_000, 0.1)).delivered == 0
            with pytest.raises(LoadError, match=r"delivered none of \d+ packets"):
                loaded(running, flows, lambda rate, length, exact: TRAFFIC.load(rate, length), SECONDS, SLOW)
        finally:
            running.process.send_signal(signal.SIGCONT)


def stop(running: Running) -> None:
    """Returns when every thread stands still: on a busy machine that is not at once."""
    running.process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while not all(_is_stopped(task) for task in Path(f"/proc/{running.pid}/task").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _is_stopped(task: Path) -> bool:
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_server_that_has_ended_is_an_error(server: Server) -> None:
    with (
        server.start(Plan()) as running,
        relay_flows(running.address, server.login, TRAFFIC, peer_host=PEER_HOST) as flows,
    ):
        running.process.kill()
        running.process.wait()
        assert flows.run(TRAFFIC.load(1_000, 0.1)).delivered == 0
        with pytest.raises(ServerFailed, match=f"{server.name} ended with status -9"):
            loaded(running, flows, lambda rate, length, exact: TRAFFIC.load(rate, length), SECONDS, SLOW)


def test_a_server_that_does_not_start_ends_its_case_alone(tmp_path: Path) -> None:
    broken = Coturn(tmp_path, "/bin/false")
    with pytest.raises(ServerFailed, match="cannot be run"):
        broken.version()
    ticks: list[str] = []
    ours = Turnsvr(tmp_path)
    found = run(Case("start", Kind.START), ours, broken, pairs=1, seconds=SECONDS, cores=[0, 0], tick=ticks.append)
    assert (found.pairs, ticks) == ([], ["start turnsvr", "start coturn"])
    assert "coturn ended with status 1" in found.error


def test_cpu_time_is_the_process_and_memory_is_bytes() -> None:
    spin = "import sys, time\nwhile time.process_time() < 0.3: pass\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE) as spinning:
        before = process.cpu_seconds(spinning.pid)
        while process.cpu_seconds(spinning.pid) < before + 0.1:
            assert spinning.poll() is None
        assert process.memory(spinning.pid).rss > 1_000_000
        assert sum(process.thread_seconds(spinning.pid).values()) > 0
        spinning.kill()


def test_the_command_writes_json_and_a_chart(tmp_path: Path) -> None:
    need("turnserver")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    figures, picture = tmp_path / "out.json", tmp_path / "out.svg"
    arguments = ["--quick", "--case", "^start$", "--json", str(figures), "--chart", str(picture)]
    ran = subprocess.run(
        [sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "ms to the first answer" in ran.stdout
    assert "Only 1 pair a case" in ran.stdout
    (case,) = json.loads(figures.read_text())["cases"]
    assert case["headline"]["advantage"]["median"] > 0
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
