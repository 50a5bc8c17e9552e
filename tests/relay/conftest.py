"""Every test that takes `pump_factory` or `pump_kind` runs once for each pump."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from tests.relay.world import World
from turnsvr import relay
from turnsvr.relay import PumpKind
from turnsvr.relay.api import PumpSettings


class PumpFactory(Protocol):
    def __call__(self, settings: PumpSettings | None = None) -> World: ...


@pytest.fixture(scope="session", params=["portable", "compiled"])
def pump_kind(request: pytest.FixtureRequest) -> PumpKind:
    """A pump that loads here. TURNSVR_REQUIRE_PUMP=1 makes the absence of the compiled one a failure."""
    kind: PumpKind = request.param
    if kind == "compiled" and relay.describe().startswith("portable"):
        if os.environ.get("TURNSVR_REQUIRE_PUMP") == "1":
            pytest.fail(relay.describe())
        pytest.skip(relay.describe())
    return kind


@pytest.fixture
async def pump_factory(pump_kind: PumpKind) -> AsyncIterator[PumpFactory]:
    """Makes worlds around a pump each, and ends them."""
    worlds: list[World] = []

    def factory(settings: PumpSettings | None = None) -> World:
        worlds.append(World(pump_kind, settings))
        return worlds[-1]

    yield factory
    for world in worlds:
        world.end()
