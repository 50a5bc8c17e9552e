"""Free ports as a pure table."""

from __future__ import annotations

import random
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from turnsvr.relay.ports import FreePorts, RandomNumbers

LOW, HIGH = 50_001, 50_020


def drawn(free: FreePorts, *, even: bool) -> list[int]:
    """All that can be drawn."""
    return list(iter(lambda: free.draw(even=even), None))


@given(st.randoms(use_true_random=False), st.sets(st.integers(LOW, HIGH)), st.booleans())
def test_every_free_port_is_drawn_once(source: random.Random, taken: set[int], even: bool) -> None:
    free = FreePorts(LOW, HIGH, source.randrange)
    for port in taken:
        free.take(port)
    wanted = [port for port in range(LOW, HIGH + 1) if port not in taken and not (even and port % 2)]
    assert sorted(drawn(free, even=even)) == wanted


@given(st.lists(st.tuples(st.sampled_from(["take", "give back", "draw"]), st.integers(LOW - 2, HIGH + 2))))
def test_it_holds_what_was_given_back_and_not_taken(steps: list[tuple[str, int]]) -> None:
    free, model = FreePorts(LOW, HIGH, random.Random(1).randrange), set(range(LOW, HIGH + 1))
    for step, port in steps:
        if step == "take":
            free.take(port)
            model.discard(port)
        elif step == "give back":
            free.put_back(port)
            model |= {port} & set(range(LOW, HIGH + 1))
        else:
            taken = free.draw(even=False)
            assert (taken in model) == bool(model)
            model -= {taken}
        assert len(free) == len(model)
        assert all((port in free) == (port in model) for port in range(LOW - 2, HIGH + 3))
    assert set(drawn(free, even=False)) == model


def test_a_draw_is_uniform() -> None:
    source = random.Random(7)
    counts = Counter(FreePorts(0, 9, source.randrange).draw(even=False) for _ in range(10_000))
    assert set(counts) == set(range(10))
    assert max(counts.values()) < 1.2 * min(counts.values())


@given(st.randoms(use_true_random=False), st.booleans())
def test_a_port_that_was_given_back_rests_while_others_are_free(source: random.Random, even: bool) -> None:
    """A peer may still send to it."""
    free = FreePorts(LOW, HIGH, source.randrange)
    drawn_before = list[int]()
    for _ in range(200):
        port = free.draw(even=even)
        assert port is not None
        assert port not in drawn_before[-5:]
        drawn_before.append(port)
        free.put_back(port)


def test_one_that_could_not_be_used_does_not_rest() -> None:
    free = FreePorts(4, 7, random.Random(1).randrange)
    port = free.draw(even=True)
    assert port is not None
    free.put_back(port, unused=True)
    assert not free.rests(port)
    free.take(port)
    free.put_back(port)
    assert free.rests(port)


def test_the_last_free_port_is_drawn_although_it_came_back_just_now() -> None:
    free = FreePorts(4, 5, random.Random(1).randrange)
    for port in (4, 5):
        free.take(port)
    free.put_back(5)
    assert free.draw(even=False) == 5


def test_a_range_of_one_port() -> None:
    assert drawn(FreePorts(5, 5, random.Random(1).randrange), even=True) == []
    assert drawn(FreePorts(5, 5, random.Random(1).randrange), even=False) == [5]


def test_numbers_are_uniform_and_of_fresh_bytes() -> None:
    source = random.Random(7)
    below = RandomNumbers(source.randbytes).below
    counts = Counter(below(10) for _ in range(10_000))
    assert set(counts) == set(range(10))
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_a_number_that_would_favour_small_ones_is_passed_over() -> None:
    """Of 2**32 words the last are too few for one more round of three thousand million."""
    words = iter([2**32 - 1, 7])
    below = RandomNumbers(lambda size: next(words).to_bytes(4, sys.byteorder) * (size // 4)).below
    assert {below(3_000_000_000) for _ in range(10)} == {7}
