"""coturn's own clients against this server."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import need
from tests.interop.conftest import InteropServer
from tests.interop.uclient import CASES, Case, command, verdict
from turnsvr.relay import refuses_dtls

_CLIENT_TIMEOUT = 60.0

_DREW_A_CHANNEL_TWICE = "channel bind: error 400"
"""The client draws channel numbers by chance and ends where it draws one for two peers: it may try once more."""


_USE_WHAT_THEY_FREED = ("mobile-tls", "mobile-dtls")
"""The client goes on using a connection's cipher that it has freed, and ends by that, over TLS mostly."""

_MORE_TRIES = dict.fromkeys(_USE_WHAT_THEY_FREED, 15)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_uclient(case: Case, interop_server: InteropServer) -> None:
    if case.dtls and (reason := refuses_dtls("auto")):
        pytest.skip(reason)
    line = command(case, port=interop_server.port, tls_port=interop_server.tls_port, peer_port=interop_server.peer_port)
    timeout = 20.0 if case.name.startswith("damaged") else _CLIENT_TIMEOUT
    result = _run(line, timeout)
    more = _MORE_TRIES.get(case.name, 0)
    while verdict(case, result) is not None and result is not None:
        if not more and _DREW_A_CHANNEL_TWICE not in result.stdout:
            break
        more = max(more - 1, 0)
        result = _run(line, timeout)
    problem = verdict(case, result)
    assert problem is None, f"{problem}\n{result.stdout[-3000:] if result is not None else ''}"


def _run(line: list[str], timeout: float) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False, errors="replace")
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
