from __future__ import annotations

from turnsvr import credentials
from turnsvr.config.settings import CredentialSettings
from turnsvr.credentials.api import AsyncSource, Caller, Credential, Refusal, Source
from turnsvr.credentials.chain import Chain
from turnsvr.credentials.shared_secret import SharedSecrets
from turnsvr.credentials.static import StaticUsers
from turnsvr.stun.integrity import userhash

NOW = 1_800_000_000.0
TIMED = "1800000060:bob"


def both() -> Chain:
    return Chain([StaticUsers({"alice": "wonderland"}), SharedSecrets(["new", "old"])])


def test_each_name_is_answered_by_the_source_that_knows_it() -> None:
    assert len(both().find("alice", "r", NOW)) == 1
    assert len(both().find(TIMED, "r", NOW)) == 2
    assert both().find("eve", "r", NOW) == ()


def test_a_static_user_comes_before_a_time_limited_one_of_the_same_name() -> None:
    chain = Chain([StaticUsers({TIMED: "wonderland"}), SharedSecrets(["new"])])
    assert chain.find(TIMED, "r", NOW) == StaticUsers({TIMED: "wonderland"}).find(TIMED, "r", NOW)


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
    assert Chain([both()]).find("alice", "r", NOW)


def test_from_settings() -> None:
    def source(**values: object) -> Source:
        return credentials.from_settings(CredentialSettings.model_validate(values))

    assert source(users={"alice": "wonderland"}).find("alice", "r", NOW)
    assert len(source(secrets=["new", "old"]).find(TIMED, "r", NOW)) == 2
    mixed = source(users={"alice": "wonderland"}, secret="new")
    assert mixed.find("alice", "r", NOW)
    assert mixed.find(TIMED, "r", NOW)
    assert source().find("alice", "r", NOW) == ()


class Slow:
    """What a database will look like."""

    anonymity = False

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        return StaticUsers({"alice": "wonderland"}).find(username, realm, wall_time)

    async def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNAVAILABLE


async def test_a_slow_source_gives_the_same_answers_later() -> None:
    slow: AsyncSource = Slow()
    assert await slow.find("alice", "r", NOW, Caller("192.0.2.1", secure=False)) == StaticUsers(
        {"alice": "wonderland"}
    ).find("alice", "r", NOW)
