"""Live rates: when samples are taken, what they say, and that nobody pays for them who does not ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from turnsvr.admin.context import AdminContext
from turnsvr.admin.rates import Rate, Rates
from turnsvr.relay.counts import Counters


class Traffic:
    """The parts of an AdminContext that rates are made of, on a clock of its own: each session relays at a rate."""

    def __init__(self) -> None:
        self.time = 100.0
        self.samples = 0
        self.packets = {1: 0.0}
        """Packets a second from the client, of 100 bytes, by session; none before time 100."""

    def now(self) -> float:
        return self.time

    async def refresh(self) -> None:
        """Nobody else serves."""

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)

    def sessions(self) -> Iterator[Any]:
        self.samples += 1
        return (SimpleNamespace(number=number) for number in list(self.packets))

    def counters(self, number: int) -> Counters:
        packets = round(self.packets[number] * (self.time - 100))
        return Counters(packets_from_client=packets, bytes_from_client=100 * packets)

    def totals(self) -> Any:
        each = [self.counters(number) for number in self.packets]
        total = Counters(sum(one.packets_from_client for one in each), sum(one.bytes_from_client for one in each))
        return SimpleNamespace(relayed=total)


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def rates(traffic: Traffic) -> Iterator[Rates]:
    made = Rates(cast(AdminContext, traffic), sleep=traffic.sleep)
    yield made
    made.forget()


async def test_a_first_request_takes_two_samples_half_a_second_apart(traffic: Traffic, rates: Rates) -> None:
    traffic.packets[1] = 1000
    await rates.refresh()
    assert (traffic.time, traffic.samples) == (100.5, 2)
    assert rates.of(1) == rates.total == Rate(1000, 800_000, 0, 0)
    assert rates.counters(1).packets_from_client == 500


async def test_the_next_half_second_costs_nothing(traffic: Traffic, rates: Rates) -> None:
    traffic.packets[1] = 1000
    await rates.refresh()
    traffic.time += 0.4
    for _ in range(10):
        await rates.refresh()
    assert traffic.samples == 2
    assert rates.of(1).packets_from_client == 1000


async def test_whoever_keeps_asking_is_answered_at_once_with_one_sample(traffic: Traffic, rates: Rates) -> None:
    traffic.packets[1] = 10
    await rates.refresh()
    for second in range(1, 5):
        traffic.time = 100.5 + 2 * second
        await rates.refresh()
        assert traffic.time == 100.5 + 2 * second
        assert rates.of(1).packets_from_client == pytest.approx(10, rel=0.01)
    assert traffic.samples == 2 + 4


async def test_after_a_pause_it_is_the_rate_of_now_and_no_mean_of_the_pause(traffic: Traffic, rates: Rates) -> None:
    await rates.refresh()
    traffic.time = 1000
    traffic.packets[1] = 20
    await rates.refresh()
    assert traffic.samples == 4
    assert rates.of(1).packets_from_client == pytest.approx(20)


async def test_many_who_ask_together_share_the_samples(traffic: Traffic, rates: Rates) -> None:
    traffic.packets[1] = 1000
    await asyncio.gather(*(rates.refresh() for _ in range(50)))
    assert traffic.samples == 2
    assert rates.of(1).packets_from_client == 1000


async def test_a_new_session_counts_from_the_sample_before_and_one_that_ended_not_at_all(
    traffic: Traffic, rates: Rates
) -> None:
    traffic.packets[1] = 100
    await rates.refresh()
    del traffic.packets[1]
    traffic.time = 101
    traffic.packets[2] = 5
    await rates.refresh()
    assert rates.of(2).packets_from_client == 10  # 5 in the half second since
    assert rates.of(1) == rates.of(77) == Rate()
    assert rates.total == Rate()  # what ended took its share along: never below nothing


async def test_samples_are_let_go(traffic: Traffic, rates: Rates) -> None:
    traffic.packets[1] = 100
    await rates.refresh()
    rates.forget()
    assert rates.of(1) == Rate()
    assert rates.counters(1) == Counters()
    rates.forget()
    await rates.refresh()
    assert rates.of(1).packets_from_client == 100
