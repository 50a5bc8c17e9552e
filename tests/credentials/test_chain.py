from __future__ import annotations

import pytest

from tests.credentials.callers import CALLER
from turnsvr import credentials
from turnsvr.config.settings import CredentialSettings, Settings
from turnsvr.credentials.api import Caller, Credential, Refusal, Source, Unavailable
from turnsvr.credentials.chain import ByRealm, Chain
from turnsvr.credentials.shared_secret import SharedSecrets
from turnsvr.credentials.static import StaticUsers
from turnsvr.stun.integrity import userhash

NOW = 1_800_000_000.0
TIMED = "1800000060:bob"


def both() -> Chain:
    return Chain([StaticUsers({"alice": "wonderland"}), SharedSecrets(["new", "old"])])


def test_each_name_is_answered_by_the_source_that_knows_it() -> None:
    assert len(both().find_now("alice", "r", NOW, CALLER) or ()) == 1
    assert len(both().find_now(TIMED, "r", NOW, CALLER) or ()) == 2
    assert both().find_now("eve", "r", NOW, CALLER) == ()


def test_a_static_user_comes_before_a_time_limited_one_of_the_same_name() -> None:
    static, timed = StaticUsers({TIMED: "wonderland"}), SharedSecrets(["new"])
    first, second = (source.find_now(TIMED, "r", NOW, CALLER) for source in (static, timed))
    assert Chain([static, timed]).find_now(TIMED, "r", NOW, CALLER) == first + second


async def test_a_time_limited_name_is_tried_with_the_secrets_of_all_that_know_some() -> None:
    file, store, hook = SharedSecrets(["file"]), Slow(), Slow(None)
    store.remembered[TIMED] = SharedSecrets(["store"]).find_now(TIMED, "r", NOW, CALLER)
    mixed = Chain([file, store, hook])
    every = file.find_now(TIMED, "r", NOW, CALLER) + store.remembered[TIMED]
    assert mixed.find_now(TIMED, "r", NOW, CALLER) == await mixed.find(TIMED, "r", NOW, CALLER) == every
    assert Chain([hook, file]).find_now(TIMED, "r", NOW, CALLER) == file.find_now(TIMED, "r", NOW, CALLER)
    assert Chain([StaticUsers({}), hook]).find_now(TIMED, "r", NOW, CALLER) is None
    assert hook.asked == 0


def test_md5_is_offered_first_where_some_user_may_have_no_other_key() -> None:
    stored = StaticUsers({"alice": "0x" + "0" * 32, "bob": "0x" + "0" * 64})
    assert stored.md5_alone
    assert not StaticUsers({"alice": "wonderland", "bob": "0x" + "0" * 64}).md5_alone
    assert Chain([both(), stored]).md5_alone
    assert not both().md5_alone
    assert Chain([both(), Slow()]).md5_alone
    assert ByRealm({"one": both(), "two": stored}).md5_alone


def test_userhash_is_offered_only_when_every_source_resolves_it() -> None:
    assert not both().anonymity
    assert Chain([StaticUsers({"a": "b"}), StaticUsers({})]).anonymity
    assert not Chain([]).anonymity
    assert both().by_userhash(userhash("alice", "r"), "r") == "alice"
    assert both().by_userhash(userhash("eve", "r"), "r") is None


def test_the_most_telling_refusal() -> None:
    assert both().refusal("1799999999:bob", NOW) is Refusal.EXPIRED
    assert both().refusal("eve", NOW) is Refusal.UNKNOWN
    assert Chain([]).refusal("eve", NOW) is Refusal.UNKNOWN


def test_a_chain_is_a_source_and_chains() -> None:
    assert isinstance(both(), Source)
    assert Chain([both()]).find_now("alice", "r", NOW, CALLER)


def test_from_settings() -> None:
    def source(**values: object) -> Source:
        return credentials.from_settings(CredentialSettings.model_validate(values))

    assert source(users={"alice": "wonderland"}).find_now("alice", "r", NOW, CALLER)
    assert len(source(secrets=["new", "old"]).find_now(TIMED, "r", NOW, CALLER) or ()) == 2
    mixed = source(users={"alice": "wonderland"}, secret="new")
    assert mixed.find_now("alice", "r", NOW, CALLER)
    assert mixed.find_now(TIMED, "r", NOW, CALLER)
    assert source().find_now("alice", "r", NOW, CALLER) == ()


