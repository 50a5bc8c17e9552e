"""Who ends where all places of signalling are taken."""

from __future__ import annotations

import pytest

from turnsvr.web.places import HeldPlace, who_ends

ALONE, IN_COMPANY = True, False


def held(text: str) -> list[HeldPlace]:
    """Sessions as `a1 a2. b3`: source, since when, and a dot where somebody else is in the room."""
    return [
        HeldPlace(each, each[0].encode(), not each.endswith("."), float(each[1:].removesuffix(".")))
        for each in text.split()
    ]


@pytest.mark.parametrize(
    ("sessions", "newcomer", "expected"),
    [
        ("a1 a2 b3", b"c", "a1"),
        ("a2 a1 b0", b"c", "a1"),
        ("a1. a2 b0", b"c", "a2"),
        ("a1. a2. b0", b"c", "a1."),
        ("a1. a2. b0.", b"b", None),
        ("a1. a2. a3. b0.", b"b", "a1."),
        ("a1. a2. b0", b"a", "b0"),
        ("a3 b1 c2", b"d", "b1"),
        ("a1. b2. c3", b"d", "c3"),
        ("a1. b2. c3.", b"d", None),
        ("", b"a", None),
    ],
)
def test_who_ends(sessions: str, newcomer: bytes, expected: str | None) -> None:
    found = who_ends(held(sessions), newcomer)
    assert (found.name if found else None) == expected
