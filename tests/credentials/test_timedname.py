"""Time-limited user names in every form that applications write, with every separator."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.credentials.api import MAX_USERNAME_BYTES, Refusal
from turnsvr.credentials.timedname import TimedName, TimedNames

E = 1_800_000_060
NAMES = TimedNames()


@pytest.mark.parametrize(
    ("name", "expiry", "user"),
    [
        ("1800000060", E, ""),
        ("1800000060:", E, ""),
        (":1800000060", E, ""),
        ("1800000060:alice", E, "alice"),
        ("alice:1800000060", E, "alice"),
        ("1800000060:a:b", E, "a:b"),
        ("a:b:1800000060", E, "a:b"),
        (":1800000060:alice", E, "alice"),
        ("alice:1800000060:phone", E, "alice"),
        ("1800000060:12345", E, "12345"),
        ("12345:1800000060", E, "12345"),
        ("175928847299117063:1800000060", E, "175928847299117063"),
        ("1800000060:175928847299117063", E, "175928847299117063"),
        ("1800000060:1900000000", E, "1900000000"),
        ("1800000060:1700000000", E, "1700000000"),
        ("a:1:1800000060", E, "a:1"),
        ("a::1800000060", E, "a:"),
        ("1800000060::", E, ":"),
        ("0", 0, ""),
        ("0012:x", 12, "x"),
        ("999999999999:x:y", 999_999_999_999, "x:y"),
        ("12334939:mbzrxpgjys", 12_334_939, "mbzrxpgjys"),
    ],
)
@pytest.mark.parametrize("separator", [":", "-", ".", "|", "@"])
def test_names_apart(name: str, expiry: int, user: str, separator: str) -> None:
    names = TimedNames(separator)
    assert names.parse(name.replace(":", separator)) == TimedName(expiry, user.replace(":", separator))


@pytest.mark.parametrize(
    ("separator", "name", "user"),
    [
        ("-", "1800000060-550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
        ("-", "550e8400-e29b-41d4-a716-446655440000-1800000060", "550e8400-e29b-41d4-a716-446655440000"),
        ("-", "1800000060-alice:phone", "alice:phone"),
        (".", "1800000060.alice.smith@example.org", "alice.smith@example.org"),
        (".", "alice.smith@example.org.1800000060", "alice.smith@example.org"),
        (":", "1800000060:@alice:example.org", "@alice:example.org"),
        (":", "@alice:example.org:1800000060", "@alice:example.org"),
    ],
)
def test_users_whose_names_hold_the_separator(separator: str, name: str, user: str) -> None:
    assert TimedNames(separator).parse(name) == TimedName(E, user)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "::",
        ":alice",
        "alice",
        "alice:12",
        "room:1",
        "alice-1800000060",
        "-1:alice",
        "+1800000001:alice",
        " 1800000001:alice",
        "1800000001 :alice",
        "alice: 1800000001",
        "1_800_000_001:alice",
        "1800000001.5:alice",
        "1e12:alice",
        "0x7fffffff:alice",
        "١٨٠٠٠٠٠٠٠١:alice",
        "\uff11\uff18:alice",
        "²:alice",
        "9" * 5000,
        "1800000001:" + "a" * 500,
        "1800000001:\ud800",
    ],
)
def test_names_that_are_not_time_limited(name: str) -> None:
    assert NAMES.parse(name) is None
    assert NAMES.refusal(name, 0) is Refusal.UNKNOWN


@pytest.mark.parametrize("unit", [1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("form", ["{}", "{}:alice", "alice:{}", ":{}", "{}:12345", "12345:{}", "a:{}:b"])
def test_an_expiry_that_is_not_in_seconds(unit: int, form: str) -> None:
    name = form.format(E * unit)
    assert NAMES.parse(name) is None
    assert NAMES.refusal(name, 0) is Refusal.NOT_IN_SECONDS


def test_milliseconds_in_front_stay_milliseconds_beside_a_number_that_could_be_a_time() -> None:
    assert NAMES.parse("1800000060000:1900000000") is None
    assert NAMES.refusal("1800000060000:1900000000", 0) is Refusal.NOT_IN_SECONDS


@pytest.mark.parametrize("unit", [1_000_000, 1_000_000_000])
def test_a_telephone_number_behind_microseconds_is_no_expiry_but_a_time_behind_a_users_number_is(unit: int) -> None:
    name = f"{E * unit}:491511234567"
    assert NAMES.parse(name) is None
    assert NAMES.refusal(name, 0) is Refusal.NOT_IN_SECONDS
    assert NAMES.parse(f"{E * unit}:{E}") == TimedName(E, str(E * unit))


@given(
    separator=st.sampled_from(string.punctuation),
    user=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    expiry=st.integers(1_000_000_000, 999_999_999_999),
)
def test_what_is_made_is_read(separator: str, user: str, expiry: int) -> None:
    names = TimedNames(separator)
    assert names.parse(names.make(user, expiry)) == TimedName(expiry, user)


@given(
    separator=st.sampled_from(string.punctuation),
    user=st.text(st.characters(exclude_categories=["Cs", "Nd"]), min_size=1, max_size=60),
    expiry=st.integers(1_000_000_000, 999_999_999_999),
)
def test_the_user_may_come_first(separator: str, user: str, expiry: int) -> None:
    assert TimedNames(separator).parse(f"{user}{separator}{expiry}") in (
        TimedName(expiry, user),
        TimedName(expiry, ""),
    )


@given(st.text(st.characters(), max_size=600), st.sampled_from(string.punctuation), st.floats())
def test_any_text_is_a_name_or_none(text: str, separator: str, wall_time: float) -> None:
    names = TimedNames(separator)
    assert names.refusal(text, wall_time) in Refusal
    timed = names.parse(text)
    assert timed is None or len(text.encode()) <= MAX_USERNAME_BYTES


@pytest.mark.parametrize("separator", ["", "::", "1", "٣"])
def test_what_is_no_separator(separator: str) -> None:
    with pytest.raises(ValueError, match="separator"):
        TimedNames(separator)
