"""Quantities: what is read, what is written, what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.config import units
from turnsvr.config.units import BadValue

PARSERS: list[Callable[[object], float]] = [
    units.parse_duration,
    units.parse_size,
    units.parse_bandwidth,
    units.parse_rate,
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("10m", 600),
        ("10 min", 600),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172_800),
        ("1.5h", 5400),
        ("0.25s", 0.25),
        ("90", 90),
        (" 90 ", 90),
        ("0", 0),
        (90, 90),
        (1.5, 1.5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("256 KiB", 262_144), ("256KiB", 262_144), ("1 MB", 1_000_000), ("1.5 kB", 1500), ("7 B", 7), ("7", 7), (7, 7)],
)
def test_sizes(text: object, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("4 Mbit/s", 500_000),
        ("4mbit/s", 500_000),
        ("8 Mbps", 1_000_000),
        ("500 kbit/s", 62_500),
        ("500 kB/s", 500_000),
        ("1 MiB/s", 1_048_576),
        ("800 bit/s", 100),
        ("1000 B/s", 1000),
        (1000, 1000),
    ],
)
def test_bandwidths(text: object, bytes_per_second: int) -> None:
    assert units.parse_bandwidth(text) == bytes_per_second


@pytest.mark.parametrize(
    ("text", "per_second"), [("100/s", 100), ("600/min", 10), ("3600 / h", 1), ("0", 0), ("0.5/s", 0.5), (3, 3)]
)
def test_rates(text: object, per_second: float) -> None:
    assert units.parse_rate(text) == per_second


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "x",
        "-1",
        "-1s",
        "1e3s",
        "1 parsec",
        "1h1d",
        "١٢",
        "inf",
        "nan",
        "1..2",
        "9" * 40,
        True,
        None,
        [1],
        -1,
        float("nan"),
        float("inf"),
        10**400,
    ],
)
def test_nonsense_is_refused(parse: Callable[[object], float], value: object) -> None:
    with pytest.raises(BadValue):
        parse(value)


@pytest.mark.parametrize("text", ["500000", "4 Mb/s", "4 MB", "4 Mbit", "4 mb/s"])
def test_a_bandwidth_needs_an_unambiguous_unit(text: str) -> None:
    with pytest.raises(BadValue, match="bandwidth"):
        units.parse_bandwidth(text)


def test_sexagesimal_times_are_refused() -> None:
    with pytest.raises(BadValue):
        units.parse_duration("12:30")


@given(st.integers(0, 10**9))
def test_whole_durations_read_back(seconds: int) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@given(st.floats(0.001, 10**6))
def test_durations_read_back(seconds: float) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)


@given(st.integers(0, 2**50))
def test_sizes_read_back(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@given(st.integers(0, 2**45))
def test_bandwidths_read_back(bytes_per_second: int) -> None:
    assert units.parse_bandwidth(units.format_bandwidth(bytes_per_second)) == bytes_per_second


@given(st.floats(0.001, 10**6))
def test_rates_read_back(per_second: float) -> None:
    assert units.parse_rate(units.format_rate(per_second)) == pytest.approx(per_second, rel=1e-12)


@given(st.one_of(st.text(), st.from_regex(r"[0-9.]{1,6} ?[a-zA-Z/]{0,6}")), st.sampled_from(PARSERS))
def test_any_text_is_a_quantity_or_a_bad_value(text: str, parse: Callable[[object], float]) -> None:
    problem, value = "", 0.0
    try:
        value = parse(text)
    except BadValue as error:
        problem = f"{error}; {error.hint}"
    assert value >= 0
    assert len(text) < 12 or text not in problem


@pytest.mark.parametrize(("quantity", "text"), [(3600, "1h"), (5400, "1h30m"), (90_061, "1d1h1m1s"), (0.5, "0.5s")])
def test_durations_are_written_as_people_do(quantity: float, text: str) -> None:
    assert units.format_duration(quantity) == text


def test_hex_keys() -> None:
    assert units.parse_hex_key("0x" + "0f" * 16) == b"\x0f" * 16
    assert units.parse_hex_key("0x" + "aB" * 32) == b"\xab" * 32
    assert units.parse_hex_key("wonderland") is None
    assert units.parse_hex_key("00" * 16) is None


@pytest.mark.parametrize("text", ["0x", "0x12", "0x" + "0f" * 15, "0x" + "0f" * 17, "0x" + "0g" * 16, "0xsecret"])
def test_a_mistyped_key_is_no_password(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        units.parse_hex_key(text)
    assert len(text) < 4 or text not in str(caught.value) + caught.value.hint
