"""Questions to somebody elsewhere: shared, bounded, in time; and what is remembered of the answers."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.conftest import PATIENCE
from turnsvr.credentials.api import Unavailable
from turnsvr.credentials.health import Health
from turnsvr.credentials.questions import Memory, Questions, may_be_asked


class Remote:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = 0
        self.under_way = 0
        self.let = asyncio.Event()

    async def answer(self) -> str:
        self.asked += 1
        self.under_way += 1
        self.at_once = max(self.at_once, self.under_way)
        try:
            await self.let.wait()
        finally:
            self.under_way -= 1
        return f"answer {self.asked}"

    async def fail(self) -> str:
        raise Unavailable("db.example.org: gone")


def questions(timeout: float = PATIENCE, *, max_at_once: int = 32, max_waiting: int = 2_000) -> Questions:
    health = Health("credential store", "db.example.org")
    return Questions(health, timeout, max_at_once=max_at_once, max_waiting=max_waiting)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_equal_questions_share_an_answer() -> None:
    remote, asked = Remote(), questions()
    waiting = [asyncio.ensure_future(asked.ask("alice", remote.answer)) for _ in range(50)]
    other = asyncio.ensure_future(asked.ask("bob", remote.answer))
    await settle()
    remote.let.set()
    assert len({*await asyncio.gather(*waiting)}) == 1
    await other
    assert remote.asked == 2
    await asked.ask("alice", remote.answer)
    assert remote.asked == 3
    assert (asked.health.queries, asked.health.errors, asked.health.latency.count) == (3, 0, 3)


async def test_who_gives_up_leaves_the_answer_to_others() -> None:
    remote, asked = Remote(), questions()
    first, second = (asyncio.ensure_future(asked.ask("alice", remote.answer)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    remote.let.set()
    assert await second == "answer 1"


async def test_after_a_change_questions_get_answers_of_their_own() -> None:
    remote, asked = Remote(), questions()
    before = asyncio.ensure_future(asked.ask("alice", remote.answer))
    await settle()
    asked.forget()
    after = asyncio.ensure_future(asked.ask("alice", remote.answer))
    await settle()
    assert remote.asked == 2
    remote.let.set()
    await asyncio.gather(before, after)


async def test_so_many_at_once_and_so_many_waiting() -> None:
    remote, asked = Remote(), questions(max_at_once=3, max_waiting=5)
    waiting = [asyncio.ensure_future(asked.ask(number, remote.answer)) for number in range(5)]
    await settle()
    with pytest.raises(Unavailable, match="too many"):
        await asked.ask("one more", remote.answer)
    assert remote.asked == 3
    remote.let.set()
    await asyncio.gather(*waiting)
    assert (remote.asked, remote.at_once) == (5, 3)


async def test_a_question_that_has_waited_for_half_of_its_time_is_not_put() -> None:
    now = 100.0
    health = Health("credential store", "db.example.org")
    remote, asked = Remote(), Questions(health, PATIENCE, max_at_once=1, clock=lambda: now)
    waiting = [asyncio.ensure_future(asked.ask(number, remote.answer)) for number in range(2)]
    await settle()
    now += PATIENCE * 0.6
    waiting.append(asyncio.ensure_future(asked.ask("later", remote.answer)))
    await settle()
    remote.let.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(each) for each in results] == ["answer 1", "db.example.org: too many questions wait", "answer 2"]
    assert (health.available, health.queries, health.errors) == (True, 2, 0)


async def test_waiting_for_a_place_counts() -> None:
    remote, asked = Remote(), questions(0.05, max_at_once=1)
    results = await asyncio.gather(*(asked.ask(number, remote.answer) for number in range(4)), return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in results)
    assert "no answer in 0.05 s" in str(results[0])
    assert remote.under_way == 0


async def test_going_away_and_coming_back_are_told_once() -> None:
    remote, asked = Remote(), questions()
    remote.let.set()
    with capture_logs() as logs:
        for number in range(3):
            with pytest.raises(Unavailable, match="gone"):
                await asked.ask(number, remote.fail)
        assert not asked.health.available
        for number in range(3):
            await asked.ask(number, remote.answer)
        assert asked.health.available
    assert [entry["event"] for entry in logs] == ["credential store unavailable", "credential store available again"]
    assert (logs[0]["name"], logs[0]["reason"]) == ("db.example.org", "gone")
    assert (asked.health.queries, asked.health.errors) == (6, 3)


def test_the_question_that_was_put_last_tells_whether_somebody_is_there() -> None:
    """When a database falls, answers that had left it may be read after the first error."""
    with capture_logs() as logs:
        health = Health("credential store", "db.example.org")
        health.answered(1.0, 1.1)
        health.failed(3.0, "connection lost")
        health.answered(2.0, 3.1)
        assert not health.available
        health.answered(4.0, 4.1)
        health.failed(3.5, "no answer in 3 s")
        assert health.available
    assert [entry["event"] for entry in logs] == ["credential store unavailable", "credential store available again"]
    assert (health.queries, health.errors, health.latency.count) == (5, 2, 3)


def test_somebody_who_comes_and_goes_is_told_now_and_then() -> None:
    health = Health("credential store", "db.example.org")
    with capture_logs() as logs:
        for second in range(100):
            health.failed(second, "connection lost")
            assert not health.available
            health.answered(second + 0.1, second + 0.2)
            assert health.available
    assert [entry["event"] for entry in logs] == [
        "credential store unavailable",
        "credential store available again",
    ] * 4


def test_somebody_who_goes_again_and_stays_away_is_told() -> None:
    health = Health("credential store", "db.example.org")
    health.failed(0, "connection lost")
    health.answered(1, 1)
    with capture_logs() as logs:
        for second in range(2, 100, 2):
            health.failed(second, "connection lost")
    assert [entry["event"] for entry in logs] == ["credential store unavailable"]


async def test_a_fault_of_ours_is_no_fault_of_the_store() -> None:
    async def broken() -> str:
        raise ValueError("a bug")

    asked = questions()
    with pytest.raises(ValueError, match="a bug"):
        await asked.ask("alice", broken)
    assert asked.health.available


async def test_closing_waits_or_gives_up() -> None:
    remote, asked = Remote(), questions()
    waiting = asyncio.ensure_future(asked.ask("alice", remote.answer))
    await settle()
    closing = asyncio.ensure_future(asked.close(at_once=False))
    await settle()
    assert not closing.done()
    remote.let.set()
    await closing
    assert await waiting == "answer 1"

    remote.let.clear()
    lost = asyncio.ensure_future(asked.ask("alice", remote.answer))
    await settle()
    await asked.close(at_once=True)
    with pytest.raises(asyncio.CancelledError):
        await lost


def test_what_is_remembered_goes_out_of_date() -> None:
    memory: Memory[str, int] = Memory(10)
    memory.put("alice", 1, 100.0)
    assert memory.get("alice", 99.9) == 1
    assert memory.get("alice", 100.0) is None
    assert memory.get("bob", 0.0) is None
    memory.discard("alice")
    memory.discard("bob")
    assert memory.get("alice", 0.0) is None


@given(st.lists(st.tuples(st.integers(0, 20), st.integers()), max_size=200), st.integers(1, 8))
def test_what_is_remembered_is_bounded_and_the_newest_stay(entries: list[tuple[int, int]], size: int) -> None:
    memory: Memory[int, int] = Memory(size)
    newest: dict[int, int] = {}
    for key, value in entries:
        memory.put(key, value, 1.0)
        newest.pop(key, None)
        newest[key] = value
    kept = dict(list(newest.items())[-size:])
    assert len(memory) == len(kept)
    assert all(memory.get(key, 0.0) == value for key, value in kept.items())


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\ud800", "x" * 509, "ä" * 255])
def test_names_that_nobody_is_troubled_with(name: str) -> None:
    assert not may_be_asked(name)


@pytest.mark.parametrize("name", ["alice", "Zoë Ångström", "x" * 508, "1800000000:bob"])
def test_names_that_may_be_users(name: str) -> None:
    assert may_be_asked(name)
