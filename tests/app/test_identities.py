"""Users of a web hook and of tokens, with real clients; what a reload keeps, and what a start refuses."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha1
from hmac import digest
from pathlib import Path
from typing import Any

import aioice
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of, need
from tests.credentials.service import Request, Service, answer
from tests.interop.uclient import Case, command, verdict
from turnsvr.app.application import Application
from turnsvr.app.errors import StartError
from turnsvr.app.sessionlog import SessionLog
from turnsvr.client.credentials import AccessToken, Login, Security
from turnsvr.client.link import DatagramLink, StreamLink, tls_context
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.config.locations import StoreUrl
from turnsvr.config.settings import Settings
from turnsvr.credentials.accesstokenkeys import AccessTokenKey, Contents
from turnsvr.credentials.accesstokens import token_id
from turnsvr.credentials.api import Caller, Refusal
from turnsvr.stores import open_store
from turnsvr.stores.client import StoreClient
from turnsvr.turn.commands import EndReason

REALM = "example.org"
SECRET = "what both of us know"
SHARED = "0123456789abcdef0123456789abcdef"
EC = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A web service that knows alice, and bob as a customer with one allocation."""
    found = Service()

    async def respond(request: Request) -> bytes:
        values = request.values
        if values["username"] == USER:
            return answer(200, {"password": PASSWORD})
        if values["username"] == "bob":
            return answer(200, {"password": PASSWORD, "user": "customer 7", "quota": 1})
        return answer(404)

    found.respond = respond  # type: ignore[method-assign]
    await found.start()
    yield found
    await found.stop()


def hook(service: Service, **more: Any) -> dict[str, Any]:
    return {"hook": {"url": service.url, "secret": SECRET, "timeout": "10s", **more}}


async def client_of(application: Application, user: str, password: str, transport: str = "udp") -> TurnClient:
    where = address_of(application, transport)
    if transport == "udp":
        return TurnClient(await DatagramLink.open(where), Login(user, password))
    tls = tls_context(insecure=True) if transport == "tls" else None
    return TurnClient(await StreamLink.open(where, tls=tls), Login(user, password))


async def assert_relays(application: Application, user: str, password: str, transport: str = "udp") -> None:
    """Allocates, and sends to itself through the relay."""
    client = await client_of(application, user, password, transport)
    await client.allocate()
    await client.permit(client.relayed[0])
    client.send(client.relayed[0], b"hello")
    assert await asyncio.wait_for(client.receive(), PATIENCE) == PeerData(client.relayed[0], b"hello")
    await client.refresh(0)
    await client.close()


async def assert_refused(application: Application, user: str, password: str, code: int, transport: str = "udp") -> None:
    client = await client_of(application, user, password, transport)
    with pytest.raises(ClientError, match=str(code)):
        await client.allocate()
    await client.close()


def changed(application: Application, **sections: Any) -> Settings:
    values = {name: getattr(application.settings, name) for name in Settings.model_fields}
    return Settings.model_validate(values | sections)


async def test_users_of_a_web_hook(serve: Serve, service: Service) -> None:
    application = await serve(credentials={"users": {"carol": "christmas"}, **hook(service)})
    for transport in ("udp", "tcp", "tls"):
        await assert_relays(application, USER, PASSWORD, transport)
    assert {request.values["client"] for request in service.requests} == {"127.0.0.1"}
    assert {request.values["realm"] for request in service.requests} == {"example.org"}
    asked = len(service.requests)
    await assert_relays(application, "carol", "christmas")
    assert len(service.requests) == asked
    await assert_refused(application, USER, "wrong", 401)
    await assert_refused(application, "eve", PASSWORD, 401)


async def test_a_quota_of_the_hook_s_answer(serve: Serve, service: Service) -> None:
    application = await serve(credentials=hook(service))
    first = await client_of(application, "bob", PASSWORD)
    await first.allocate()
    await assert_refused(application, "bob", PASSWORD, 486)
    await first.refresh(0)
    await first.close()
    await assert_relays(application, "bob", PASSWORD)


async def test_a_user_who_is_removed_and_whose_session_is_ended_is_not_remembered(
    serve: Serve, service: Service
) -> None:
    known = {USER, "carol"}

    async def respond(request: Request) -> bytes:
        return answer(200, {"password": PASSWORD, "ttl": 3600}) if request.values["username"] in known else answer(404)

    service.respond = respond  # type: ignore[method-assign]
    application = await serve(credentials=hook(service))
    client = await client_of(application, USER, PASSWORD)
    await client.allocate()
    await assert_relays(application, "carol", PASSWORD)
    known.clear()
    await assert_relays(application, USER, PASSWORD)
    assert application.rooms.end_sessions([1], EndReason.REVOKED) == 1
    await assert_refused(application, USER, PASSWORD, 401)
    await assert_relays(application, "carol", PASSWORD)
    await client.close()


