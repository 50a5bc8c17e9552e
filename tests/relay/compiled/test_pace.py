"""When a lane waits before it looks again: only under load, never for long, never while there is more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

_pump = pytest.importorskip("turnsvr.relay.compiled._pump", reason="the compiled pump was not built")

SECOND = 1_000_000_000
MILLISECOND = SECOND // 1000
SHORTEST, LONGEST = 50_000, 300_000
BUSY = 150
"""Datagrams a millisecond."""

Look = tuple[int, int, int, bool]
"""Begin and duration in nanoseconds, datagrams, whether there are more."""
gaps = st.tuples(st.integers(0, 3 * MILLISECOND), st.integers(0, SECOND), st.integers(0, 1000), st.booleans())
days = st.integers(0, 10**4).map(lambda days: days * 86_400 * SECOND)


def looks_at(gaps: list[Look], start: int) -> list[Look]:
    """Looks from the time that passed between their begins."""
    looks = []
    for gap, took, count, more in gaps:
        start += gap
        looks.append((start, took, count, more))
    return looks


def steady(rate: int, *, took: int = 0, more: bool = False) -> list[Look]:
    """A look every tenth of a millisecond at so many packets a second."""
    step = MILLISECOND // 10
    return [(at, took, rate // 10_000, more) for at in range(step, 40 * MILLISECOND, step)]


def test_little_load_waits_for_nothing() -> None:
    assert not any(_pump.pauses(steady(140_000)))


def test_much_load_gathers() -> None:
    waits = _pump.pauses(steady(200_000))
    assert not any(waits[:99])
    assert set(waits[100:]) == {SHORTEST}


@pytest.mark.parametrize(
    ("took", "wait"), [(10_000, SHORTEST), (200_000, 100_000), (599_998, 299_999), (SECOND, LONGEST)]
)
def test_long_looks_are_followed_by_waits_half_as_long(took: int, wait: int) -> None:
    assert _pump.pauses(steady(200_000, took=took))[-1] == wait


def test_what_is_there_already_is_not_waited_for() -> None:
    assert not any(_pump.pauses(steady(1_000_000, more=True)))


@pytest.mark.parametrize("silence", [10 * MILLISECOND, SECOND, 86_400 * SECOND])
def test_packets_after_silence_wait_for_none(silence: int) -> None:
    """The wait comes after a look: what wakes a sleeping lane is served at once, and so is what follows it."""
    load = steady(200_000)
    alone = [(load[-1][0] + silence + step, 0, 1, False) for step in range(0, 30 * MILLISECOND, MILLISECOND // 2)]
    assert not any(_pump.pauses(load + alone)[len(load) :])


@pytest.mark.parametrize("gap", [10 * MILLISECOND, SECOND])
def test_bursts_are_no_load(gap: int) -> None:
    assert not any(_pump.pauses([(at * gap, 0, 1000, False) for at in range(1, 50)]))


@given(st.lists(gaps, max_size=100), days)
def test_never_longer_and_only_when_so_many_came(given: list[Look], start: int) -> None:
    looks = looks_at(given, start)
    for at, wait in enumerate(_pump.pauses(looks)):
        if wait:
            assert SHORTEST <= wait <= LONGEST
            assert not looks[at][3]
            assert sum(count for _, _, count, _ in looks[: at + 1]) >= 10 * BUSY
