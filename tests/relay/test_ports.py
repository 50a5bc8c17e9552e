"""Free ports as a pure table."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from turnsvr.relay.ports import FreePorts

LOW, HIGH = 50_001, 50_020


@given(st.randoms(use_true_random=False), st.sets(st.integers(LOW, HIGH)), st.booleans())
def test_every_free_port_is_drawn_once(source: random.Random, taken: set[int], even: bool) -> None:
    free = FreePorts(LOW, HIGH, source)
    for port in taken:
        free.take(port)
    drawn = list(free.draw(even=even))
    assert sorted(drawn) == [port for port in range(LOW, HIGH + 1) if port not in taken and not (even and port % 2)]


@given(st.lists(st.tuples(st.booleans(), st.integers(LOW - 2, HIGH + 2))))
def test_it_holds_what_was_given_back_and_not_taken(steps: list[tuple[bool, int]]) -> None:
    free, model = FreePorts(LOW, HIGH, random.Random(1)), set(range(LOW, HIGH + 1))
    for take, port in steps:
        if take:
            free.take(port)
            model.discard(port)
        else:
            free.give_back(port)
            model |= {port} & set(range(LOW, HIGH + 1))
        next(free.draw(even=False), None)
        assert len(free) == len(model)
        assert all((port in free) == (port in model) for port in range(LOW - 2, HIGH + 3))
        assert set(free.draw(even=False)) == model


def test_the_first_draw_is_uniform() -> None:
    source = random.Random(7)
    free = FreePorts(0, 9, source)
    counts = Counter(next(free.draw(even=False)) for _ in range(10_000))
    assert set(counts) == set(range(10))
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_a_range_of_one_port() -> None:
    free = FreePorts(5, 5, random.Random(1))
    assert list(free.draw(even=False)) == [5]
    assert list(free.draw(even=True)) == []