async def test_sources_for_settings_that_are_not_taken_are_closed(
    serve: Serve, service: Service, tmp_path: Path
) -> None:
    application = await serve(credentials=hook(service))
    before = application.rooms.identities.health
    store = {"store": {"url": f"sqlite:{tmp_path / 'users.sqlite'}"}}
    broken = {"certificate": tmp_path / "none.pem", "key": tmp_path / "none.pem"}
    closed: list[StoreClient] = []

    async def close(self: StoreClient, *, at_once: bool) -> None:
        await closing(self, at_once=at_once)
        closed.append(self)

    closing = StoreClient.close
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreClient, "close", close)
        with pytest.raises(StartError, match=r"none\.pem: No such file"):
            application.reload(changed(application, tls=broken, credentials={**hook(service), **store}))
        missing = {"hook": {"url": service.url, "secret": SECRET, "ca": tmp_path / "none.pem"}}
        with pytest.raises(StartError, match="No such file"):
            application.reload(changed(application, credentials={**missing, **store}))
        async with asyncio.timeout(PATIENCE):
            while len(closed) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert application.rooms.identities.health == before
    await assert_relays(application, USER, PASSWORD)


async def test_a_hook_that_is_away_costs_new_clients_a_500_and_others_nothing(serve: Serve, service: Service) -> None:
    application = await serve(credentials={"users": {"carol": "christmas"}, **hook(service)})
    kept = await client_of(application, USER, PASSWORD)
    await kept.allocate()
    await service.stop()
    with capture_logs() as logs:
        for _ in range(3):
            await assert_refused(application, USER, PASSWORD, 500)
        await assert_relays(application, "carol", "christmas")
        await kept.refresh(300)
        assert application.rooms.problems == []
        await service.start()
        await assert_relays(application, USER, PASSWORD)
    told = [entry["event"] for entry in logs if "hook" in entry["event"]]
    assert told == ["credential hook unavailable", "credential hook available again"]
    await kept.close()


def rest_password(token: str) -> str:
    return b64encode(digest(SHARED.encode(), token.encode(), sha1)).decode()


def shared_token(**claims: Any) -> str:
    return jwt.encode({"sub": "dave", "exp": int(time.time()) + 600, **claims}, SHARED, "HS256")


def signed_token(**claims: Any) -> str:
    return jwt.encode({"sub": "dave", "exp": int(time.time()) + 600, **claims}, EC, "ES256")


@pytest.fixture
def shared_key(tmp_path: Path) -> dict[str, Any]:
    """Settings of tokens that a shared key signs."""
    path = tmp_path / "shared.key"
    path.write_text(SHARED)
    return {"tokens": {"keys": path, "algorithms": ["HS256"]}}


