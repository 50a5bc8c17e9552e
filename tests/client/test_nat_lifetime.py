"""The search for a mapping's lifetime, against NATs that live only in numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnsvr.client.nat_lifetime import Search
from turnsvr.client.nat_model import Lifetime


def run(search: Search, lifetime: float) -> list[tuple[float, ...]]:
    """Play the search against a NAT that forgets after so many seconds; the waits of each round."""
    rounds = []
    while waits := search.waits():
        rounds.append(waits)
        search.told({wait: wait < lifetime for wait in waits})
    return rounds


def test_one_wait_at_a_time_is_a_binary_search() -> None:
    search = Search(64, 4, 1)
    assert run(search, 30) == [(64,), (32,), (16,), (24,), (28,)]
    assert search.result == Lifetime(28, 32)


def test_several_waits_at_a_time_take_fewer_rounds() -> None:
    search = Search(120, 5, 8)
    rounds = run(search, 30)
    assert rounds[0] == (15, 30, 45, 60, 75, 90, 105, 120)
    assert len(rounds) == 2
    assert search.result is not None
    assert search.result.less_than == 30


@given(
    longest=st.floats(1, 1000),
    precision=st.floats(0.1, 20),
    width=st.integers(1, 12),
    lifetime=st.floats(0.01, 2000),
)
def test_the_answer_is_right_precise_and_in_time(longest: float, precision: float, width: int, lifetime: float) -> None:
    search = Search(longest, precision, width)
    rounds = run(search, lifetime)
    result = search.result
    assert result is not None
    assert result.at_least < lifetime
    if lifetime > longest:
        assert result == Lifetime(longest, None)
        assert len(rounds) == 1
    else:
        assert result.less_than is not None
        assert lifetime <= result.less_than
        assert result.less_than - result.at_least <= precision * 1.000001
        assert len(rounds) <= search.rounds
    assert all(wait <= longest for waits in rounds for wait in waits)


def test_waits_that_nobody_answered_leave_the_rest_standing() -> None:
    search = Search(40, 15, 4)
    assert search.waits() == (10, 20, 30, 40)
    search.told({10: True, 20: None, 30: False, 40: None})
    assert search.result == Lifetime(10, 30)
    search.told(dict.fromkeys(search.waits()))
    assert search.result == Lifetime(10, 30)
    assert search.waits() == (), "another round would not be answered either"


def test_a_contradiction_is_settled_by_the_shorter_wait() -> None:
    search = Search(40, 10, 4)
    search.told({10: True, 20: False, 30: True, 40: False})
    assert search.result == Lifetime(10, 20)
    assert search.waits() == ()


def test_without_any_answer_there_is_no_result() -> None:
    search = Search(40, 10, 4)
    search.told(dict.fromkeys(search.waits()))
    assert search.result is None
    assert search.waits() == ()
