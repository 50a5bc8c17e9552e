from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.credentials.callers import CALLER
from turnsvr.credentials.api import Refusal, Source
from turnsvr.credentials.static import StaticUsers
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256, userhash


def test_a_password_serves_both_algorithms() -> None:
    (found,) = StaticUsers({"alice": "wonderland"}).find_now("alice", "example.org", 0, CALLER)
    assert found.username == found.quota_user == "alice"
    assert found.md5_key == long_term_key("alice", "example.org", "wonderland")
    assert found.sha256_key == long_term_key_sha256("alice", "example.org", "wonderland")


def test_the_key_depends_on_the_realm() -> None:
    users = StaticUsers({"alice": "wonderland"})
    assert users.find_now("alice", "a", 0, CALLER) != users.find_now("alice", "b", 0, CALLER)


def test_a_stored_key_serves_its_algorithm_alone() -> None:
    md5_key, sha256_key = long_term_key("a", "r", "p"), long_term_key_sha256("a", "r", "p")
    users = StaticUsers({"old": f"0x{md5_key.hex()}", "new": f"0x{sha256_key.hex().upper()}"})
    (old,) = users.find_now("old", "r", 0, CALLER)
    (new,) = users.find_now("new", "r", 0, CALLER)
    assert (old.md5_key, old.sha256_key) == (md5_key, None)
    assert (new.md5_key, new.sha256_key) == (None, sha256_key)


@pytest.mark.parametrize("password", ["0x", "0x12", "0x" + "ab" * 17])
def test_a_mistyped_key_is_refused_without_being_told(password: str) -> None:
    with pytest.raises(ValueError, match="no key") as caught:
        StaticUsers({"alice": password})
    assert password == "0x" or password not in str(caught.value)


@pytest.mark.parametrize("name", ["bob", "", "Alice", "alice ", "alice\0", "\ud800", "1700000000:alice"])
def test_unknown_names(name: str) -> None:
    users = StaticUsers({"alice": "wonderland"})
    assert users.find_now(name, "r", 0, CALLER) == ()
    assert users.refusal(name, 0) is Refusal.UNKNOWN


def test_userhash_finds_the_name_in_its_realm() -> None:
    users = StaticUsers({"alice": "wonderland", "bob": "builder"})
    assert users.anonymity
    assert users.by_userhash(userhash("bob", "r"), "r") == "bob"
    assert users.by_userhash(userhash("bob", "r"), "other") is None
    assert users.by_userhash(userhash("eve", "r"), "r") is None
    assert users.by_userhash(b"", "r") is None


def test_hashes_are_kept_for_a_bounded_number_of_realms() -> None:
    users = StaticUsers({"alice": "wonderland"})
    for number in range(200):
        assert users.by_userhash(userhash("alice", str(number)), str(number)) == "alice"
    assert len(users._names_by_hash) == 64
    assert users.by_userhash(userhash("alice", "0"), "0") == "alice"


def test_no_key_shows() -> None:
    users = StaticUsers({"alice": "wonderland"})
    (found,) = users.find_now("alice", "r", 0, CALLER)
    assert found.md5_key is not None
    assert str(found.md5_key) not in repr(found)
    assert "wonderland" not in repr(users)


def test_it_is_a_source() -> None:
    assert isinstance(StaticUsers({}), Source)


@given(st.dictionaries(st.text(), st.text().filter(lambda text: not text.startswith("0x"))), st.text())
def test_every_user_is_found_by_name_and_by_hash(users: dict[str, str], realm: str) -> None:
    source = StaticUsers(users)
    for name, password in users.items():
        (found,) = source.find_now(name, realm, 0, CALLER)
        assert found.md5_key == long_term_key(name, realm, password)
        assert source.by_userhash(userhash(name, realm), realm) == name