@pytest.fixture
def public_key(tmp_path: Path) -> dict[str, Any]:
    """Settings of tokens that a private key signs."""
    path = tmp_path / "public.pem"
    path.write_bytes(EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return {"tokens": {"keys": path}}


async def test_tokens_of_a_shared_key(serve: Serve, shared_key: dict[str, Any]) -> None:
    application = await serve(credentials=shared_key)
    token = shared_token()
    for transport in ("udp", "tcp", "tls"):
        await assert_relays(application, token, rest_password(token), transport)
    await assert_refused(application, token, token, 401)
    expired = shared_token(exp=int(time.time()) - 1)
    await assert_refused(application, expired, rest_password(expired), 401)


async def test_a_quota_in_a_token_counts_for_its_user(serve: Serve, shared_key: dict[str, Any]) -> None:
    application = await serve(credentials=shared_key)
    first, second = shared_token(turn_allocations=1), shared_token(turn_allocations=1, jti="another")
    holder = await client_of(application, first, rest_password(first))
    await holder.allocate()
    await assert_refused(application, second, rest_password(second), 486)
    other = shared_token(sub="erin", turn_allocations=1)
    await assert_relays(application, other, rest_password(other))
    await holder.close()


async def test_signed_tokens_over_tls_alone(serve: Serve, public_key: dict[str, Any]) -> None:
    token = signed_token()
    with capture_logs() as logs:
        application = await serve(sinks=(SessionLog(),), credentials=public_key)
        await assert_relays(application, token, token, "tls")
        await assert_refused(application, token, token, 401)
        await assert_refused(application, token, token, 401, "tcp")
    assert token not in repr(logs)
    assert {entry["user"] for entry in logs if entry["event"] == "session started"} == {"dave (token)"}
    failures = [entry for entry in logs if entry["event"] == "authentication failed"]
    assert {entry["reason"] for entry in failures} == {"token from a client without TLS"}


async def test_signed_tokens_anywhere_where_the_operator_says_so(serve: Serve, public_key: dict[str, Any]) -> None:
    public_key["tokens"]["transports"] = "any"
    application = await serve(credentials=public_key)
    token = signed_token()
    await assert_relays(application, token, token)


async def test_aioice_with_a_token(serve: Serve, shared_key: dict[str, Any]) -> None:
    application = await serve(credentials=shared_key)
    token = shared_token()
    where = address_of(application, "udp")
    connection = aioice.Connection(
        ice_controlling=True,
        turn_server=(where.host, where.port),
        turn_username=token,
        turn_password=rest_password(token),
    )
    await connection.gather_candidates()
    assert "relay" in {candidate.type for candidate in connection.local_candidates}
    await connection.close()


@pytest.mark.parametrize("tls", [False, True], ids=["HS256", "ES256"])
async def test_coturn_s_client_with_a_token(
    serve: Serve, shared_key: dict[str, Any], public_key: dict[str, Any], tls: bool
) -> None:
    need("turnutils_uclient")
    application = await serve(credentials=public_key if tls else shared_key)
    token = signed_token() if tls else shared_token()
    password = token if tls else rest_password(token)
    arguments = "-t -y -X" if tls else "-y -X"
    case = Case("token", arguments, tls=tls, peer=False, user=token, password=password)
    ports = {transport: address_of(application, transport).port for transport in ("udp", "tls")}
    line = command(case, port=ports["udp"], tls_port=ports["tls"], peer_port=0)
    result = await asyncio.to_thread(
        subprocess.run, line, capture_output=True, text=True, check=False, timeout=2 * PATIENCE
    )
    assert verdict(case, result) is None


async def test_keys_from_an_address_that_is_away_at_first(serve: Serve, service: Service) -> None:
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key()))

    async def respond(request: Request) -> bytes:
        return answer(200, {"keys": [jwk]})

    service.respond = respond  # type: ignore[method-assign]
    await service.stop()
    web = {"listen": "http://127.0.0.1:0"}
    credentials = {"tokens": {"url": service.url}, "users": {USER: PASSWORD}}
    application = await serve(credentials=credentials, web=web)
    token = signed_token()
    assert application.rooms.problems == ["token keys unavailable"]
    await assert_refused(application, token, token, 500, "tls")
    await assert_relays(application, USER, PASSWORD)
    await service.start()
    async with asyncio.timeout(PATIENCE):
        while application.rooms.problems:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await assert_relays(application, token, token, "tls")


async def test_reload_keeps_what_it_does_not_change(serve: Serve, service: Service, shared_key: dict[str, Any]) -> None:
    application = await serve(credentials={**hook(service), **shared_key})
    before = application.rooms.identities.health
    token = shared_token()
    application.reload(changed(application, credentials={"users": {USER: "new"}, **hook(service), **shared_key}))
    assert application.rooms.identities.health == before
    await assert_relays(application, USER, "new")
    await assert_relays(application, token, rest_password(token))
    application.reload(changed(application, credentials=hook(service)))
    assert application.rooms.identities.health == before
    await assert_refused(application, token, rest_password(token), 401)


async def test_reload_lets_the_old_service_answer_what_it_was_asked(serve: Serve, service: Service) -> None:
    asked, let = asyncio.Event(), asyncio.Event()

    async def respond(request: Request) -> bytes:
        asked.set()
        await let.wait()
        return answer(200, {"password": PASSWORD})

    service.respond = respond  # type: ignore[method-assign]
    other = Service()
    await other.start()
    application = await serve(credentials=hook(service))
    client = await client_of(application, USER, PASSWORD)
    allocating = asyncio.ensure_future(client.allocate())
    await asked.wait()
    application.reload(changed(application, credentials=hook(other)))
    await assert_refused(application, USER, PASSWORD, 401)
    assert len(other.requests) == 1
    let.set()
    await allocating
    await client.close()
    await other.stop()


