"""Fixtures of tests that relay over TCP to peers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Serve
from tests.net.tcpworld import KINDS, WAYS, World
from turnsvr import relay
from turnsvr.relay.compiled import tls as pump_tls


@pytest.fixture(params=WAYS)
def leg(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=KINDS)
async def world(
    serve: Serve, request: pytest.FixtureRequest, leg: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    kind: str = request.param
    if kind.startswith("compiled") and relay.describe().startswith("portable"):
        if os.environ.get("TURNSVR_REQUIRE_PUMP") == "1":
            pytest.fail(relay.describe())
        pytest.skip(relay.describe())
    if kind.endswith("TLS"):
        if leg != "tls":
            pytest.skip("as without TLS")
        monkeypatch.setattr(pump_tls, "missing", lambda: "OpenSSL is out of reach")
    world = World(serve, kind, leg)
    yield world
    world.end()
