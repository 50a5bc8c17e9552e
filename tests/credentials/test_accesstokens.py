"""Access tokens of RFC 7635: what is sealed in one, when it is good, and what must not pass for one."""

from __future__ import annotations

import re
import subprocess
from base64 import b64decode, b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import need
from tests.credentials.callers import CALLER
from turnsvr.config import sealingkeys
from turnsvr.config.units import BadValue
from turnsvr.credentials.accesstokenkeys import SKEW, AccessTokenKey, BadToken, Contents
from turnsvr.credentials.accesstokens import AccessTokens, ByToken, token_id
from turnsvr.credentials.api import Caller, Credential, Refusal, Unavailable
from turnsvr.credentials.static import StaticUsers

NOW = 1_800_000_000.0
REALM = "example.org"
SERVER = "turn.example.org"
MAC_KEY = bytes(range(1, 21))
NONCE = bytes(range(12))
NORTH = AccessTokenKey("north", bytes(range(32)))
UNION = AccessTokenKey("union", bytes(range(16)))
FRESH = Contents(MAC_KEY, NOW, 600)


def shown(token: bytes) -> Caller:
    return replace(CALLER, token=token)


def find(source: AccessTokens, token: bytes, kid: str = "north", now: float = NOW) -> tuple[Credential, ...]:
    return source.find_now(kid, REALM, now, shown(token)) or ()


def assert_refused(source: AccessTokens, token: bytes, why: Refusal, kid: str = "north", now: float = NOW) -> None:
    assert find(source, token, kid, now) == ()
    assert source.refusal(kid, now) is why
    assert source.refusal(kid, now) is Refusal.UNKNOWN, "a reason is for one request"


@pytest.mark.parametrize("key", [NORTH, UNION], ids=lambda key: key.algorithm)
@pytest.mark.parametrize("size", [20, 32, 64])
def test_what_is_sealed_is_opened(key: AccessTokenKey, size: int) -> None:
    contents = Contents(bytes(size), NOW + 0.25, 3600)
    token = key.seal(contents, SERVER, NONCE)
    assert key.open(token, SERVER) == contents
    assert len(token) == 2 + 12 + 2 + size + 8 + 4 + 16


def test_a_good_token_is_a_credential() -> None:
    token = NORTH.seal(FRESH, REALM, NONCE)
    found, coturns = find(AccessTokens([NORTH, UNION]), token)
    assert (found.username, found.md5_key, found.sha256_key) == ("north", MAC_KEY, MAC_KEY)
    assert coturns == replace(found, md5_key=MAC_KEY[:16], sha256_key=MAC_KEY[:16])
    assert found.valid_for == 600
    assert found.realm is None
    assert found.quota_user == found.shown == token_id("north", token)


def test_each_token_counts_by_itself() -> None:
    source = AccessTokens([NORTH])
    first, second = (find(source, NORTH.seal(FRESH, REALM, bytes([n]) * 12))[0] for n in (1, 2))
    assert first.quota_user != second.quota_user


def test_a_key_may_choose_the_realm() -> None:
    source = AccessTokens([replace(NORTH, realm="shop.example.org")])
    assert find(source, NORTH.seal(FRESH, REALM, NONCE))[0].realm == "shop.example.org"


def test_the_servers_name_is_the_realm_or_what_is_set() -> None:
    for_realm, for_name = NORTH.seal(FRESH, REALM, NONCE), NORTH.seal(FRESH, SERVER, NONCE)
    assert find(AccessTokens([NORTH]), for_realm)
    assert_refused(AccessTokens([NORTH]), for_name, Refusal.INVALID)
    assert find(AccessTokens([NORTH], server_name=SERVER), for_name)
    assert_refused(AccessTokens([NORTH], server_name=SERVER), for_realm, Refusal.INVALID)


@pytest.mark.parametrize(
    ("later", "left"),
    [
        (0, 600),
        (1, 600),
        (5, 600),
        (6, 599),
        (600, 5),
        (604.5, 0.5),
        (605, 0),
        (6000, 0),
        (-1, 600),
        (-604, 600),
        (-605, 0),
        (-6000, 0),
    ],
)
def test_how_long_a_token_is_good(later: float, left: float) -> None:
    """RFC 7635 section 9: lifetime + Delta > abs(RDnew - TS)."""
    token, source = NORTH.seal(FRESH, REALM, NONCE), AccessTokens([NORTH])
    if left:
        assert find(source, token, now=NOW + later)[0].valid_for == left
    else:
        assert_refused(source, token, Refusal.EXPIRED, now=NOW + later)