async def test_stopping_waits_for_no_service_that_says_nothing(serve: Serve, service: Service) -> None:
    """Neither for one that is used, nor for one that a reload has replaced."""
    asked = asyncio.Event()

    async def respond(request: Request) -> bytes:
        asked.set()
        await asyncio.sleep(10 * PATIENCE)
        return answer(200, {"password": PASSWORD})

    service.respond = respond  # type: ignore[method-assign]
    application = await serve(credentials=hook(service, timeout="30s"))
    client = await client_of(application, USER, PASSWORD)
    allocating = asyncio.ensure_future(client.allocate())
    await asked.wait()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = {"url": f"redis://127.0.0.1:{silent.getsockname()[1]}/0", "timeout": "60s"}
        application.reload(changed(application, credentials={"store": store}))
        await asyncio.sleep(0.05)
        started = asyncio.get_running_loop().time()
        await application.stop()
    assert asyncio.get_running_loop().time() - started < PATIENCE
    allocating.cancel()
    client.relayed = ()
    await client.close()


async def test_reload_without_anything_but_the_file_is_immediate_again(serve: Serve, service: Service) -> None:
    application = await serve(credentials={"users": {USER: PASSWORD}, **hook(service)})
    nobody = ("nobody", application.settings.realm, time.time(), Caller("192.0.2.1", secure=False))
    assert application.rooms.identities.source.find_now(*nobody) is None
    application.reload(changed(application, credentials={"users": {USER: PASSWORD}}))
    assert application.rooms.identities.source.find_now(*nobody) == ()
    await assert_relays(application, USER, PASSWORD)
    assert application.rooms.identities.health == ()


@pytest.mark.parametrize(
    ("credentials", "text"),
    [
        ({"tokens": {"keys": "none.pem"}}, r"credentials\.tokens\.keys: none\.pem: No such file"),
        ({"tokens": {"keys": os.devnull}}, r"credentials\.tokens\.keys: /dev/null: holds a shared key of less"),
        (
            {"tokens": {"url": "http://127.0.0.1:9/", "algorithms": ["none"]}},
            r"tokens\.algorithms: none is no algorithm",
        ),
        ({"hook": {"url": "https://127.0.0.1/", "secret": "s", "ca": "none.pem"}}, r"hook\.ca: none\.pem: No such"),
        ({"hook": {"url": "https://127.0.0.1/", "secret": "s", "ca": os.devnull}}, r"hook\.ca: /dev/null holds no"),
        ({"hook": {"url": "https://1.2.3.400/", "secret": "s"}}, r"credentials\.hook\.url: is no web address"),
        ({"tokens": {"url": "https://1.2.3.400/"}}, r"credentials\.tokens\.url: is no web address"),
        ({"store": "redis://127.0.0.1/x"}, r"credentials\.store\.url: has no number"),
    ],
)
async def test_what_cannot_serve_is_told_at_start_and_reload(serve: Serve, credentials: Any, text: str) -> None:
    with pytest.raises(StartError, match=text):
        await serve(credentials=credentials)
    application = await serve()
    before = application.settings
    with pytest.raises(StartError, match=text):
        application.reload(changed(application, credentials=credentials, realm="elsewhere"))
    assert application.settings is before
    await assert_relays(application, USER, PASSWORD)


