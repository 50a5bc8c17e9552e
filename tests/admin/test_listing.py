"""Order and pages of lists: every session once, whatever the order, while others come and go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.admin.listing import BadRequest, EndpointFilter, Filter, Sort, page
from turnsvr.admin.rates import Rate, Rates
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Family


class Figures:
    """Rates and counters that were made up."""

    def __init__(self, figures: dict[int, int]) -> None:
        self._figures = figures

    def of(self, number: int) -> Rate:
        return Rate(bits_from_client=self._figures.get(number, 0))

    def counters(self, number: int) -> Counters:
        return Counters(bytes_to_client=self._figures.get(number, 0))


def allocation(number: int, user: str, figure: int) -> Any:
    expires = {Family.IPV4: float(figure)}
    return SimpleNamespace(number=number, shown=user, started=float(figure), expires=expires)


SESSIONS = st.lists(st.tuples(st.text(max_size=3), st.integers(0, 3)), max_size=30)


def pages(made: list[Any], rates: Rates, sort: Sort, limit: int) -> list[int]:
    seen: list[int] = []
    cursor = None
    while True:
        found = page(made, rates, sort, limit, cursor)
        assert found.total == len(made)
        assert len(found.allocations) <= limit
        seen += [each.number for each in found.allocations]
        cursor = found.next
        if cursor is None:
            return seen
        assert len(found.allocations) == limit


@given(SESSIONS, st.sampled_from(get_args(Sort)), st.integers(1, 7))
def test_every_session_is_on_one_page(sessions: list[tuple[str, int]], sort: Sort, limit: int) -> None:
    made = [allocation(number, *each) for number, each in enumerate(sessions, 1)]
    rates = cast(Rates, Figures({each.number: int(each.started) for each in made}))
    seen = pages(made, rates, sort, limit)
    assert sorted(seen) == list(range(1, len(made) + 1))
    opposite = cast(Sort, sort.removeprefix("-") if sort.startswith("-") else f"-{sort}")
    assert seen == pages(made, rates, opposite, limit)[::-1]


@given(SESSIONS, st.integers(1, 7), st.randoms(use_true_random=False))
def test_who_stays_is_listed_once_while_others_come_and_go(
    sessions: list[tuple[str, int]], limit: int, random: Any
) -> None:
    made = [allocation(number, *each) for number, each in enumerate(sessions, 1)]
    staying = {each.number for each in made if random.random() < 0.5}
    rates = cast(Rates, Figures({}))
    seen: list[int] = []
    cursor = None
    while True:
        found = page(made, rates, "user", limit, cursor)
        seen += [each.number for each in found.allocations]
        cursor = found.next
        if cursor is None:
            break
        made = [each for each in made if each.number in staying or random.random() < 0.7]
        made.append(allocation(1000 + len(seen), random.choice("abc"), 0))
    assert [number for number in seen if number in staying] == [*dict.fromkeys(n for n in seen if n in staying)]
    assert staying <= set(seen)


@pytest.mark.parametrize(
    "cursor", ["", "e30", "W10", "WyJpZCIsIDEsIDJd", "!", "\x00", "WyItcmF0ZSIsICJhIiwgMV0", "a" * 5000]
)
def test_a_cursor_that_is_none_of_this_list_s_is_refused(cursor: str) -> None:
    made = [allocation(number, "a", 1) for number in (1, 2)]
    with pytest.raises(BadRequest, match="cursor"):
        page(made, cast(Rates, Figures({})), "-rate", 1, cursor)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1", ("192.0.2.1", None)),
        (" 192.0.2.1:3478 ", ("192.0.2.1", 3478)),
        ("2001:DB8::1", ("2001:db8::1", None)),
        ("[2001:db8:0::1]", ("2001:db8::1", None)),
        ("[2001:db8::1]:5", ("2001:db8::1", 5)),
        ("fe80::1%eth0", ("fe80::1%eth0", None)),
    ],
)
def test_addresses_to_filter_by(text: str, endpoint: tuple[str, int | None]) -> None:
    assert EndpointFilter.parse(text) == endpoint


@pytest.mark.parametrize(
    "text", ["", "host", "192.0.2", "192.0.2.1:", "192.0.2.1:x", "[::1", "::1]:1", "[::1]x", "[]:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadRequest, match="no address"):
        EndpointFilter.parse(text)


def test_a_secret_user_name_can_be_named_but_is_not_searched() -> None:
    five_tuple = SimpleNamespace(transport=SimpleNamespace(value="udp"), client="c", server="s")
    key = SimpleNamespace(username="secret-token", quota_user="alice")
    session: Any = SimpleNamespace(shown="alice@jwt", key=key, five_tuple=five_tuple, realm="r", relayed={})
    assert Filter(user="secret-token").matches(session)
    assert Filter(user="alice@jwt").matches(session)
    assert Filter(search="ALICE@").matches(session)
    assert not Filter(search="secret").matches(session)
