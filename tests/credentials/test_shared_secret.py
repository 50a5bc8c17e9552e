from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.credentials.callers import CALLER
from turnsvr.credentials import shared_secret
from turnsvr.credentials.api import Refusal, Source
from turnsvr.credentials.shared_secret import SharedSecrets
from turnsvr.credentials.timedname import TimedNames
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

NOW = 1_800_000_000.0


def password_of(secret: str, username: str) -> str:
    return base64.b64encode(hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()).decode()


def test_the_known_vector() -> None:
    username, password = shared_secret.make("north", "mbzrxpgjys", 4000, 12_330_939)
    assert (username, password) == ("12334939:mbzrxpgjys", "Iq7YXkRon8YXJfdN1Ke9EZOw1UE=")
    (found,) = SharedSecrets(["north"]).find_now("12334939:mbzrxpgjys", "r", 12_334_938, CALLER)
    assert found.md5_key == long_term_key("12334939:mbzrxpgjys", "r", "Iq7YXkRon8YXJfdN1Ke9EZOw1UE=")
    assert found.sha256_key == long_term_key_sha256("12334939:mbzrxpgjys", "r", "Iq7YXkRon8YXJfdN1Ke9EZOw1UE=")


def test_limits_count_by_the_user() -> None:
    secrets = SharedSecrets(["north"])
    assert secrets.find_now("1800000001:alice", "r", NOW, CALLER)[0].quota_user == "alice"
    assert secrets.find_now("1800000001:a:b", "r", NOW, CALLER)[0].quota_user == "a:b"
    assert secrets.find_now("1800000001", "r", NOW, CALLER)[0].quota_user == "1800000001"
    assert secrets.find_now("1800000001:", "r", NOW, CALLER)[0].quota_user == "1800000001:"


def test_every_secret_gives_a_candidate_in_its_order() -> None:
    found = SharedSecrets(["new", "old"]).find_now("1800000001:alice", "r", NOW, CALLER)
    assert [candidate.md5_key for candidate in found] == [
        long_term_key("1800000001:alice", "r", password_of(secret, "1800000001:alice")) for secret in ("new", "old")
    ]


def test_it_serves_until_the_second_of_its_expiry() -> None:
    secrets = SharedSecrets(["north"])
    assert secrets.find_now("1800000000:alice", "r", NOW - 0.001, CALLER)
    assert not secrets.find_now("1800000000:alice", "r", NOW, CALLER)
    assert secrets.refusal("1800000000:alice", NOW) is Refusal.EXPIRED
    assert secrets.refusal("1800000000", NOW + 1) is Refusal.EXPIRED


def test_no_hash_finds_a_name_that_is_not_stored() -> None:
    secrets = SharedSecrets(["north"])
    assert not secrets.anonymity
    assert secrets.by_userhash(b"x" * 32, "r") is None


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        SharedSecrets(["north", ""])
    with pytest.raises(ValueError, match="empty"):
        shared_secret.make("", "alice", 1, NOW)


@pytest.mark.parametrize(("user", "ttl"), [("a" * 500, 1), ("alice", 1e15), ("alice", -NOW - 5), ("\ud800", 1)])
def test_what_cannot_be_made(user: str, ttl: float) -> None:
    with pytest.raises(ValueError, match="no user name"):
        shared_secret.make("north", user, ttl, NOW)


def test_without_a_user_the_name_is_the_expiry() -> None:
    assert shared_secret.make("north", "", 60, NOW)[0] == "1800000060"


def test_no_secret_shows() -> None:
    assert "north" not in repr(SharedSecrets(["north"]))
    assert "north" not in repr(SharedSecrets(["north"]).find_now("1800000001", "r", NOW, CALLER))


def test_it_is_a_source() -> None:
    assert isinstance(SharedSecrets([]), Source)


@given(
    st.text(min_size=1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
    st.integers(1, 10**9),
    st.floats(0, 10**10),
)
def test_what_is_made_is_found_until_it_expires(secret: str, user: str, ttl: int, now: float) -> None:
    username, password = shared_secret.make(secret, user, ttl, now)
    source = SharedSecrets(["another", secret])
    found = source.find_now(username, "r", now, CALLER)
    assert [c.md5_key for c in found][1] == long_term_key(username, "r", password)
    assert found[0].quota_user == (user or username)
    assert source.find_now(username, "r", now + ttl + 1, CALLER) == ()


@given(st.text(), st.floats(allow_nan=False))
def test_any_name_is_found_or_not(name: str, wall_time: float) -> None:
    source = SharedSecrets(["north"])
    assert len(source.find_now(name, "r", wall_time, CALLER)) in (0, 1)
    assert source.refusal(name, wall_time) in Refusal


@pytest.mark.parametrize("separator", [":", "-", "."])
@pytest.mark.parametrize("form", ["{e}", "{e}{s}alice", "alice{s}{e}", "{s}{e}"])
def test_every_form_is_tried_with_every_secret(separator: str, form: str) -> None:
    source = SharedSecrets(["new", "old"], TimedNames(separator))
    name = form.format(e=1_800_000_001, s=separator)
    passwords = [password_of(secret, name) for secret in ("new", "old")]
    found = source.find_now(name, "r", NOW, CALLER)
    assert [each.md5_key for each in found] == [long_term_key(name, "r", password) for password in passwords]
    assert {each.quota_user for each in found} == {"alice" if "alice" in form else name}
    assert source.find_now(name, "r", NOW + 1, CALLER) == ()
    assert source.refusal(name, NOW + 1) is Refusal.EXPIRED


def test_an_expiry_in_milliseconds_is_refused_and_told() -> None:
    source = SharedSecrets(["north"])
    for name in ("1800000001000:alice", "alice:1800000001000", "1800000001000", ":1800000001000"):
        assert source.find_now(name, "r", NOW, CALLER) == ()
        assert source.refusal(name, NOW) is Refusal.NOT_IN_SECONDS
