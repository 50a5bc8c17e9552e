"""coturn's own clients against this server."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import need
from tests.interop.conftest import InteropServer
from tests.interop.uclient import CASES, Case, command, verdict
from turnsvr.relay import refuses_dtls

_CLIENT_TIMEOUT = 60.0

_DREW_A_CHANNEL_TWICE = "channel bind: error 400"
"""The client draws channel numbers by chance and ends where it draws one for two peers: it may try once more."""

_WITH_THE_PORTABLE_PUMP = (
    "udp-channel",
    "udp-send-relay6",
    "tcp-channel-server6",
    "tls-send",
    "udp-client-to-client",
    "dual-tcp",
    "oauth-tls",
    "mobile-udp",
    "mobile-tls",
    "tcp-relaying",
    "tcp-relaying-tls",
    "tcp-relaying-passive",
)
"""Each leg and each way to a peer that it serves."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_uclient(case: Case, interop_server: InteropServer, keep_freed: Path) -> None:
    if case.dtls and (reason := refuses_dtls("auto")):
        pytest.skip(reason)
    problem = _problem(case, interop_server, keep_freed)
    assert problem is None, problem


def test_uclient_with_the_portable_pump(portable_server: InteropServer, keep_freed: Path) -> None:
    """All at once, since each mostly waits."""
    cases = [case for case in CASES if case.name in _WITH_THE_PORTABLE_PUMP]
    assert len(cases) == len(_WITH_THE_PORTABLE_PUMP)
    with ThreadPoolExecutor(len(cases)) as pool:
        problems = list(pool.map(lambda case: _problem(case, portable_server, keep_freed), cases))
    assert problems == [None] * len(cases), dict(zip(_WITH_THE_PORTABLE_PUMP, problems, strict=True))


def _problem(case: Case, server: InteropServer, keep_freed: Path) -> str | None:
    """What is wrong with a run, with what the client said, or None."""
    line = command(case, port=server.port, tls_port=server.tls_port, peer_port=server.peer_port)
    timeout = 20.0 if case.name.startswith("damaged") else _CLIENT_TIMEOUT
    environ = os.environ | ({"LD_PRELOAD": str(keep_freed)} if case.frees_twice else {})
    result = _run(line, timeout, environ)
    while verdict(case, result) is not None and result is not None and _DREW_A_CHANNEL_TWICE in result.stdout:
        result = _run(line, timeout, environ)
    problem = verdict(case, result)
    return problem and f"{case.name}: {problem}\n{result.stdout[-3000:] if result is not None else ''}"


def _run(line: list[str], timeout: float, environ: dict[str, str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            line, capture_output=True, text=True, timeout=timeout, check=False, errors="replace", env=environ
        )
    except subprocess.TimeoutExpired:
        return None


def test_stunclient_is_told_its_address(interop_server: InteropServer) -> None:
    need("turnutils_stunclient")
    result = subprocess.run(
        ["turnutils_stunclient", "-p", str(interop_server.port), "127.0.0.1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "UDP reflexive addr: 127.0.0.1:" in result.stdout
