"""Deadlines against a plain dictionary, and the bound of their heap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnsvr.turn.deadlines import _SWEEP_AT_LEAST, Deadlines

KEYS = st.integers(0, 8)
TIMES = st.integers(0, 20).map(float)
STEPS = st.lists(
    st.tuples(st.just("set"), KEYS, TIMES) | st.tuples(st.sampled_from(["discard", "due"]), KEYS, TIMES), max_size=300
)


@given(STEPS)
def test_it_is_a_dictionary_of_deadlines(steps: list[tuple[str, int, float]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    model: dict[int, float] = {}
    for step, key, when in steps:
        if step == "set":
            deadlines.set(key, when)
            model[key] = when
        elif step == "discard":
            deadlines.discard(key)
            model.pop(key, None)
        else:
            due = list(deadlines.due(when))
            assert [model[one] for one in due] == sorted(time for time in model.values() if time <= when)
            for one in due:
                del model[one]
        assert deadlines.next() == min(model.values(), default=None)
        assert len(deadlines) == len(model)
        assert len(deadlines._heap) <= 2 * len(deadlines) + _SWEEP_AT_LEAST


def test_the_same_deadline_again_and_again_takes_no_room() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for _ in range(10_000):
        deadlines.set("key", 5.0)
    assert len(deadlines._heap) == 1


def test_what_is_discarded_leaves_the_heap_too() -> None:
    deadlines: Deadlines[int] = Deadlines()
    for key in range(10_000):
        deadlines.set(key, 10.0 + key)
    for key in range(1, 10_000):
        deadlines.discard(key)
    assert len(deadlines._heap) <= 2 + _SWEEP_AT_LEAST
    assert list(deadlines.due(10.0)) == [0]


def test_what_is_handed_out_may_be_set_again_meanwhile() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 1.0)
    deadlines.set("b", 2.0)
    seen = []
    for key in deadlines.due(3.0):
        seen.append(key)
        if key == "a":
            deadlines.discard("b")
            deadlines.set("c", 9.0)
    assert seen == ["a"]
    assert deadlines.next() == 9.0
