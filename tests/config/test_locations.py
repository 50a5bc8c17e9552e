"""Addresses of web services: with nothing in them that is a secret."""

from __future__ import annotations

import pytest

from turnsvr.config.locations import parse_http_url
from turnsvr.config.units import BadValue


@pytest.mark.parametrize("who", ["user:password@", "user@", ":password@", "@"])
def test_a_web_address_names_no_user(who: str) -> None:
    with pytest.raises(BadValue) as error:
        parse_http_url(f"https://{who}app.example.org/turn")
    assert "password" not in error.value.problem


@pytest.mark.parametrize("url", ["https://app.example.org/turn", "http://127.0.0.1:9000", "https://[2001:db8::1]/a@b"])
def test_a_web_address(url: str) -> None:
    assert parse_http_url(f" {url} ") == url
