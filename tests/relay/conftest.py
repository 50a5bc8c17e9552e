"""Every test that takes `pump_factory` or `pump_kind` runs once for each pump."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from tests.relay.world import World
from turnsvr.relay import PumpKind
from turnsvr.relay.api import PumpSettings


class PumpFactory(Protocol):
    def __call__(self, settings: PumpSettings | None = None) -> World: ...


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
