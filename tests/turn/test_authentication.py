"""The long-term credential mechanism, server side (RFC 8489 section 9.2.4)."""

from __future__ import annotations

from base64 import b64decode
from hmac import digest
from random import Random

import pytest

from tests.turn.world import PEER, REALM, SERVER, UDP_RELAY, USERS, Client, Pair, Style, World, code, names, raw
from turnsvr.credentials.chain import Chain
from turnsvr.credentials.shared_secret import SharedSecrets, make
from turnsvr.credentials.static import StaticUsers
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.authentication import ALGORITHMS, MD5, MD5_FIRST, SHA256
from turnsvr.turn.commands import AuthenticationFailed, FindCredential
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.nonce import Nonces, NonceVerdict

CHALLENGE = ["ERROR-CODE", "REALM", "NONCE", "PASSWORD-ALGORITHMS"]
REQUESTS = [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]
ANONYMOUS = ServerConfig(RealmConfig(REALM), anonymity=True)


@pytest.mark.parametrize("method", REQUESTS)
def test_without_integrity_is_401_with_a_challenge(method: Method) -> None:
    client = World().client()
    answer = client.transact(client.message(method).encode())
    assert answer is not None
    assert code(answer) == 401
    assert names(answer) == CHALLENGE
    assert answer.get(a.REALM) == REALM
    assert answer.get(a.PASSWORD_ALGORITHMS) == (a.PasswordAlgorithm(SHA256), a.PasswordAlgorithm(MD5))


def test_a_challenge_leaves_nothing_behind() -> None:
    world = World()
    for _ in range(100):
        world.client().challenge()
    assert not world.of(FindCredential)
    assert world.server.next_timeout() is None


def test_credentials_without_integrity_are_401() -> None:
    client = World().client()
    message = client.message(Method.REFRESH, (a.USERNAME, "alice"), (a.REALM, REALM))
    assert code(client.transact(message.add(a.NONCE, client.challenge()).encode())) == 401


@pytest.mark.parametrize("missing", [a.USERNAME, a.REALM, a.NONCE])
def test_integrity_without_the_rest_is_400_and_tells_nothing(missing: a.Attribute[object]) -> None:
    client = World().client()
    message = client.message(Method.REFRESH)
    pairs: list[Pair] = [(a.USERNAME, "alice"), (a.REALM, REALM), (a.NONCE, client.challenge())]
    for attribute, value in pairs:
        if attribute is not missing:
            message.add(attribute, value)
    answer = client.transact(message.encode(key=client.key))
    assert code(answer) == 400
    assert names(answer) == ["ERROR-CODE"]


@pytest.mark.parametrize("value", [b"\xff\xfe", b"a" * 514])
def test_a_username_that_is_none_is_400(value: bytes) -> None:
    client = World().client()
    message = raw(client.message(Method.REFRESH, (a.REALM, REALM)), a.USERNAME.number, value)
    assert code(client.transact(message.add(a.NONCE, client.challenge()).encode(key=client.key))) == 400


def test_an_unknown_user_is_401() -> None:
    world = World()
    client = world.client("mallory", "guess")
    answer = client.request(Method.REFRESH)
    assert code(answer) == 401
    assert names(answer) == CHALLENGE
    assert world.events == [AuthenticationFailed(client.five_tuple, "mallory", "unknown user", REALM)]


@pytest.mark.parametrize("style", Style)
def test_a_wrong_password_is_401(style: Style) -> None:
    world = World()
    client = world.client("alice", "guess", style=style)
    answer = client.request(Method.REFRESH)
    assert code(answer) == 401
    assert names(answer) == CHALLENGE
    assert world.events == [AuthenticationFailed(client.five_tuple, "alice", "wrong password", REALM)]


def test_a_changed_message_is_401() -> None:
    client = World().client()
    client.challenge()
    data = bytearray(client.sign(client.message(Method.ALLOCATE, UDP_RELAY, (a.LIFETIME, 1200))))
    at = data.index((1200).to_bytes(4, "big"))
    data[at + 3] ^= 1
    assert code(client.transact(bytes(data))) == 401


