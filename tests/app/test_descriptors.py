"""Open files, shared out: the bounds of all parts fit into what the system allows, however little that is."""

from __future__ import annotations

from typing import Any

import pytest

from turnsvr.app import assemble
from turnsvr.app.descriptors import share_out
from turnsvr.config.settings import Settings

EVERYTHING: dict[str, Any] = {
    "relay": {"tcp": True},
    "web": {"listen": "http://127.0.0.1:0"},
    "share": "tcp://127.0.0.1:1",
    "credentials": {"store": "sqlite:/a", "hook": {"url": "https://a.example", "secret": "a secret, long enough"}},
}


@pytest.mark.parametrize("limit", [1_000, 1_024, 3_000, 4_096, 20_000, 65_536, 524_288])
@pytest.mark.parametrize("families", [0, 1, 2])
@pytest.mark.parametrize("sections", [{}, EVERYTHING], ids=["nothing", "everything"])
def test_all_parts_fit(limit: int, families: int, sections: dict[str, Any]) -> None:
    settings = Settings.model_validate(sections)
    budget = share_out(settings, limit, families=families, threads=4)
    assert budget.total <= limit
    relays = budget.allocations * families + assemble.reservations(budget.allocations)
    assert relays <= budget.relays or families == 0
    assert budget.connections < budget.streams
    assert budget.web_connections < budget.web or not settings.web
    assert 2 * budget.shared_connections < budget.shared or not settings.share
    assert budget.peer_connections < budget.peers or not settings.relay.tcp
    assert min(budget.allocations, budget.connections) >= 50


def test_without_a_limit_the_settings_hold() -> None:
    settings = Settings.model_validate(EVERYTHING)
    budget = share_out(settings, None)
    limits = settings.limits
    assert (budget.allocations, budget.connections, budget.web_connections, budget.shared_connections) == (
        limits.allocations,
        limits.connections,
        1_000,
        1_000,
    )
    assert budget.reduced(settings) == []
    assert budget.applied(settings) == settings
    assert share_out(settings, budget.total) == share_out(settings, budget.total)
    assert share_out(settings, budget.total).reduced(settings) == []


def test_a_small_limit_is_told_setting_by_setting() -> None:
    settings = Settings.model_validate(EVERYTHING)
    told = share_out(settings, 3_000).reduced(settings)
    assert [name for name, _, _ in told] == [
        "limits.allocations",
        "limits.connections",
        "limits.peer_connections",
        "web.connections",
        "share.connections",
    ]
    assert all(0 < room < wanted for _, room, wanted in told)


def test_a_very_small_limit_leaves_something_of_each() -> None:
    budget = share_out(Settings.model_validate(EVERYTHING), 64)
    assert min(budget.allocations, budget.connections, budget.web_connections) >= 1
