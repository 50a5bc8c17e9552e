"""Rates: what passes, what does not, and that a flood of strangers costs a bounded amount of memory."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from turnsvr.limits import AnswerLimiter, TokenBucket


def _ipv4(number: int) -> bytes:
    return number.to_bytes(4, "big")


class TestTokenBucket:
    def test_a_burst_then_the_rate(self) -> None:
        bucket = TokenBucket(rate=10, burst=5, now=100)
        assert [bucket.allow(1, 100) for _ in range(7)] == [True] * 5 + [False] * 2
        assert bucket.allow(1, 100.125)
        assert not bucket.allow(1, 100.125)
        assert [bucket.allow(1, 200) for _ in range(6)] == [True] * 5 + [False]

    def test_what_is_refused_costs_nothing(self) -> None:
        bucket = TokenBucket(rate=1, burst=10, now=0)
        assert not bucket.allow(11, 0)
        assert bucket.allow(10, 0)

    def test_nothing_may_always_pass(self) -> None:
        bucket = TokenBucket(rate=1, burst=1, now=0)
        assert bucket.allow(1, 0)
        assert bucket.allow(0, 0)

    def test_time_that_goes_backwards_adds_nothing(self) -> None:
        bucket = TokenBucket(rate=1, burst=1, now=100)
        assert bucket.allow(1, 100)
        assert not bucket.allow(1, 50)
        assert not bucket.allow(1, 100.5)
        assert bucket.allow(1, 101)

    @given(
        st.floats(0.1, 1e6),
        st.floats(0.1, 1e6),
        st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1e6)), max_size=50),
    )
    def test_never_more_than_burst_and_rate(self, rate: float, burst: float, steps: list[tuple[float, float]]) -> None:
        bucket, now, taken = TokenBucket(rate, burst, 0.0), 0.0, 0.0
        for wait, amount in steps:
            now += wait
            taken += amount if bucket.allow(amount, now) else 0.0
            assert taken <= (burst + rate * now) * (1 + 1e-9) + 1e-6


class TestAnswerLimiter:
    def test_each_address_has_its_own_rate(self) -> None:
        limiter = AnswerLimiter(rate=3)
        assert [limiter.allow(_ipv4(1), 0) for _ in range(4)] == [True] * 3 + [False]
        assert limiter.allow(_ipv4(2), 0)
        assert limiter.allow(_ipv4(1), 0.5)

    def test_a_rate_below_one_still_answers_once(self) -> None:
        limiter = AnswerLimiter(rate=0.5)
        assert [limiter.allow(_ipv4(1), now) for now in (0, 0, 1, 2)] == [True, False, False, True]

    def test_zero_is_no_limit(self) -> None:
        limiter = AnswerLimiter(rate=0)
        assert all(limiter.allow(_ipv4(1), 0) for _ in range(1000))

    def test_an_ipv6_client_is_its_64(self) -> None:
        limiter = AnswerLimiter(rate=1)
        prefix = bytes(range(8))
        assert limiter.allow(prefix + bytes(8), 0)
        assert not limiter.allow(prefix + bytes(range(8)), 0)
        assert limiter.allow(b"another!" + bytes(8), 0)

    def test_an_ipv6_prefix_is_no_ipv4_address(self) -> None:
        limiter = AnswerLimiter(rate=1)
        assert limiter.allow(_ipv4(0), 0)
        assert limiter.allow(bytes(16), 0)

    def test_a_whole_burst_passes_at_any_time(self) -> None:
        for rate in (1, 3, 7, 100, 1000):
            for now in (0.0, 1.0, 1e6):
                limiter = AnswerLimiter(rate)
                assert [limiter.allow(_ipv4(1), now) for _ in range(rate + 1)] == [True] * rate + [False]

    def test_another_rate_holds_from_now_on(self) -> None:
        limiter = AnswerLimiter(rate=1)
        assert [limiter.allow(_ipv4(1), 0) for _ in range(2)] == [True, False]
        limiter.rate = 0
        assert limiter.allow(_ipv4(1), 0)
        limiter.rate = 2
        assert [limiter.allow(_ipv4(1), 2) for _ in range(3)] == [True, True, False]

    def test_a_flood_of_addresses_takes_no_memory(self) -> None:
        limiter = AnswerLimiter(rate=1)
        tracemalloc.start()
        try:
            for number in range(50_000):
                limiter.allow(_ipv4(number), 0)
            assert tracemalloc.get_traced_memory()[1] < 10_000
        finally:
            tracemalloc.stop()

    def test_no_flood_gives_a_victim_a_fresh_budget(self) -> None:
        limiter = AnswerLimiter(rate=1, slots=64)
        victim = _ipv4(0xFFFFFFFF)
        assert limiter.allow(victim, 0)
        for number in range(10_000):
            limiter.allow(_ipv4(number), 0)
            assert not limiter.allow(victim, 0)

    def test_a_flood_of_addresses_is_answered_in_all_no_more_than_the_slots_allow(self) -> None:
        limiter = AnswerLimiter(rate=2, slots=64)
        assert sum(limiter.allow(_ipv4(number), 0) for number in range(10_000)) <= 2 * 64


def test_to_ask_whether_a_client_is_exhausted_costs_nothing() -> None:
    limiter = AnswerLimiter(2.0)
    assert not any(limiter.exhausted(b"\xc0\x00\x02\x01", 0.0) for _ in range(10))
    assert [limiter.allow(b"\xc0\x00\x02\x01", 0.0) for _ in range(2)] == [True, True]
    assert limiter.exhausted(b"\xc0\x00\x02\x01", 0.0)
    assert not limiter.exhausted(b"\xc0\x00\x02\x01", 0.6)
    assert not AnswerLimiter(0.0).exhausted(b"\xc0\x00\x02\x01", 0.0)