def test_a_live_allocation_does_not_open_the_door_to_another_password() -> None:
    world = World()
    client = world.client()
    client.allocate()
    thief = world.client("alice", "guess", address=client.five_tuple.client)
    assert code(thief.refresh((a.LIFETIME, 0))) == 401
    assert len(world.server) == 1


def test_the_owners_key_serves_no_other_name() -> None:
    world = World()
    client = world.client()
    client.allocate()
    message = client.message(Method.REFRESH, (a.USERNAME, "bob"), (a.REALM, REALM), (a.NONCE, client.challenge()))
    assert code(client.transact(message.encode(key=client.key))) == 401


def test_the_owner_is_not_looked_up_again() -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.clear()
    client.refresh()
    client.permit(PEER)
    assert not world.of(FindCredential)


# Nonces


def test_a_nonce_is_good_for_its_client_address_alone() -> None:
    world = World()
    client = world.client()
    nonce = client.challenge()
    other_port = world.client(address=client.five_tuple.client._replace(port=9))
    other_host = world.client(address=client.five_tuple.client._replace(host="198.51.100.8"))
    for thief in (other_port, other_host):
        thief.nonce = nonce
        answer = thief.transact(thief.sign(thief.message(Method.REFRESH)))
        assert code(answer) == 438
        assert names(answer) == CHALLENGE
    assert not world.of(FindCredential)


def test_two_clients_never_get_the_same_nonce() -> None:
    world = World()
    assert len({world.client().challenge() for _ in range(50)}) == 50


def test_a_stale_nonce_is_438_with_a_fresh_one() -> None:
    world = World(ServerConfig(RealmConfig(REALM), nonce_lifetime=100))
    client = world.client()
    first = client.challenge()
    world.pass_time(99.9)
    assert code(client.transact(client.sign(client.message(Method.REFRESH)))) == 437
    world.pass_time(1.2)
    answer = client.transact(client.sign(client.message(Method.REFRESH)))
    assert answer is not None
    assert code(answer) == 438
    assert set(CHALLENGE) < set(names(answer))
    client.nonce = answer.get(a.NONCE)
    assert client.nonce != first
    assert code(client.transact(client.sign(client.message(Method.REFRESH)))) == 437


def test_a_stale_nonce_is_told_only_to_who_has_the_password() -> None:
    world = World(ServerConfig(RealmConfig(REALM), nonce_lifetime=100))
    client = world.client("alice", "guess")
    client.challenge()
    world.pass_time(200)
    assert code(client.transact(client.sign(client.message(Method.REFRESH)))) == 401


def test_a_stale_nonce_carries_out_nothing() -> None:
    world = World(ServerConfig(RealmConfig(REALM), nonce_lifetime=100))
    client = world.client()
    client.allocate()
    world.pass_time(200)
    assert code(client.transact(client.sign(client.message(Method.REFRESH, (a.LIFETIME, 0))))) == 438
    assert len(world.server) == 1


@pytest.mark.parametrize("nonce", [b"", b"x", b"obMatJos2", b"obMatJos2gAAB" + b"A" * 22, b"\xff" * 35, b"=" * 35])
def test_a_forged_nonce_is_438_before_anybody_is_looked_up(nonce: bytes) -> None:
    world = World()
    client = world.client()
    client.nonce = nonce or b"\0"
    message = client.message(Method.REFRESH, (a.USERNAME, "alice"), (a.REALM, REALM), (a.NONCE, nonce))
    answer = client.transact(message.encode(key=client.key))
    assert code(answer) == 438
    assert names(answer) == CHALLENGE
    assert not world.of(FindCredential)


def test_every_changed_byte_of_a_nonce_is_seen() -> None:
    client = Address("198.51.100.7", 1)
    nonces = Nonces(bytes(32), 60, anonymity=False, algorithms=ALGORITHMS)
    nonce = nonces.make(client, 5)
    assert nonces.judge(nonce, client, 5) is NonceVerdict.FRESH
    for at in range(len(nonce) - 1):
        for bit in (1, 0x80):
            changed = bytearray(nonce)
            changed[at] ^= bit
            assert nonces.judge(bytes(changed), client, 5) is NonceVerdict.FOREIGN
    assert (
        Nonces(b"\1" * 32, 60, anonymity=False, algorithms=ALGORITHMS).judge(nonce, client, 5) is NonceVerdict.FOREIGN
    )


