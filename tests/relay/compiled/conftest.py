"""Everything here is about the compiled pump alone; where it was not built these tests are skipped."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from tests.relay.compiled.dtls_client import DtlsWorld, MakeDtlsWorld
from tests.relay.world import SETTINGS, World
from turnsvr import relay
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.api import PumpSettings


class WorldFactory(Protocol):
    def __call__(self, settings: PumpSettings | None = None) -> World: ...


@pytest.fixture(autouse=True, scope="session")
def _compiled_pump() -> None:
    if relay.describe().startswith("portable"):
        if os.environ.get("TURNSVR_REQUIRE_PUMP") == "1":
            pytest.fail(relay.describe())
        pytest.skip(relay.describe())


@pytest.fixture
async def make_world() -> AsyncIterator[WorldFactory]:
    """Makes worlds around a compiled pump each, and ends them."""
    worlds: list[World] = []

    def factory(settings: PumpSettings | None = None) -> World:
        worlds.append(World("compiled", settings))
        return worlds[-1]

    yield factory
    for world in worlds:
        world.end()


@pytest.fixture
async def make_dtls_world(certificate: TlsFiles) -> AsyncIterator[MakeDtlsWorld]:
    """Makes worlds whose listeners serve DTLS, and ends them."""
    if reason := relay.refuses_dtls("auto"):
        pytest.skip(reason)
    worlds: list[DtlsWorld] = []

    def make(settings: PumpSettings = SETTINGS) -> DtlsWorld:
        worlds.append(DtlsWorld(certificate, settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.end()
