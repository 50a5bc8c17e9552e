"""Who is given credentials, how often, for how long: the rules, without HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import pytest

from turnsvr.config.ranges import ListenAddress
from turnsvr.config.websettings import MAX_TTL, WebSettings
from turnsvr.credentials import shared_secret
from turnsvr.credentials.revoked import TooManyRevoked
from turnsvr.credentials.timedname import TimedNames
from turnsvr.web.callers import ApiCaller
from turnsvr.web.context import CannotIssue, WebContext
from turnsvr.web.issuer import Issuer
from turnsvr.web.refusal import Refused

NOW = 1_000.0
WALL = 1_700_000_000.0
KEY = "a key of the shop, long enough"
LISTENING = tuple(
    ListenAddress.parse(text) for text in ("tls://0.0.0.0:5349", "udp://0.0.0.0:3478", "udp://[::]:3478", "tcp://*")
)


class Server:
    """The part of a WebContext that the issuer uses."""

    listening: Sequence[ListenAddress] = LISTENING

    def __init__(self) -> None:
        self.draining = False
        self.has_secret = True
        self.revoked: list[str] = []
        self.full = False
        self.names = TimedNames()

    def credentials(self, user: str, ttl: float) -> tuple[str, str]:
        if not self.has_secret:
            raise CannotIssue("no secret")
        return shared_secret.make("north", user, ttl, WALL, self.names)

    def revoke(self, username: str, caller: str, callers: int) -> int:
        if self.full:
            raise TooManyRevoked("7 user names are revoked already", 30)
        self.revoked.append(username)
        return 1


class Scene:
    def __init__(self, **settings: Any) -> None:
        self.server = Server()
        usual = {"keys": [{"name": "shop", "key": KEY, "ttl": "2h"}]}
        self.issuer = Issuer(
            WebSettings.model_validate(usual | settings), cast(WebContext, self.server), lambda size: bytes(range(size))
        )

    def caller(self, key: str | None = KEY) -> ApiCaller:
        return self.issuer.callers.with_key(key)

    def refuse(self, status: int, work: Any, *arguments: Any) -> Refused:
        with pytest.raises(Refused) as caught:
            work(*arguments)
        assert caught.value.status == status
        return caught.value


def test_what_is_issued() -> None:
    scene = Scene()
    issued = scene.issuer.issue(scene.caller(), "turn.example.org", "alice", 600, WALL)
    assert issued.username == f"{int(WALL) + 600}:shop:alice"
    assert (issued.username, issued.password) == shared_secret.make("north", "shop:alice", 600, WALL)
    assert issued.ttl == 600
    assert issued.stun == ["stun:turn.example.org:3478"]
    assert issued.turn == [
        "turn:turn.example.org:3478?transport=udp",
        "turn:turn.example.org:3478?transport=tcp",
        "turns:turn.example.org:5349?transport=tcp",
    ]
    assert issued.password not in repr(issued)


def test_an_ipv6_host_stands_in_brackets() -> None:
    scene = Scene()
    assert scene.issuer.issue(scene.caller(), "2001:db8::7", None, None, WALL).stun == ["stun:[2001:db8::7]:3478"]


@pytest.mark.parametrize(("wanted", "given"), [(None, 7200), (60, 60), (7200, 7200), (1e9, 7200), (1, 1), (1.9, 1)])
def test_lifetimes_are_cut_to_the_callers(wanted: float | None, given: int) -> None:
    scene = Scene()
    assert scene.issuer.issue(scene.caller(), "h", None, wanted, WALL).ttl == given


@pytest.mark.parametrize("wanted", [0, -5, 0.5, float("nan"), float("-inf")])
def test_no_lifetime(wanted: float) -> None:
    scene = Scene()
    scene.refuse(400, scene.issuer.issue, scene.caller(), "h", None, wanted, WALL)


@pytest.mark.parametrize("user", ["x" * 129, "line\nfeed", "nul\0"])
def test_no_user(user: str) -> None:
    scene = Scene()
    scene.refuse(400, scene.issuer.issue, scene.caller(), "h", user, None, WALL)


def test_a_user_of_many_bytes_is_refused_rather_than_cut() -> None:
    scene = Scene()
    scene.refuse(400, scene.issuer.issue, scene.caller(), "h", "\U0001f40d" * 128, None, WALL)


def test_callers_without_a_name_do_not_share_a_quota_user() -> None:
    draws = iter(range(100))
    issuer = Issuer(
        WebSettings(public=True), cast(WebContext, Server()), lambda size: next(draws).to_bytes(size, "big")
    )
    caller = issuer.callers.with_key(None)
    names = {issuer.issue(caller, "h", None, None, WALL).username for _ in range(10)}
    assert len(names) == 10


def test_keys_by_their_hash_and_their_text() -> None:
    hashed = {"name": "hashed", "key_hash": "sha256:" + hashlib.sha256(b"something quite long").hexdigest().upper()}
    scene = Scene(keys=[hashed])
    assert scene.caller("something quite long").name == "hashed"
    scene.refuse(401, scene.caller, "something quite lonG")
    scene.refuse(401, scene.caller, "")
    scene.refuse(401, scene.caller, None)


def test_without_a_key_only_where_the_settings_say_so() -> None:
    scene = Scene(public=True, public_ttl=300)
    assert not scene.caller(None).keyed
    assert scene.issuer.issue(scene.caller(None), "h", None, 86_400, WALL).ttl == 300
    scene.refuse(401, scene.caller, "a wrong key is not no key")


def test_origins_bind_a_key_to_pages() -> None:
    scene = Scene(keys=[{"name": "a", "key": KEY, "origins": "https://a.example"}])
    caller = scene.caller()
    scene.issuer.admit(caller, "https://a.example", "192.0.2.1", NOW)
    scene.issuer.admit(caller, None, "192.0.2.1", NOW)
    scene.refuse(403, scene.issuer.admit, caller, "https://b.example", "192.0.2.1", NOW)


def test_a_key_has_a_rate_of_its_own() -> None:
    scene = Scene(requests_per_key="2/s", requests_per_address="1/s")
    caller = scene.caller()
    for _ in range(2):
        scene.issuer.admit(caller, None, "192.0.2.1", NOW)
    assert scene.refuse(429, scene.issuer.admit, caller, None, "192.0.2.2", NOW).retry_after == 1
    scene.issuer.admit(caller, None, "192.0.2.1", NOW + 0.5)


def test_strangers_have_a_rate_by_address() -> None:
    scene = Scene(public=True, requests_per_address="1/s")
    caller = scene.caller(None)
    scene.issuer.admit(caller, None, "192.0.2.1", NOW)
    scene.refuse(429, scene.issuer.admit, caller, None, "::ffff:192.0.2.1", NOW)
    scene.issuer.admit(caller, None, "192.0.2.2", NOW)
    scene.issuer.admit(caller, None, "2001:db8::1", NOW)
    scene.refuse(429, scene.issuer.admit, caller, None, "2001:db8::2", NOW)
    scene.issuer.admit(caller, None, "no address", NOW)
    scene.refuse(429, scene.issuer.admit, caller, None, "", NOW)


def test_a_quota_counts_what_is_in_force() -> None:
    scene = Scene(keys=[{"name": "a", "key": KEY, "quota": 2}])
    caller = scene.caller()
    scene.issuer.issue(caller, "h", None, 100, WALL)
    scene.issuer.issue(caller, "h", None, 50, WALL)
    assert scene.refuse(429, scene.issuer.issue, caller, "h", None, 100, WALL).retry_after == 50
    scene.issuer.issue(caller, "h", None, 100, WALL + 50)
    scene.refuse(429, scene.issuer.issue, caller, "h", None, 100, WALL + 50)


def test_what_fails_takes_nothing_from_the_quota() -> None:
    scene = Scene(keys=[{"name": "a", "key": KEY, "quota": 1}])
    scene.server.has_secret = False
    scene.refuse(503, scene.issuer.issue, scene.caller(), "h", None, 100, WALL)
    scene.server.has_secret = True
    scene.issuer.issue(scene.caller(), "h", None, 100, WALL)


def test_a_draining_server_gives_none() -> None:
    scene = Scene()
    scene.server.draining = True
    scene.refuse(503, scene.issuer.issue, scene.caller(), "h", None, None, WALL)


def test_a_caller_revokes_its_own_alone() -> None:
    scene = Scene(public=True, keys=[{"name": "a", "key": KEY, "tag": "t"}])
    mine = f"{int(WALL)}:t:bob"
    scene.issuer.revoke(scene.caller(), mine, WALL)
    assert scene.server.revoked == [mine]
    for other in (f"{int(WALL)}:tt:bob", f"{int(WALL)}:public:bob", f"{int(WALL)}", "alice", "t:bob"):
        scene.refuse(404, scene.issuer.revoke, scene.caller(), other, WALL)
    scene.refuse(404, scene.issuer.revoke, scene.caller(None), f"{int(WALL)}:public:bob", WALL)
    assert scene.server.revoked == [mine]


@pytest.mark.parametrize(
    ("separator", "tag", "user", "name", "other"),
    [
        ("-", "a", "bob", "{}-a:bob", "{}-a-b:bob"),
        (".", "a", "bob.c", "{}.a:bob.c", "{}.a.b:bob"),
        ("-", "a-b", "bob", "{}-a-b:bob", "{}-a:bob"),
        (":", "a", "bob:1900000000", "{}:a:bob:1900000000", "{}:ab:bob"),
    ],
)
def test_a_caller_revokes_its_own_with_any_separator(
    separator: str, tag: str, user: str, name: str, other: str
) -> None:
    scene = Scene(keys=[{"name": "k", "key": KEY, "tag": tag}])
    scene.server.names = TimedNames(separator)
    expiry = int(WALL) + 600
    issued = scene.issuer.issue(scene.caller(), "h", user, 600, WALL)
    assert issued.username == name.format(expiry)
    scene.issuer.revoke(scene.caller(), issued.username, WALL)
    assert scene.server.revoked == [issued.username]
    scene.refuse(404, scene.issuer.revoke, scene.caller(), other.format(expiry), WALL)


def test_what_no_caller_was_given_is_not_revoked() -> None:
    scene = Scene(keys=[{"name": "a", "key": KEY}])
    longest = int(WALL + MAX_TTL)
    scene.issuer.revoke(scene.caller(), f"{longest}:a:bob", WALL)
    for expiry in (longest + 86_400, 999_999_999_999):
        scene.refuse(404, scene.issuer.revoke, scene.caller(), f"{expiry}:a:bob", WALL)


@pytest.mark.parametrize(
    "expiry", ["", "nan", "inf", "-1", "1e10", "1800000000.5", "\uff11\uff18" + "\uff10" * 8, "9" * 13, "9" * 400]
)
def test_what_is_no_expiry_is_nobody_s_name(expiry: str) -> None:
    scene = Scene(keys=[{"name": "a", "key": KEY}])
    scene.refuse(404, scene.issuer.revoke, scene.caller(), f"{expiry}:a:bob", WALL)
    assert not scene.server.revoked


def test_a_full_table_is_told() -> None:
    scene = Scene(keys=[{"name": "a", "key": KEY}])
    scene.server.full = True
    refused = scene.refuse(429, scene.issuer.revoke, scene.caller(), f"{int(WALL)}:a:bob", WALL)
    assert (refused.text, refused.retry_after) == ("it is not revoked: 7 user names are revoked already", 30)