def test_a_token_without_a_lifetime_is_never_good() -> None:
    assert_refused(AccessTokens([NORTH]), NORTH.seal(FRESH._replace(lifetime=0), REALM, NONCE), Refusal.EXPIRED)


@pytest.mark.parametrize(
    ("now", "good"),
    [
        (NOW - 100 - SKEW, True),
        (NOW - 100.5 - SKEW, False),
        (NOW + 200 + SKEW - 0.5, True),
        (NOW + 200 + SKEW, False),
    ],
)
def test_a_key_is_in_force_in_its_time(now: float, good: bool) -> None:
    key = replace(NORTH, not_before=NOW - 100, lifetime=300)
    token = key.seal(Contents(MAC_KEY, now, 600), REALM, NONCE)
    if good:
        assert find(AccessTokens([key]), token, now=now)
    else:
        assert_refused(AccessTokens([key]), token, Refusal.KEY, now=now)


def test_keys_are_rotated() -> None:
    """The new key is there before its time, the old one some time longer."""
    old = replace(NORTH, lifetime=NOW + 100)
    new = replace(UNION, not_before=NOW)
    source = AccessTokens([old], {"union": new}.get)
    assert find(source, old.seal(FRESH, REALM, NONCE))
    assert find(source, new.seal(FRESH, REALM, NONCE), "union")
    later = FRESH._replace(issued=NOW + 200)
    assert_refused(source, old.seal(later, REALM, NONCE), Refusal.KEY, now=NOW + 200)
    assert find(source, new.seal(later, REALM, NONCE), "union", now=NOW + 200)


def test_a_key_of_the_file_comes_before_one_of_a_store() -> None:
    source = AccessTokens([NORTH], {"north": replace(UNION, kid="north")}.get)
    assert find(source, NORTH.seal(FRESH, REALM, NONCE))


def test_no_other_key_opens_it() -> None:
    token = NORTH.seal(FRESH, REALM, NONCE)
    assert_refused(AccessTokens([UNION]), token, Refusal.UNKNOWN)
    assert_refused(AccessTokens([replace(UNION, kid="north")]), token, Refusal.INVALID)
    assert_refused(AccessTokens([replace(NORTH, key=bytes(32))]), token, Refusal.INVALID)


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\0\x0c",
        bytes((0, 12)) + NONCE,
        bytes((0, 12)) + NONCE + bytes(15),
        bytes((0, 12)) + NONCE + bytes(16),
        bytes((0, 16)) + bytes(16) + bytes(60),
        b"\xff\xff" + bytes(100),
        NORTH.seal(FRESH, REALM, bytes(8)),
        NORTH.seal(FRESH, REALM, NONCE)[:-1],
        NORTH.seal(FRESH, REALM, NONCE) + b"\0",
        NORTH.seal(FRESH._replace(mac_key=b""), REALM, NONCE),
        NORTH.seal(FRESH._replace(mac_key=bytes(16)), REALM, NONCE),
        NORTH.seal(FRESH._replace(mac_key=bytes(65)), REALM, NONCE),
    ],
    ids=range(15),
)
def test_what_is_no_token(token: bytes) -> None:
    with pytest.raises(BadToken):
        NORTH.open(token, REALM)
    assert_refused(AccessTokens([NORTH]), token, Refusal.INVALID)


@given(st.integers(0, 600), st.integers(1, 255))
def test_no_bit_of_it_may_change(at: int, change: int) -> None:
    token = bytearray(NORTH.seal(FRESH, REALM, NONCE))
    token[at % len(token)] ^= change
    with pytest.raises(BadToken):
        NORTH.open(bytes(token), REALM)


@given(st.binary(max_size=200))
def test_noise_is_no_token(noise: bytes) -> None:
    with pytest.raises(BadToken):
        NORTH.open(noise, REALM)


async def test_while_the_keys_are_not_known_nobody_is_refused() -> None:
    def unknown(kid: str) -> AccessTokenKey | None:
        raise Unavailable("not yet")

    source, token = AccessTokens([NORTH], unknown), NORTH.seal(FRESH, REALM, NONCE)
    assert find(source, token)
    assert source.find_now("union", REALM, NOW, shown(token)) is None
    with pytest.raises(Unavailable):
        await source.find("union", REALM, NOW, shown(token))


