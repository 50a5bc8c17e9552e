"""Third-party authorization in the rules (RFC 7635): the offer, the proof by a token's key, and how long it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.turn.world import PEER, REALM, SERVER, UDP_RELAY, USERS, Client, Pair, Style, World, code, names
from turnsvr.credentials.accesstokenkeys import AccessTokenKey, Contents
from turnsvr.credentials.accesstokens import AccessTokens, ByToken, token_id
from turnsvr.credentials.static import StaticUsers
from turnsvr.stun import attributes as a
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message, Method
from turnsvr.turn.commands import AllocationEnded, AllocationStarted, AuthenticationFailed, EndReason, FindCredential
from turnsvr.turn.config import RealmConfig, ServerConfig

OFF = ServerConfig(RealmConfig(REALM))
ON = replace(OFF, access_tokens="")
SHOP = "shop.example.org"
NORTH = AccessTokenKey("north", bytes(range(32)))
UNION = AccessTokenKey("union", bytes(range(16)))
OF_SHOP = AccessTokenKey("shop", bytes(range(1, 33)), realm=SHOP)
OF_NOBODY = AccessTokenKey("nobody", bytes(range(2, 34)), realm="gone.example.org")


def world(config: ServerConfig = ON) -> World:
    tokens = AccessTokens([NORTH, UNION, OF_SHOP, OF_NOBODY])
    return World(config, source=ByToken(tokens, StaticUsers(USERS)))


class Bearer(Client):
    """A client that shows an access token with Allocate and Refresh."""

    def __init__(self, world: World, style: Style = Style.PLAIN) -> None:
        super().__init__(world, "", "", address=world.client().five_tuple.client, style=style)
        self.token = b""
        self.mac_key = b""
        self.take(NORTH)

    def take(self, key: AccessTokenKey, lifetime: int = 3600, issued: float | None = None) -> None:
        """Be given another token."""
        random = self.world.random
        self.username, self.mac_key = key.kid, random.randbytes(20)
        contents = Contents(self.mac_key, self.world.wall_time if issued is None else issued, lifetime)
        self.token = key.seal(contents, REALM, random.randbytes(12))

    @property
    def key(self) -> bytes:
        return self.mac_key

    def shown(self) -> Pair:
        return a.ACCESS_TOKEN, self.token

    def allocate(self, *pairs: Pair) -> Message:
        return super().allocate(self.shown(), *pairs)

    def renew(self, *pairs: Pair) -> Message:
        return super().refresh(self.shown(), *pairs)


def pass_time(world: World, seconds: float) -> None:
    world.wall_time += seconds
    world.pass_time(seconds)


@pytest.mark.parametrize(
    ("config", "offer"), [(ON, REALM), (replace(ON, access_tokens="turn.example"), "turn.example")]
)
def test_challenges_offer_it_with_the_servers_name(config: ServerConfig, offer: str) -> None:
    client = world(config).client()
    for request in (client.message(Method.ALLOCATE, UDP_RELAY), client.message(Method.REFRESH)):
        answer = client.transact(request.encode())
        assert answer is not None
        assert code(answer) == ErrorCode.UNAUTHENTICATED
        assert answer.get(a.THIRD_PARTY_AUTHORIZATION) == offer
    client.nonce = b"nonsense"
    stale = client.transact(client.sign(client.message(Method.ALLOCATE, UDP_RELAY)))
    assert stale is not None
    assert code(stale) == ErrorCode.STALE_NONCE
    assert stale.get(a.THIRD_PARTY_AUTHORIZATION) == offer


def test_without_it_nothing_is_offered() -> None:
    client = world(OFF).client()
    answer = client.transact(client.message(Method.ALLOCATE, UDP_RELAY).encode())
    assert "THIRD-PARTY-AUTHORIZATION" not in names(answer)


def test_the_pumps_challenge_has_the_offer() -> None:
    challenge = world(replace(ON, access_tokens="turn.example")).server.challenge(SERVER)
    assert challenge is not None
    assert b"turn.example" in challenge.after


@pytest.mark.parametrize("style", list(Style))
def test_a_token_allocates_and_its_key_signs_what_follows(style: Style) -> None:
    here = world()
    client = Bearer(here, style)
    assert code(client.allocate()) == 0
    here.clear()
    assert code(client.permit(PEER)) == 0
    assert code(client.bind(0x4000, PEER)) == 0
    assert client.send(PEER, b"hello")
    assert code(client.refresh()) == 0
    assert code(client.refresh((a.LIFETIME, 0))) == 0
    assert not here.of(FindCredential), "the allocation has the key"


def test_coturns_clients_sign_with_a_part_of_the_key() -> None:
    client = Bearer(world())
    client.mac_key = client.mac_key[:16]
    assert code(client.allocate()) == 0
    assert code(client.permit(PEER)) == 0


def test_logs_and_lists_show_key_and_digest() -> None:
    here = world()
    client = Bearer(here)
    client.allocate()
    (started,) = (event for event in here.events if isinstance(event, AllocationStarted))
    assert started.username == token_id("north", client.token)
    (allocation,) = here.server.allocations()
    assert allocation.owner == (REALM, started.username)


def test_a_retransmission_gets_the_same_answer() -> None:
    client = Bearer(world())
    request = client.sign(client.message(Method.ALLOCATE, UDP_RELAY, client.shown()))
    assert client.deliver(request) == client.deliver(request)


@pytest.mark.parametrize(
    ("lifetime", "asked", "granted"), [(3600, 0, 600), (300, 600, 300), (3600, 9999, 3600), (5, 600, 5)]
)
def test_an_allocation_lives_no_longer_than_its_token(lifetime: int, asked: int, granted: int) -> None:
    here = world()
    client = Bearer(here)
    client.take(NORTH, lifetime)
    assert client.allocate((a.LIFETIME, asked or 600)).get(a.LIFETIME) == granted


def test_a_refresh_without_a_token_extends_to_the_end_of_the_last_one() -> None:
    here = world()
    client = Bearer(here)
    client.take(NORTH, 700)
    assert client.allocate().get(a.LIFETIME) == 600
    pass_time(here, 500)
    assert client.refresh().get(a.LIFETIME) == 200
    pass_time(here, 199.5)
    answer = client.refresh()
    assert code(answer) == ErrorCode.UNAUTHENTICATED
    assert answer.get(a.THIRD_PARTY_AUTHORIZATION) == REALM
    pass_time(here, 1)
    assert code(client.refresh()) == ErrorCode.UNAUTHENTICATED
    ended = [event for event in here.events if isinstance(event, AllocationEnded)]
    assert [event.reason for event in ended] == [EndReason.EXPIRED]


@pytest.mark.parametrize("key", [NORTH, UNION, OF_SHOP], ids=lambda key: key.kid)
def test_a_token_is_renewed_by_one_of_any_key(key: AccessTokenKey) -> None:
    here = world(replace(ON, realms={SHOP: RealmConfig(SHOP)}))
    client = Bearer(here)
    client.take(NORTH, 600)
    client.allocate()
    before = client.mac_key
    pass_time(here, 590)
    client.take(key, 3600)
    assert client.renew((a.LIFETIME, 3000)).get(a.LIFETIME) == 3000
    pass_time(here, 1000)
    assert code(client.permit(PEER)) == 0
    assert len(here.server) == 1
    client.mac_key = before
    assert code(client.transact(client.sign(client.message(Method.REFRESH)))) == ErrorCode.UNAUTHENTICATED
    (allocation,) = here.server.allocations()
    assert allocation.realm == REALM, "it stays whose it was"


def test_a_refused_renewal_changes_nothing() -> None:
    here = world()
    client = Bearer(here)
    client.take(NORTH, 600)
    client.allocate()
    good = client.token, client.mac_key
    for lifetime, issued in ((600, here.wall_time - 700), (600, here.wall_time + 700), (600, here.wall_time - 604.5)):
        client.take(NORTH, lifetime, issued)
        assert code(client.renew()) == ErrorCode.UNAUTHENTICATED
    client.token, client.mac_key = good
    assert client.refresh().get(a.LIFETIME) == 600


def test_tokens_and_passwords_do_not_mix() -> None:
    """Neither speaks for an allocation of the other, though the names be the same."""
    here = World(ON, source=ByToken(AccessTokens([replace(NORTH, kid="alice")]), StaticUsers(USERS)))
    client = Bearer(here)
    client.take(replace(NORTH, kid="alice"))
    client.allocate()
    other = Client(here, "alice", USERS["alice"], address=client.five_tuple.client)
    assert code(other.refresh()) == ErrorCode.WRONG_CREDENTIALS
    static = here.client()
    static.allocate()
    bearer = Bearer(here)
    bearer.five_tuple = static.five_tuple
    bearer.take(replace(NORTH, kid="alice"))
    assert code(bearer.renew()) == ErrorCode.WRONG_CREDENTIALS
    assert len(here.server) == 2


def test_one_token_for_two_allocations_counts_twice() -> None:
    here = world(replace(ON, realm=RealmConfig(REALM, allocations_per_user=2)))
    first = Bearer(here)
    answers = []
    for _ in range(3):
        client = Bearer(here)
        client.token, client.mac_key = first.token, first.mac_key
        answers.append(code(client.allocate()))
    assert answers == [0, 0, ErrorCode.ALLOCATION_QUOTA_REACHED]
    assert code(Bearer(here).allocate()) == 0, "another token counts by itself"


def test_the_keys_realm_rules() -> None:
    shop = RealmConfig(SHOP, allocations=1, bandwidth=1000.0)
    here = world(replace(ON, realms={SHOP: shop}))
    client, other = Bearer(here), Bearer(here)
    for each in (client, other):
        each.take(OF_SHOP)
    assert code(client.allocate()) == 0
    assert here.opens == []
    (allocation,) = here.server.allocations()
    assert (allocation.realm, allocation.named_realm) == (SHOP, REALM)
    assert code(client.permit(PEER)) == 0, "the client goes on naming the realm that it was given"
    assert code(other.allocate()) == ErrorCode.ALLOCATION_QUOTA_REACHED


def test_a_key_of_a_realm_that_is_not_served() -> None:
    client = Bearer(world())
    client.take(OF_NOBODY)
    assert code(client.allocate()) == ErrorCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("unknown key", "unknown user"),
        ("wrong key", "token not accepted"),
        ("expired", "expired credential"),
        ("nonsense", "token not accepted"),
        ("empty", "token not accepted"),
        ("wrong integrity", "wrong password"),
    ],
)
def test_what_is_refused_and_why(spoil: str, reason: str) -> None:
    here = world()
    client = Bearer(here)
    if spoil == "unknown key":
        client.username = "south"
    elif spoil == "wrong key":
        client.username = "union"
    elif spoil == "expired":
        client.take(NORTH, 600, here.wall_time - 605)
    elif spoil == "wrong integrity":
        client.mac_key = bytes(20)
    else:
        client.token = b"" if spoil == "empty" else b"nonsense"
    answer = client.transact(client.sign(client.message(Method.ALLOCATE, UDP_RELAY, client.shown())))
    assert code(answer) == ErrorCode.UNAUTHENTICATED
    assert answer is not None
    assert answer.get(a.THIRD_PARTY_AUTHORIZATION) == REALM
    (failed,) = (event for event in here.events if isinstance(event, AuthenticationFailed))
    assert (failed.username, failed.reason) == (client.username, reason)
    assert len(here.server) == 0


def test_a_token_too_large_is_malformed() -> None:
    client = Bearer(world())
    client.token = bytes(1025)
    assert code(client.transact(client.sign(client.message(Method.ALLOCATE, UDP_RELAY, client.shown())))) == 400


def test_where_tokens_are_not_taken_the_attribute_is_unknown() -> None:
    """RFC 8489 section 15: a server that does not take it does not understand it."""
    client = world(OFF).client()
    answer = client.request(Method.ALLOCATE, UDP_RELAY, (a.ACCESS_TOKEN, b"token"))
    assert code(answer) == ErrorCode.UNKNOWN_ATTRIBUTE
    assert answer.get(a.UNKNOWN_ATTRIBUTES) == (a.ACCESS_TOKEN.number,)


def test_passwords_work_beside_tokens() -> None:
    client = world().client()
    assert code(client.allocate()) == 0
    assert code(client.refresh((a.LIFETIME, 9999))) == 0


def test_after_a_reload_without_tokens_allocations_end_with_them() -> None:
    here = world()
    client = Bearer(here)
    client.take(NORTH, 900)
    client.allocate()
    here.server.reconfigure(OFF, here.now)
    here.carry_out()
    assert client.refresh((a.LIFETIME, 3600)).get(a.LIFETIME) == 900
