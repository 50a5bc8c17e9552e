"""What people see of user names that are secrets."""

from __future__ import annotations

import re

import pytest

from turnsvr.credentials.api import Credential
from turnsvr.credentials.shown import shown

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln-bmF0_dXJl"
ENCRYPTED = "eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn"


def test_a_token_becomes_a_mark_of_its_own() -> None:
    assert re.fullmatch(r"token sha256:[0-9a-f]{8}", shown(TOKEN))
    assert shown(TOKEN) == shown(TOKEN) != shown(TOKEN[:-1])


@pytest.mark.parametrize("token", [TOKEN, ENCRYPTED, TOKEN.rpartition(".")[0] + "."])
@pytest.mark.parametrize(
    "name", ["{}", "1800000000:{}", "{}:1800000000", "alice-{}", "alice_{}", "a b {} c", "x{}", "Bearer {}", "é{}é"]
)
def test_it_is_hidden_wherever_it_stands(name: str, token: str) -> None:
    seen = shown(name.format(token))
    assert not any(part in seen for part in token.split(".") if part)
    before, _, after = name.partition("{}")
    assert re.fullmatch(rf"{re.escape(before)}token sha256:[0-9a-f]{{8}}{re.escape(after)}", seen)


def test_each_of_several_is_hidden() -> None:
    assert shown(f"{TOKEN}:{ENCRYPTED}").count("token sha256:") == 2


@pytest.mark.parametrize("name", ["", "alice", "1800000000:alice", "eyJ", "eyJ.alice", "a.b.c", "eyJ a.b.c", "\ud800"])
def test_other_names_are_shown_as_they_are(name: str) -> None:
    assert shown(name) == name


def test_what_a_credential_shows() -> None:
    assert Credential(f"1800000000:{TOKEN}", None, None, TOKEN).shown == shown(f"1800000000:{TOKEN}")
    assert Credential(TOKEN, None, None, "alice", label="alice (token)").shown == "alice (token)"