def test_a_nonce_lives_as_long_as_promised_and_not_two_seconds_longer() -> None:
    client = Address("198.51.100.7", 1)
    nonces = Nonces(bytes(32), 60, anonymity=False, algorithms=ALGORITHMS)
    nonce = nonces.make(client, 10.5)
    assert nonces.judge(nonce, client, 70.5) is NonceVerdict.FRESH
    assert nonces.judge(nonce, client, 72.5) is NonceVerdict.EXPIRED


def test_the_nonce_cookie_announces_the_features_in_both_readings_of_the_rfc() -> None:
    for anonymity, bits in ((False, 0x800001), (True, 0xC00003)):
        nonce = World(ServerConfig(RealmConfig(REALM), anonymity=anonymity)).client().challenge()
        assert nonce.startswith(b"obMatJos2")
        assert int.from_bytes(b64decode(nonce[9:13]), "big") == bits


# Algorithms


@pytest.mark.parametrize("style", Style)
def test_the_answer_is_signed_in_the_style_of_the_request(style: Style) -> None:
    client = World().client(style=style)
    expected = "MESSAGE-INTEGRITY" if style is Style.PLAIN else "MESSAGE-INTEGRITY-SHA256"
    for answer in (client.refresh(), client.allocate(), client.permit(PEER), client.permit()):
        assert names(answer)[-1] == expected


def test_a_password_algorithm_is_answered_with_sha256_whatever_signed_the_request() -> None:
    """RFC 8489 section 9.2.4, its end: MESSAGE-INTEGRITY answers only who named no algorithm."""
    client = World().client(style=Style.MD5)
    client.challenge()
    answer = client.transact(client.sign(client.message(Method.REFRESH), key=client.key))
    assert code(answer) == 437
    assert names(answer)[-1] == "MESSAGE-INTEGRITY-SHA256"


def test_sha256_without_an_algorithm_is_taken_with_the_md5_key_and_answered_alike() -> None:
    client = World().client()
    client.challenge()
    answer = client.transact(client.sign(client.message(Method.REFRESH), sha256_key=client.key))
    assert code(answer) == 437
    assert names(answer)[-1] == "MESSAGE-INTEGRITY-SHA256"


@pytest.mark.parametrize(("sha1", "sha256", "expected"), [(True, True, 437), (False, True, 437), (True, False, 401)])
def test_of_two_integrity_attributes_sha256_decides(sha1: bool, sha256: bool, expected: int) -> None:
    client = World().client(style=Style.MD5)
    client.challenge()
    keys = [client.key if right else b"wrong" for right in (sha1, sha256)]
    data = client.sign(client.message(Method.REFRESH), key=keys[0], sha256_key=keys[1])
    assert code(client.transact(data)) == expected


@pytest.mark.parametrize(
    "pairs",
    [
        [(a.PASSWORD_ALGORITHMS, ALGORITHMS)],
        [(a.PASSWORD_ALGORITHM, a.PasswordAlgorithm(MD5))],
        [(a.PASSWORD_ALGORITHMS, ALGORITHMS[1:]), (a.PASSWORD_ALGORITHM, a.PasswordAlgorithm(MD5))],
        [(a.PASSWORD_ALGORITHMS, ALGORITHMS[::-1]), (a.PASSWORD_ALGORITHM, a.PasswordAlgorithm(MD5))],
        [(a.PASSWORD_ALGORITHMS, ALGORITHMS), (a.PASSWORD_ALGORITHM, a.PasswordAlgorithm(3))],
        [(a.PASSWORD_ALGORITHMS, ALGORITHMS), (a.PASSWORD_ALGORITHM, a.PasswordAlgorithm(MD5, b"salt"))],
        [(a.PASSWORD_ALGORITHMS, ()), (a.PASSWORD_ALGORITHM, a.PasswordAlgorithm(MD5))],
    ],
    ids=["list only", "choice only", "list cut", "list turned", "unknown choice", "parameters", "empty list"],
)
def test_a_bid_down_is_400(pairs: list[tuple[a.Attribute[object], object]]) -> None:
    client = World().client()
    client.challenge()
    answer = client.transact(client.sign(client.message(Method.REFRESH, *pairs)))
    assert code(answer) == 400
    assert names(answer) == ["ERROR-CODE"]


