"""What waits for members who read slowly: its bounds, for each member and for all."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.web import backlog
from turnsvr.web.backlog import Backlog, Backlogs


def opened(backlogs: Backlogs, hung_up: list[str], name: str) -> Backlog:
    made = backlogs.open()
    made.hang_up = partial(hung_up.append, name)
    return made


def test_bytes_of_one_are_bounded() -> None:
    one = Backlogs(each=100).open()
    assert one.add(60)
    assert one.add(40)
    assert not one.add(1)
    assert (one.bytes, one.messages) == (100, 2)


def test_messages_of_one_are_bounded_however_small() -> None:
    one = Backlogs(each=1_000_000).open()
    assert all(one.add(0) for _ in range(backlog._MAX_MESSAGES))
    assert not one.add(0)


def test_what_was_sent_makes_room() -> None:
    backlogs = Backlogs(each=100)
    one = backlogs.open()
    assert one.add(100)
    one.remove(100)
    assert one.add(100)
    assert backlogs.bytes == 100


def test_where_all_have_too_much_the_one_with_most_goes() -> None:
    hung_up: list[str] = []
    backlogs = Backlogs(each=100, together=200)
    little, most, other = (opened(backlogs, hung_up, name) for name in ("little", "most", "other"))
    assert little.add(10)
    assert most.add(100)
    assert other.add(90)
    assert little.add(20)
    assert hung_up == ["most"]
    assert not most.add(1)
    assert backlogs.bytes == 120


def test_it_may_be_the_one_that_was_about_to_have_more() -> None:
    hung_up: list[str] = []
    backlogs = Backlogs(each=100, together=120)
    little, most = (opened(backlogs, hung_up, name) for name in ("little", "most"))
    assert little.add(40)
    assert not most.add(90)
    assert hung_up == ["most"]
    assert backlogs.bytes == 40


def test_what_comes_late_for_one_that_is_gone_counts_for_nobody() -> None:
    backlogs = Backlogs(each=100)
    gone, other = backlogs.open(), backlogs.open()
    assert gone.add(50)
    assert other.add(30)
    gone.close()
    gone.remove(50)
    gone.close()
    assert not gone.add(10)
    assert backlogs.bytes == 30


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "close"]), st.integers(0, 3), st.integers(0, 60))))
def test_whatever_happens_the_sums_are_right(steps: list[tuple[str, int, int]]) -> None:
    hung_up: list[str] = []
    backlogs = Backlogs(each=100, together=150)
    members = [opened(backlogs, hung_up, str(number)) for number in range(4)]
    waiting: list[list[int]] = [[] for _ in members]
    for step, number, size in steps:
        if step == "add" and members[number].add(size):
            waiting[number].append(size)
        elif step == "remove" and waiting[number]:
            members[number].remove(waiting[number].pop(0))
        elif step == "close":
            members[number].close()
        for each in {*map(int, hung_up), *([number] if step == "close" else [])}:
            waiting[each].clear()
        assert [each.bytes for each in members] == list(map(sum, waiting))
        assert backlogs.bytes == sum(map(sum, waiting)) <= 150
    assert len(hung_up) == len(set(hung_up)), "nobody is hung up on twice"


@pytest.mark.parametrize("size", [101, 10**9])
def test_a_message_that_is_too_large_by_itself_waits_for_nobody(size: int) -> None:
    backlogs = Backlogs(each=100)
    assert not backlogs.open().add(size)
    assert backlogs.bytes == 0
