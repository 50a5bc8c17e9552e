"""What logs show of user names that are secrets."""

from __future__ import annotations

import re

import pytest

from turnsvr.credentials.shown import shown

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln-bmF0_dXJl"


def test_a_token_becomes_a_mark_of_its_own() -> None:
    assert re.fullmatch(r"token sha256:[0-9a-f]{8}", shown(TOKEN))
    assert shown(TOKEN) == shown(TOKEN) != shown(TOKEN[:-1])


@pytest.mark.parametrize("name", ["", "alice", "1800000000:alice", "eyJ", "eyJ.alice", "a.b.c", "eyJ a.b.c", "\ud800"])
def test_other_names_are_shown_as_they_are(name: str) -> None:
    assert shown(name) == name