@pytest.mark.parametrize(
    ("package", "credentials", "extra"),
    [
        ("httpx", {"hook": {"url": "https://127.0.0.1/", "secret": "s"}}, "hook"),
        ("jwt", {"tokens": {"url": "https://127.0.0.1/"}}, "tokens"),
        ("asyncpg", {"store": "postgresql://nobody@127.0.0.1/nothing"}, "postgresql"),
    ],
)
async def test_packages_that_are_missing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, package: str, credentials: Any, extra: str
) -> None:
    for name in ("hook", "http", "keyrings", "tokenkeys", "tokens"):
        monkeypatch.delitem(sys.modules, f"turnsvr.credentials.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StartError, match=rf"{package}.*not installed.*pip install 'turnsvr\[{extra}\]'"):
        await serve(credentials=credentials)


# Access tokens (RFC 7635)

NORTH = AccessTokenKey("north", bytes(range(32)))
UNION = AccessTokenKey("union", bytes(range(16)))


def settings_of(*keys: AccessTokenKey, **more: Any) -> dict[str, Any]:
    written = {each.kid: {"key": b64encode(each.key).decode(), "algorithm": each.algorithm} for each in keys}
    return {"oauth": {"keys": written, **more}}


def token_of(key: AccessTokenKey, lifetime: int = 3600, server_name: str = REALM) -> Login:
    mac_key = os.urandom(20)
    token = key.seal(Contents(mac_key, time.time(), lifetime), server_name, os.urandom(12))
    return Login(key.kid, "", token=AccessToken(token, mac_key))


async def bearer(application: Application, login: Login, transport: str = "udp") -> TurnClient:
    client = await client_of(application, "", "", transport)
    client.login = login
    return client


async def assert_bears(application: Application, login: Login, transport: str = "udp") -> None:
    client = await bearer(application, login, transport)
    await client.allocate()
    await client.permit(client.relayed[0])
    client.send(client.relayed[0], b"hello")
    assert await asyncio.wait_for(client.receive(), PATIENCE) == PeerData(client.relayed[0], b"hello")
    await client.refresh(0)
    await client.close()


async def assert_does_not_bear(application: Application, login: Login) -> None:
    client = await bearer(application, login)
    with pytest.raises(ClientError, match="401"):
        await client.allocate()
    await client.close()


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_access_tokens_over_each_transport(serve: Serve, transport: str) -> None:
    application = await serve(credentials={"users": {"carol": "christmas"}, **settings_of(NORTH, UNION)})
    for key in (NORTH, UNION):
        await assert_bears(application, token_of(key), transport)
    classic = replace(token_of(NORTH), security=Security.CLASSIC)
    await assert_bears(application, classic, transport)
    await assert_relays(application, "carol", "christmas", transport)


async def test_an_access_token_bounds_the_lifetime_and_is_shown_by_its_id(serve: Serve) -> None:
    application = await serve(credentials=settings_of(NORTH))
    login = token_of(NORTH, 300)
    client = await bearer(application, login)
    await client.allocate()
    assert 290 <= client.lifetime <= 300
    assert login.token is not None
    (allocation,) = application.server.allocations()
    assert allocation.shown == token_id("north", login.token.value)
    await client.close()


async def test_a_reload_rotates_the_keys_of_access_tokens(serve: Serve) -> None:
    application = await serve(credentials=settings_of(NORTH))
    await assert_does_not_bear(application, token_of(UNION))
    kept = await bearer(application, token_of(NORTH))
    await kept.allocate()
    application.reload(changed(application, credentials=settings_of(UNION, server_name="turn.example.org")))
    await assert_bears(application, token_of(UNION, server_name="turn.example.org"))
    await assert_does_not_bear(application, token_of(UNION))
    await assert_does_not_bear(application, token_of(NORTH, server_name="turn.example.org"))
    await kept.permit(kept.relayed[0])
    application.reload(changed(application, credentials={"users": {USER: PASSWORD}}))
    await assert_does_not_bear(application, token_of(UNION))
    await kept.close()


async def test_an_access_token_is_revoked(serve: Serve) -> None:
    application = await serve(credentials=settings_of(NORTH))
    login, other = token_of(NORTH), token_of(NORTH)
    client = await bearer(application, login)
    await client.allocate()
    (allocation,) = application.server.allocations()
    assert allocation.until is not None
    expiry = int(time.time() + allocation.until - time.monotonic())
    assert application.rooms.revocations.add(allocation.key.quota_user, time.time(), expiry=expiry)
    await assert_does_not_bear(application, login)
    assert application.rooms.identities.source.find_now("north", REALM, time.time(), bearing(login)) == ()
    assert application.rooms.identities.source.refusal("north", time.time()) is Refusal.REVOKED
    await assert_bears(application, other)
    await client.close()


def bearing(login: Login) -> Caller:
    assert login.token is not None
    return Caller("127.0.0.1", secure=False, token=login.token.value)


async def test_keys_of_access_tokens_from_a_store(serve: Serve, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'keys.sqlite'}"
    store = open_store(StoreUrl.parse(url), 10)
    await store.prepare()
    await store.set_key(replace(NORTH, realm="shop.example.org"))
    section = {"store": {"url": url, "poll": "1s"}}
    application = await serve(credentials={**section, "oauth": {}})
    client = await bearer(application, token_of(NORTH))
    await client.allocate()
    (allocation,) = application.server.allocations()
    assert allocation.realm == "shop.example.org", "the realm of the key's row is served"
    await client.close()
    await store.remove_key("north")
    await store.set_key(UNION)
    async with asyncio.timeout(PATIENCE):
        while "union" not in application.rooms.identities.tables.keys:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await assert_bears(application, token_of(UNION))
    await assert_does_not_bear(application, token_of(NORTH))
    application.reload(changed(application, credentials=section))
    source = application.rooms.identities.source
    assert source.find_now("union", REALM, time.time(), bearing(token_of(UNION))) in (None, ())
    await store.close()
