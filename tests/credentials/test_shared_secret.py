from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.credentials import shared_secret
from turnsvr.credentials.api import Refusal, Source
from turnsvr.credentials.shared_secret import SharedSecrets, TimedName
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

NOW = 1_800_000_000.0


def password_of(secret: str, username: str) -> str:
    return base64.b64encode(hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()).decode()


def test_the_known_vector() -> None:
    username, password = shared_secret.make("north", "mbzrxpgjys", 4000, 12_330_939)
    assert (username, password) == ("12334939:mbzrxpgjys", "Iq7YXkRon8YXJfdN1Ke9EZOw1UE=")
    (found,) = SharedSecrets(["north"]).find("12334939:mbzrxpgjys", "r", 12_334_938)
    assert found.md5_key == long_term_key("12334939:mbzrxpgjys", "r", "Iq7YXkRon8YXJfdN1Ke9EZOw1UE=")
    assert found.sha256_key == long_term_key_sha256("12334939:mbzrxpgjys", "r", "Iq7YXkRon8YXJfdN1Ke9EZOw1UE=")


def test_limits_count_by_the_user() -> None:
    secrets = SharedSecrets(["north"])
    assert secrets.find("1800000001:alice", "r", NOW)[0].quota_user == "alice"
    assert secrets.find("1800000001:a:b", "r", NOW)[0].quota_user == "a:b"
    assert secrets.find("1800000001", "r", NOW)[0].quota_user == "1800000001"
    assert secrets.find("1800000001:", "r", NOW)[0].quota_user == "1800000001:"


def test_every_secret_gives_a_candidate_in_its_order() -> None:
    found = SharedSecrets(["new", "old"]).find("1800000001:alice", "r", NOW)
    assert [candidate.md5_key for candidate in found] == [
        long_term_key("1800000001:alice", "r", password_of(secret, "1800000001:alice")) for secret in ("new", "old")
    ]


def test_it_serves_until_the_second_of_its_expiry() -> None:
    secrets = SharedSecrets(["north"])
    assert secrets.find("1800000000:alice", "r", NOW - 0.001)
    assert not secrets.find("1800000000:alice", "r", NOW)
    assert secrets.refusal("1800000000:alice", NOW) is Refusal.EXPIRED
    assert secrets.refusal("1800000000", NOW + 1) is Refusal.EXPIRED


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        ":alice",
        "alice",
        "alice:1800000001",
        "-1:alice",
        "+1800000001:alice",
        " 1800000001:alice",
        "1800000001 :alice",
        "1_800_000_001:alice",
        "1800000001.5:alice",
        "1e12:alice",
        "0x7fffffff:alice",
        "١٨٠٠٠٠٠٠٠١:alice",
        "\uff11\uff18:alice",
        "²:alice",
        "9" * 13,
        "9" * 5000,
        "1800000001:" + "a" * 500,
        "1800000001:\ud800",
    ],
)
def test_names_that_are_not_time_limited(name: str) -> None:
    secrets = SharedSecrets(["north"])
    assert shared_secret.parse(name) is None
    assert secrets.find(name, "r", NOW) == ()
    assert secrets.refusal(name, NOW) is Refusal.UNKNOWN


def test_names_apart() -> None:
    assert shared_secret.parse("0") == TimedName(0, "")
    assert shared_secret.parse("0012:x") == TimedName(12, "x")
    assert shared_secret.parse("999999999999:x:y") == TimedName(999_999_999_999, "x:y")


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
    assert "north" not in repr(SharedSecrets(["north"]).find("1800000001", "r", NOW))


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
    found = source.find(username, "r", now)
    assert [c.md5_key for c in found][1] == long_term_key(username, "r", password)
    assert found[0].quota_user == (user or username)
    assert source.find(username, "r", now + ttl + 1) == ()


@given(st.text(), st.floats(allow_nan=False))
def test_any_name_is_found_or_not(name: str, wall_time: float) -> None:
    source = SharedSecrets(["north"])
    assert len(source.find(name, "r", wall_time)) in (0, 1)
    assert source.refusal(name, wall_time) in Refusal