class Slow:
    """A source that takes I/O, of one user; without one it is away."""

    anonymity = True
    md5_alone = True

    def __init__(self, user: str | None = "alice") -> None:
        self.user = user
        self.asked = 0
        self.remembered: dict[str, tuple[Credential, ...]] = {}

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        return self.remembered.get(username)

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        return self._users().find_now(username, realm, wall_time, caller)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNAVAILABLE if self.user is None else Refusal.UNKNOWN

    def _users(self) -> StaticUsers:
        self.asked += 1
        if self.user is None:
            raise Unavailable("away")
        return StaticUsers({self.user: "wonderland"})


async def test_a_slow_source_gives_the_same_answers_later() -> None:
    slow: Source = Slow()
    assert slow.find_now("alice", "r", NOW, CALLER) is None
    expected = StaticUsers({"alice": "wonderland"}).find_now("alice", "r", NOW, CALLER)
    assert await slow.find("alice", "r", NOW, CALLER) == expected


async def test_sources_without_io_say_later_what_they_say_at_once() -> None:
    sources: tuple[Source, ...] = (StaticUsers({"alice": "wonderland"}), SharedSecrets(["new"]), both(), Chain([]))
    for source in (*sources, ByRealm({"r": both()})):
        for name in ("alice", TIMED, "eve"):
            found = source.find_now(name, "r", NOW, CALLER)
            assert found is not None
            assert await source.find(name, "r", NOW, CALLER) == found


async def test_the_first_that_knows_answers_and_later_ones_are_not_asked() -> None:
    slow, never = Slow(), Slow("carol")
    mixed = Chain([StaticUsers({"bob": "builder"}), slow, never])
    assert len(await mixed.find("bob", "r", NOW, CALLER)) == 1
    assert slow.asked == 0
    assert len(await mixed.find("alice", "r", NOW, CALLER)) == 1
    assert mixed.by_userhash(userhash("bob", "r"), "r") == "bob"
    assert never.asked == 0
    assert await mixed.find("eve", "r", NOW, CALLER) == ()
    assert mixed.by_userhash(userhash("eve", "r"), "r") is None
    assert mixed.anonymity
    assert not Chain([slow, SharedSecrets(["new"])]).anonymity


async def test_a_source_that_is_away_hides_no_later_one() -> None:
    mixed = Chain([Slow(None), Slow("alice"), StaticUsers({"bob": "builder"})])
    for name in ("alice", "bob"):
        assert len(await mixed.find(name, "r", NOW, CALLER)) == 1
    with pytest.raises(Unavailable):
        await mixed.find("eve", "r", NOW, CALLER)
    assert mixed.refusal("eve", NOW) is Refusal.UNAVAILABLE


def test_what_is_remembered_needs_nobody_to_be_asked() -> None:
    first, second = Slow(), Slow(None)
    mixed = Chain([StaticUsers({"bob": "builder"}), first, second])
    known = StaticUsers({"alice": "wonderland"}).find_now("alice", "r", NOW, CALLER)

    def find_now(name: str) -> tuple[Credential, ...] | None:
        return mixed.find_now(name, "r", NOW, CALLER)

    assert find_now("bob")
    assert find_now("alice") is None
    second.remembered["alice"] = known
    assert find_now("alice") is None
    first.remembered["alice"] = ()
    assert find_now("alice") == known
    second.remembered["alice"] = ()
    assert find_now("alice") == ()
    assert first.asked == second.asked == 0


def test_each_realm_has_its_own_users() -> None:
    realms = ByRealm({"one": StaticUsers({"alice": "wonderland"}), "two": StaticUsers({"bob": "builder"})})
    assert realms.find_now("alice", "one", NOW, CALLER)
    assert realms.find_now("bob", "two", NOW, CALLER)
    for name, realm in (("alice", "two"), ("bob", "one"), ("alice", "three")):
        assert realms.find_now(name, realm, NOW, CALLER) == ()
        assert realms.by_userhash(userhash(name, realm), realm) is None
    assert realms.by_userhash(userhash("bob", "two"), "two") == "bob"
    assert realms.anonymity
    assert not ByRealm({"one": StaticUsers({}), "two": SharedSecrets(["new"])}).anonymity
    assert ByRealm({"one": SharedSecrets(["new"])}).refusal("1799999999:bob", NOW) is Refusal.EXPIRED


def test_the_realms_of_the_settings() -> None:
    settings = Settings.model_validate(
        {
            "realm": "example.org",
            "credentials": {"users": {"alice": "wonderland"}},
            "realms": {"shop": {"credentials": {"secret": "new"}}},
        }
    )
    source = credentials.of_realms(settings)
    assert source.find_now("alice", "example.org", NOW, CALLER)
    assert source.find_now(TIMED, "shop", NOW, CALLER)
    for name, realm in (("alice", "shop"), (TIMED, "example.org"), ("alice", "elsewhere")):
        assert source.find_now(name, realm, NOW, CALLER) == ()
