"""When a lane waits before it looks again: only under load, never for long, never while there is more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

_pump = pytest.importorskip("turnsvr.relay._pump", reason="the compiled pump was not built")

SECOND = 1_000_000_000
MILLISECOND = SECOND // 1000
PAUSE = 50_000
BUSY = 150
"""Packets a millisecond."""

Look = tuple[int, int, bool]
gaps = st.tuples(st.integers(0, 3 * MILLISECOND), st.integers(0, 1000), st.booleans())
days = st.integers(0, 10**4).map(lambda days: days * 86_400 * SECOND)


def looks_at(gaps: list[Look], start: int) -> list[Look]:
    """Looks from the time that passed between them."""
    looks = []
    for gap, count, more in gaps:
        start += gap
        looks.append((start, count, more))
    return looks


def steady(rate: int, start: int = 0, *, seconds: float = 0.02, more: bool = False) -> list[Look]:
    """A look every tenth of a millisecond at so many packets a second."""
    step = MILLISECOND // 10
    return [(at, rate // 10_000, more) for at in range(start + step, start + int(seconds * SECOND), step)]


def test_little_load_waits_for_nothing() -> None:
    assert not any(_pump.pauses(steady(140_000)))


def test_much_load_gathers() -> None:
    waits = _pump.pauses(steady(200_000))
    assert not any(waits[:9])
    assert set(waits[10:]) == {PAUSE}


def test_what_is_there_already_is_not_waited_for() -> None:
    assert not any(_pump.pauses(steady(1_000_000, more=True)))


@pytest.mark.parametrize("silence", [MILLISECOND, 20 * MILLISECOND, 86_400 * SECOND])
def test_a_packet_after_silence_is_the_last_that_waits_for_none(silence: int) -> None:
    """The wait comes after a look: what wakes a sleeping lane is served at once, and those after it too."""
    load = steady(200_000)
    alone = [(load[-1][0] + silence + step, 1, False) for step in range(0, 5 * MILLISECOND, MILLISECOND // 2)]
    assert not any(_pump.pauses(load + alone)[len(load) :])


def test_a_burst_after_silence_is_no_load() -> None:
    bursts = [(at * SECOND, 1000, False) for at in range(1, 20)]
    assert not any(_pump.pauses(bursts))


@given(st.lists(gaps, max_size=100), days)
def test_never_longer_and_only_when_so_many_came(given: list[Look], start: int) -> None:
    looks = looks_at(given, start)
    for at, wait in enumerate(_pump.pauses(looks)):
        assert wait in (0, PAUSE)
        if wait:
            assert not looks[at][2]
            assert sum(count for _, count, _ in looks[: at + 1]) >= BUSY