def test_a_stored_md5_key_serves_no_sha256_request() -> None:
    source = StaticUsers({"alice": "0x" + long_term_key("alice", REALM, "wonderland").hex()})
    world = World(source=source)
    assert code(world.client().refresh()) == 437
    assert code(world.client(style=Style.MD5).refresh()) == 437
    assert code(world.client(style=Style.SHA256).refresh()) == 401


def test_a_stored_sha256_key_serves_no_md5_request() -> None:
    source = StaticUsers({"alice": "0x" + long_term_key_sha256("alice", REALM, "wonderland").hex()})
    world = World(source=source)
    assert code(world.client(style=Style.SHA256).refresh()) == 437
    assert code(world.client().refresh()) == code(world.client(style=Style.MD5).refresh()) == 401


def test_md5_is_offered_first_to_users_of_whom_no_other_key_may_be_known() -> None:
    source = StaticUsers({"alice": "0x" + long_term_key("alice", REALM, "wonderland").hex()})
    client = World(ServerConfig(RealmConfig(REALM), md5_first=True), source=source).client(style=Style.MD5)
    assert code(client.refresh()) == 437
    assert client.algorithms == MD5_FIRST
    assert {each.number for each in MD5_FIRST} == {MD5, SHA256}
    assert MD5_FIRST[0].number == ALGORITHMS[1].number == MD5


def test_a_client_that_was_offered_another_order_is_asked_anew() -> None:
    world = World()
    client = world.client(style=Style.MD5)
    assert code(client.refresh()) == 437
    world.server.reconfigure(ServerConfig(RealmConfig(REALM), md5_first=True), world.now)
    assert code(client.transact(client.sign(client.message(Method.REFRESH)))) == 438
    assert code(client.refresh()) == 437
    assert client.algorithms == MD5_FIRST


@pytest.mark.parametrize(("size", "expected"), [(12, 401), (16, 437), (18, 401), (20, 437), (28, 437), (32, 437)])
def test_sha256_integrity_may_be_cut_to_16_bytes_and_not_below(size: int, expected: int) -> None:
    client = World().client(style=Style.SHA256)
    client.challenge()
    whole = client.sign(client.message(Method.REFRESH), sha256_key=client.key)
    padded = size + -size % 4
    head = whole[:-36]
    head = head[:2] + (len(head) - 20 + 4 + padded).to_bytes(2, "big") + head[4:]
    value = digest(client.key, head, "sha256")[:size]
    data = head + b"\x00\x1c" + size.to_bytes(2, "big") + value + bytes(padded - size)
    assert code(client.transact(data)) == expected


def test_the_style_may_change_from_request_to_request() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.style = Style.SHA256
    assert code(client.permit(PEER)) == 0
    client.style = Style.MD5
    assert code(client.refresh()) == 0


# USERHASH


@pytest.mark.parametrize("style", Style)
def test_a_userhash_stands_for_its_user(style: Style) -> None:
    world = World(ANONYMOUS)
    client = world.client(hashed=True, style=style)
    assert code(client.allocate()) == 0
    assert code(client.permit(PEER)) == 0
    assert len(world.of(FindCredential)) == 1
    client.hashed = False
    assert code(client.refresh()) == 0


def test_an_unknown_userhash_is_401() -> None:
    assert code(World(ANONYMOUS).client("mallory", "x", hashed=True).refresh()) == 401


def test_another_users_hash_is_441() -> None:
    world = World(ANONYMOUS)
    client = world.client()
    client.allocate()
    assert code(world.client("bob", hashed=True, address=client.five_tuple.client).refresh()) == 441


# Attributes after integrity


@pytest.mark.parametrize("style", [Style.PLAIN, Style.SHA256])
def test_attributes_after_integrity_are_ignored(style: Style) -> None:
    client = World().client(style=style)
    client.allocate()
    data = client.sign(client.message(Method.REFRESH))
    extra = Message(Method.REFRESH, Class.REQUEST, bytes(12)).add(a.LIFETIME, 0)
    tail = raw(extra, 0x7777, b"unknown!").encode()[20:]
    longer = data[:2] + (len(data) - 20 + len(tail)).to_bytes(2, "big") + data[4:] + tail
    assert code(client.transact(longer)) == 0
    assert len(client.world.server) == 1


