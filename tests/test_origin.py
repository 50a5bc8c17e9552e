"""When two values of ORIGIN are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.origin import normal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://app.example.org", "https://app.example.org"),
        ("https://app.example.org/", "https://app.example.org"),
        ("HTTPS://App.Example.ORG:443/", "https://app.example.org"),
        ("http://app.example.org:80", "http://app.example.org"),
        ("http://app.example.org:443", "http://app.example.org:443"),
        ("https://app.example.org:80", "https://app.example.org:80"),
        ("https://app.example.org:4430", "https://app.example.org:4430"),
        ("https://[2001:DB8::443]", "https://[2001:db8::443]"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]"),
        ("https://app.example.org/Page", "https://app.example.org/Page"),
        ("sip:Alice", "sip:Alice"),
        ("null", "null"),
        ("", ""),
    ],
)
def test_spellings(text: str, expected: str) -> None:
    assert normal(text) == expected


@given(st.text() | st.from_regex(r"(https?|HTTP)://[a-zA-Z.:/0-9]*", fullmatch=True))
def test_whatever_is_sent_has_one_spelling(text: str) -> None:
    assert isinstance(normal(text), str)
