"""Figures, hostile text and tables on terminals."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.cli.sessiontable import table
from turnsvr.cli.text import duration, fit, printable, size, width

HOSTILE = st.text(st.characters(), max_size=20)


def session(number: int, user: str = "alice", **more: Any) -> dict[str, Any]:
    flow = {"packets": 3, "bytes": 4000, "packets_per_second": 1.5, "bits_per_second": 12_000 * number}
    return {
        "id": number,
        "user": user,
        "quota_user": user,
        "realm": "example.org",
        "transport": "udp",
        "client": "192.0.2.1:40000",
        "server": "198.51.100.1:3478",
        "relayed": ["198.51.100.1:49200"],
        "age": 62.0,
        "remaining": 540.0,
        "pump": "compiled",
        "reader": "pump",
        "traffic": {"from_client": flow, "to_client": flow, "dropped": 0},
        "permission_count": 1,
        "channel_count": 0,
        "permissions": [{"peer": "203.0.113.9", "remaining": 200.0}],
        "channels": [{"number": 0x4001, "peer": "203.0.113.9:9", "remaining": 100.0}],
        **more,
    }


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (0.4, "0"),
        (999, "999"),
        (999.6, "1.0k"),
        (1000, "1.0k"),
        (1234, "1.2k"),
        (9949, "9.9k"),
        (9960, "10k"),
        (999_400, "999k"),
        (999_600, "1.0M"),
        (3.4e9, "3.4G"),
        (5e18, "5.0E"),
        (7e22, "70000E"),
    ],
)
def test_sizes(number: float, shown: str) -> None:
    assert size(number) == shown


@given(st.floats(0, 9e20))
def test_a_size_takes_four_cells_at_most(number: float) -> None:
    assert len(size(number)) <= 4


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86_399, "23h59m"), (90_000, "1d01h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@given(HOSTILE)
def test_nothing_that_a_terminal_acts_upon_gets_through(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not any(unicodedata.combining(each) for each in shown)
    if text.isascii() and text.isprintable():
        assert shown == text


def test_escapes_are_told() -> None:
    assert printable("a\x1b[2J\r\n\u202eb\u0301") == "a\\x1b[2J\\r\\n\\u202eb\\u0301"


@given(HOSTILE, st.integers(0, 12), st.booleans())
def test_a_fitted_text_takes_its_cells_exactly(text: str, cells: int, right: bool) -> None:
    assert width(fit(printable(text), cells, right=right)) == cells


def test_wide_characters_take_two_cells() -> None:
    assert width("日本") == 4
    assert fit("日本語", 5) == "日本…"
    assert fit("日本語", 4) == "日… "
    assert fit("abc", 5, right=True) == "  abc"


@given(st.lists(st.tuples(HOSTILE, HOSTILE), max_size=5), st.integers(1, 200))
def test_a_table_is_never_wider_than_it_may_be(names: list[tuple[str, str]], cells: int) -> None:
    sessions = [session(number, user, realm=realm) for number, (user, realm) in enumerate(names, 1)]
    lines = table(sessions, cells)
    assert len(lines) == len(sessions) + 1
    assert all(width(line) <= cells for line in lines)
    assert all(line.isprintable() for line in lines)


def test_without_bounds_a_table_is_complete() -> None:
    title, first, second = table([session(1, "a" * 300), session(2, realm="other")], None)
    assert "a" * 300 in first
    assert "REALM" in title
    assert "other" in second
    assert "198.51.100.1:49200" in first


def test_a_narrow_terminal_loses_the_least_of_it() -> None:
    sessions = [session(1), session(2)]
    assert "RELAYED" in table(sessions, 120)[0]
    narrow = table(sessions, 80)
    assert [name in narrow[0] for name in ("USER", "CLIENT", "UP b/s", "DOWN b/s", "BYTES", "RELAYED", "DROPS")] == [
        *[True] * 5,
        *[False] * 2,
    ]
    assert "192.0.2.1:40000" in narrow[1]
    assert table(sessions, 40)[0].split() == ["ID", "USER", "AGE", "UP", "b/s", "DOWN", "b/s"]


def test_one_realm_needs_no_column() -> None:
    assert "REALM" not in table([session(1), session(2)], None)[0]


def test_columns_stay_where_they_are_when_they_are_held() -> None:
    held = {"BYTES": 9, "USER": 12}
    few = table([session(1, "a")], 120, least=held)
    assert table([session(1, "abcdefghijkl")], 120, least=held)[0] == few[0]