def test_a_username_after_integrity_does_not_count() -> None:
    client = World().client()
    message = client.message(Method.REFRESH, (a.REALM, REALM), (a.NONCE, client.challenge()))
    data = message.encode(key=client.key)
    tail = Message(0, Class.REQUEST, bytes(12)).add(a.USERNAME, "alice").encode()[20:]
    assert code(client.transact(data[:2] + (len(data) - 20 + len(tail)).to_bytes(2, "big") + data[4:] + tail)) == 400


def test_the_first_of_repeated_attributes_counts() -> None:
    client = World().client()
    client.allocate()
    assert client.refresh((a.LIFETIME, 900), (a.LIFETIME, 0)).get(a.LIFETIME) == 900


# Sources


def timed(world: World, secret: str, user: str, ttl: float = 3600, **how: object) -> Client:
    username, password = make(secret, user, ttl, world.wall_time)
    return world.client(username, password, **how)


def test_time_limited_credentials_of_every_secret() -> None:
    world = World(source=SharedSecrets(["new", "old"]))
    for style in Style:
        assert code(timed(world, "new", "carol", style=style).allocate()) == 0
        assert code(timed(world, "old", "carol", style=style).allocate()) == 0
    assert code(timed(world, "older", "carol").allocate()) == 401


def test_expired_credentials_are_401_and_the_log_says_so() -> None:
    world = World(source=SharedSecrets(["new"]))
    assert code(timed(world, "new", "carol", ttl=-1).allocate()) == 401
    assert isinstance(world.events[0], AuthenticationFailed)
    assert world.events[0].reason == "expired credential"


def test_an_allocation_outlives_the_credential_that_made_it() -> None:
    world = World(source=SharedSecrets(["new"]))
    client = timed(world, "new", "carol", ttl=10)
    client.allocate()
    world.wall_time += 100
    assert code(client.refresh()) == 0
    assert code(timed(world, "new", "carol", ttl=-90).allocate()) == 401


def test_the_quota_counts_time_limited_names_by_their_user() -> None:
    world = World(ServerConfig(RealmConfig(REALM, allocations_per_user=2)), source=SharedSecrets(["new"]))
    assert [code(timed(world, "new", "carol", ttl=ttl).allocate()) for ttl in (10, 20, 30)] == [0, 0, 486]
    assert code(timed(world, "new", "dave").allocate()) == 0


def test_another_time_stamp_is_another_user_name() -> None:
    world = World(source=SharedSecrets(["new"]))
    client = timed(world, "new", "carol")
    client.allocate()
    assert code(timed(world, "new", "carol", ttl=99, address=client.five_tuple.client).refresh()) == 441


def test_static_users_side_by_side_with_secrets() -> None:
    world = World(source=Chain([StaticUsers(USERS), SharedSecrets(["new"])]))
    assert code(world.client("bob").allocate()) == 0
    assert code(timed(world, "new", "carol").allocate()) == 0
    assert code(timed(world, "new", "").allocate()) == 0
    assert code(world.client("bob", "guess").allocate()) == 401


# STUN only


@pytest.mark.parametrize("transport", Transport)
def test_a_stun_only_server_forbids_allocations(transport: Transport) -> None:
    world = World(ServerConfig(RealmConfig(REALM), families=frozenset()))
    client = world.client(transport=transport)
    answer = client.transact(client.message(Method.ALLOCATE, UDP_RELAY).encode())
    assert code(answer) == 403
    assert names(answer) == ["ERROR-CODE"]


def test_the_server_secret_comes_from_the_random_source() -> None:
    """The same seed gives the same nonces, another seed other ones: nothing else goes into them."""
    nonces = [
        World(seed=seed).client(address=Address("198.51.100.9", 1), server=SERVER).challenge() for seed in (1, 1, 2)
    ]
    assert nonces[0] == nonces[1] != nonces[2]


def test_unknown_methods_are_not_answered() -> None:
    client = World().client()
    known = {int(method) for method in Method} - {Method.SEND, Method.DATA}
    for method in Random(5).sample(sorted(set(range(0x1000)) - known), 200):
        assert client.transact(client.message(method).encode()) is None