async def test_who_shows_a_token_is_asked_of_nobody_else() -> None:
    others = StaticUsers({"north": "star"})
    source = ByToken(AccessTokens([NORTH]), others)
    token = NORTH.seal(FRESH, REALM, NONCE)
    assert source.find_now("north", REALM, NOW, CALLER) == others.find_now("north", REALM, NOW, CALLER)
    assert (await source.find("north", REALM, NOW, shown(token)))[0].md5_key == MAC_KEY
    assert source.find_now("north", REALM, NOW, shown(b"nonsense")) == ()
    assert source.refusal("north", NOW) is Refusal.INVALID
    assert source.refusal("nobody", NOW) is Refusal.UNKNOWN
    assert (source.anonymity, source.md5_alone) == (others.anonymity, others.md5_alone)
    name = source.by_userhash(b"\0" * 32, REALM)
    assert name is None


def test_no_secret_in_a_repr() -> None:
    token = NORTH.seal(FRESH, REALM, NONCE)
    assert "x02" not in repr(NORTH)
    assert str(token) not in repr(shown(token))


# Keys as texts


@pytest.mark.parametrize(
    ("text", "algorithm", "size"),
    [
        (b64encode(bytes(32)).decode(), "A256GCM", 32),
        (b64encode(bytes(33)).decode(), "a256gcm ", 32),
        (b64encode(bytes(32)).decode() + "\n", "", 32),
        (b64encode(bytes(17)).decode(), "A128GCM", 16),
    ],
)
def test_keys_in_base64(text: str, algorithm: str, size: int) -> None:
    assert sealingkeys.read_key(text, algorithm) == bytes(size)


@pytest.mark.parametrize(
    ("text", "algorithm", "problem"),
    [
        (b64encode(bytes(31)).decode(), "A256GCM", "has 31 bytes"),
        ("", "A128GCM", "has 0 bytes"),
        ("north!", "A256GCM", "is no base64"),
        (b64encode(bytes(32)).decode(), "A128CBC-HS256", "is for another algorithm"),
    ],
)
def test_what_is_no_key(text: str, algorithm: str, problem: str) -> None:
    with pytest.raises(BadValue) as caught:
        sealingkeys.read_key(text, algorithm)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31", 1_769_817_600.0),
        ("2026-01-31T12:00:00Z", 1_769_860_800.0),
        ("2026-01-31 13:00:00+01:00", 1_769_860_800.0),
        ("1769860800", 1_769_860_800.0),
        (1_769_860_800, 1_769_860_800.0),
    ],
)
def test_times(text: object, seconds: float) -> None:
    assert sealingkeys.parse_time(text) == seconds
    assert sealingkeys.parse_time(sealingkeys.format_time(seconds)) == seconds


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01", "", "-1", None, True])
def test_what_is_no_time(text: object) -> None:
    with pytest.raises(BadValue, match="is no time"):
        sealingkeys.parse_time(text)


# With coturn's tool


@pytest.mark.parametrize("key", [NORTH, UNION], ids=lambda key: key.algorithm)
def test_coturn_opens_what_we_seal_and_we_what_coturn_seals(key: AccessTokenKey) -> None:
    def oauth(*options: str) -> str:
        line = [need("turnutils_oauth"), *options, "-i", SERVER, "-j", key.kid, "-k", b64encode(key.key).decode()]
        line += ["-l", str(int(NOW)), "-m", "3600", "-n", key.algorithm, "-v"]
        result = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    sealed = oauth("-e", "-p", b64encode(MAC_KEY).decode(), "-q", str(int(NOW) << 16), "-r", "600")
    # It is no JSON that the tool prints: the client's key stands in it as it is.
    token = re.search(r'"access_token":"([^"]*)"', sealed)
    assert token is not None
    assert key.open(b64decode(token[1]), SERVER) == FRESH

    ours = b64encode(key.seal(FRESH, SERVER, NONCE)).decode()
    opened = oauth("-d", "-t", ours)
    assert "Valid token" in opened
    assert "mac key length: 20" in opened
    assert "lifetime: 600" in opened
