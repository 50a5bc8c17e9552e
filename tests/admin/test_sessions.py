"""Sessions as the admin interface shows and ends them: a real server, real clients, real packets."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from typing import Any

import pytest

from tests.admin.conftest import Site, StartAdmin
from tests.conftest import PASSWORD, PATIENCE, USER, address_of
from turnsvr.client.credentials import Login
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TCP_PROTOCOL, AllocateOptions, TurnClient
from turnsvr.credentials import shared_secret
from turnsvr.relay import refuses_dtls
from turnsvr.stun.address import Address

SECRET = "north of the wall"


async def only(site: Site) -> Any:
    """The only session, with all that is known of it."""
    page = await site.get("/sessions", detail="true")
    assert page["total"] == 1
    assert page["next"] is None
    return page["sessions"][0]


@pytest.fixture
async def pair(site: Site) -> tuple[TurnClient, TurnClient]:
    """Two clients that may send to each other's relays, the first on channel 0x4000."""
    one, other = await site.client(), await site.client()
    await one.bind_channel(other.relayed[0], 0x4000)
    await one.permit(other.relayed[0])
    await other.permit(one.relayed[0])
    return one, other


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "dtls"])
async def test_a_session_tells_who_where_and_until_when(start_admin: StartAdmin, transport: str) -> None:
    if transport == "dtls" and (reason := refuses_dtls("auto")):
        pytest.skip(reason)
    site = await start_admin(listen=[f"{transport}://127.0.0.1:0"])
    client = await site.client(transport)
    session = await only(site)
    assert session["user"] == session["quota_user"] == USER
    assert session["realm"] == "example.org"
    assert session["transport"] == transport
    assert session["client"] == str(client.link.local)
    assert session["server"] == str(address_of(site.application, transport))
    assert session["relayed"] == [str(each) for each in client.relayed]
    assert 0 <= session["age"] < PATIENCE
    assert client.lifetime - PATIENCE < session["remaining"] <= client.lifetime
    assert session["pump"] == site.application.pump.name
    pump = site.application.pump
    in_pump = {"udp": True, "tcp": pump.name == "compiled", "tls": pump.takes_tls, "dtls": True}
    assert session["reader"] == ("pump" if in_pump[transport] else "asyncio")
    assert session["permissions"] == session["channels"] == []


async def test_the_portable_pump_leaves_streams_to_asyncio(start_admin: StartAdmin) -> None:
    site = await start_admin(pump={"kind": "portable"})
    await site.client("tcp")
    session = await only(site)
    assert (session["pump"], session["reader"]) == ("portable", "asyncio")


async def test_permissions_and_channels_count_down(site: Site) -> None:
    client = await site.client()
    await client.permit(Address("8.8.4.1", 1), Address("8.8.4.2", 1))
    await client.bind_channel(Address("8.8.4.3", 7), 0x4321)
    session = await only(site)
    assert {each["peer"] for each in session["permissions"]} == {"8.8.4.1", "8.8.4.2", "8.8.4.3"}
    for each in session["permissions"]:
        lifetime = 600 if each["peer"] == "8.8.4.3" else 300  # a channel permits its peer for as long as it lives
        assert lifetime - PATIENCE < each["remaining"] <= lifetime
    (channel,) = session["channels"]
    assert (channel["number"], channel["peer"]) == (0x4321, "8.8.4.3:7")
    assert 600 - PATIENCE < channel["remaining"] <= 600
    (brief,) = (await site.get("/sessions"))["sessions"]
    assert (brief["permission_count"], brief["channel_count"]) == (3, 1)
    assert brief["permissions"] is brief["channels"] is None
    assert (await site.get(f"/sessions/{session['id']}"))["channels"][0]["peer"] == "8.8.4.3:7"


async def test_connections_to_peers_are_told_of(start_admin: StartAdmin) -> None:
    site = await start_admin(
        relay={"addresses": ["127.0.0.1"], "tcp": True},
        listen=["udp://127.0.0.1:0", "tcp://127.0.0.1:0"],
        peers={"allow": ["127.0.0.1"]},
    )
    client = await site.client("tcp", options=AllocateOptions(transport=TCP_PROTOCOL))
    with socket.create_server(("127.0.0.1", 0)) as peer:
        address = Address(*peer.getsockname())
        await client.connect(address)
        session = await only(site)
        assert (session["relay"], session["connection_count"]) == ("tcp", 1)
        assert session["connections"] == [{"peer": str(address), "stage": "unbound", "client": None}]
        assert (await site.get("/status"))["peer_connections"] == 1
        (brief,) = (await site.get("/sessions"))["sessions"]
        assert (brief["connection_count"], brief["connections"]) == (1, None)


async def test_what_is_relayed_is_counted_each_way(site: Site, pair: tuple[TurnClient, TurnClient]) -> None:
    one, other = pair
    for _ in range(3):
        one.send_channel(0x4000, b"u" * 100)
        await asyncio.wait_for(other.receive(), PATIENCE)
    other.send(one.relayed[0], b"d" * 40)
    await asyncio.wait_for(one.receive(), PATIENCE)
    first, second = (await site.get("/sessions"))["sessions"]
    for session, up, down in ((first, (3, 300), (1, 40)), (second, (1, 40), (3, 300))):
        traffic = session["traffic"]
        assert (traffic["from_client"]["packets"], traffic["from_client"]["bytes"]) == up
        assert (traffic["to_client"]["packets"], traffic["to_client"]["bytes"]) == down
    status = await site.get("/status")
    assert status["relayed"]["from_client"]["packets"] == 4


async def test_rates_are_those_of_now(site: Site, pair: tuple[TurnClient, TurnClient]) -> None:
    """100 packets a second of 250 bytes, measured while they flow, then silence."""
    one, _ = pair
    stopped, sent = asyncio.Event(), 0

    async def flow() -> float:
        nonlocal sent
        began = time.monotonic()
        while not stopped.is_set():
            one.send_channel(0x4000, b"x" * 250)
            sent += 1
            await asyncio.sleep(0.01)
        return sent / (time.monotonic() - began)

    flowing = asyncio.create_task(flow())
    await asyncio.sleep(0.3)
    measured = []
    for _ in range(3):
        measured.append((await site.get("/sessions/1"))["traffic"]["from_client"])
        await asyncio.sleep(0.6)
    stopped.set()
    true = await flowing
    for rate in measured:
        assert true / 2 < rate["packets_per_second"] < true * 2
        assert rate["bits_per_second"] == pytest.approx(rate["packets_per_second"] * 250 * 8, rel=0.02)
    await asyncio.sleep(0.6)
    await site.get("/sessions")
    await asyncio.sleep(0.6)
    assert (await site.get("/sessions/1"))["traffic"]["from_client"]["packets_per_second"] == 0


async def test_a_session_that_is_ended_is_gone_for_its_client(site: Site) -> None:
    client, other = await site.client(), await site.client("tcp")
    assert (await site.http.delete("/sessions/1")).json() == {"ended": 1, "revoked": 0}
    with pytest.raises(TransactionFailed, match="437"):
        await client.refresh(300)
    await other.refresh(300)
    answer = await site.http.delete("/sessions/1")
    assert (answer.status_code, answer.json()) == (404, {"error": "there is no session 1"})
    assert (await site.http.get("/sessions/1")).status_code == 404
    assert (await only(site))["id"] == 2


async def test_all_sessions_of_a_user_end_under_load(site: Site, pair: tuple[TurnClient, TurnClient]) -> None:
    one, _ = pair
    for _ in range(200):
        one.send_channel(0x4000, b"x" * 1000)
    answer = await site.http.delete("/sessions", params={"user": USER})
    assert answer.json() == {"ended": 2, "revoked": 0}
    for client in pair:
        with pytest.raises(TransactionFailed, match="437"):
            await client.refresh(300)
    sessions = (await site.get("/status"))["sessions"]
    assert (sessions["now"], sessions["started"]["udp"], sessions["ended"]["revoked"]) == (0, 2, 2)


def timed(user: str, ttl: float = 3600) -> Login:
    return Login(*shared_secret.make(SECRET, user, ttl, time.time()))


async def test_time_limited_names_are_ended_by_the_name_they_count_by_and_refused(start_admin: StartAdmin) -> None:
    site = await start_admin(credentials={"secret": SECRET})
    first, second, other = timed("alice"), timed("alice", 1800), timed("bob")
    await site.client(login=first)
    await site.client(login=second)
    bob = await site.client(login=other)
    assert {each["quota_user"] for each in (await site.get("/sessions"))["sessions"]} == {"alice", "bob"}
    answer = await site.http.delete("/sessions", params={"user": "alice", "revoke": "true"})
    assert answer.json() == {"ended": 2, "revoked": 2}
    for login in (first, second):
        with pytest.raises(TransactionFailed, match="401"):
            await site.client(login=login)
    await site.client(login=timed("alice", 900))
    await bob.refresh(300)


async def test_sessions_end_also_where_the_user_cannot_be_refused_and_the_answer_says_so(site: Site) -> None:
    client = await site.client()
    answer = await site.http.delete("/sessions", params={"user": USER, "revoke": "true"})
    assert (answer.status_code, answer.json()) == (200, {"ended": 1, "revoked": 0, "not_revoked": [USER]})
    with pytest.raises(TransactionFailed, match="437"):
        await client.refresh(300)
    again = await site.http.delete("/sessions", params={"user": USER, "revoke": "true"})
    assert again.status_code == 409


async def test_of_one_user_the_time_limited_names_are_refused_and_the_static_one_is_named(
    start_admin: StartAdmin,
) -> None:
    site = await start_admin(credentials={"secret": SECRET, "users": {USER: PASSWORD}})
    await site.client()
    await site.client(login=timed(USER))
    answer = await site.http.delete("/sessions", params={"user": USER, "revoke": "true"})
    assert answer.json() == {"ended": 2, "revoked": 1, "not_revoked": [USER]}


async def test_one_realm_s_sessions_of_a_user_end(start_admin: StartAdmin) -> None:
    site = await start_admin(
        realms={"example.net": {"credentials": {"users": {USER: PASSWORD}}, "listen": "tcp://127.0.0.1:0"}}
    )
    await site.client()
    assert (await site.get("/sessions", realm="example.org"))["total"] == 1
    assert (await site.get("/sessions", realm="example.net"))["total"] == 0
    answer = await site.http.delete("/sessions", params={"user": USER, "realm": "example.net"})
    assert answer.json()["ended"] == 0
    answer = await site.http.delete("/sessions", params={"user": USER, "realm": "example.org"})
    assert answer.json()["ended"] == 1


async def test_lists_are_filtered(site: Site) -> None:
    one, other = await site.client(), await site.client("tcp")
    await one.permit(Address("8.8.4.9", 1))
    await other.bind_channel(Address("8.8.4.8", 99))

    async def found(**query: Any) -> list[int]:
        return [each["id"] for each in (await site.get("/sessions", **query))["sessions"]]

    assert await found() == [1, 2]
    assert await found(user=USER) == [1, 2]
    assert await found(user="bob") == []
    assert await found(client="127.0.0.1") == [1, 2]
    assert await found(client=str(other.link.local)) == [2]
    assert await found(relayed=str(one.relayed[0])) == [1]
    assert await found(peer="8.8.4.9") == [1]
    assert await found(peer="8.8.4.8:99") == [2]
    assert await found(peer="8.8.4.8:98") == []
    assert await found(search="TCP") == [2]
    assert await found(search=f":{one.relayed[0].port}") == [1]
    assert await found(user=USER, peer="8.8.4.9", client=str(other.link.local)) == []
    assert await found(sort="-id") == [2, 1]
    assert await found(sort="age") == [2, 1]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"client": "nowhere"}, "is no address"),
        ({"peer": "[::1"}, "is no address"),
        ({"sort": "size"}, "sort"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"cursor": "abc"}, "cursor"),
        ({"user": "u" * 2000}, "user"),
    ],
)
async def test_what_means_nothing_is_refused_in_one_sentence(site: Site, query: dict[str, str], said: str) -> None:
    answer = await site.http.get("/sessions", params=query)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


async def test_two_thousand_sessions_are_paged(start_admin: StartAdmin) -> None:
    many = 2000
    _allow_files(3 * many)
    site = await start_admin(limits={"allocations_per_user": many, "answers_per_address": 0})
    for _ in range(many // 50):
        await asyncio.gather(*(site.client() for _ in range(50)))
    seen: list[int] = []
    cursor: str | None = None
    while True:
        query = {"limit": "300"} if cursor is None else {"limit": "300", "cursor": cursor}
        page = await site.get("/sessions", **query)
        assert page["total"] == many - (0 if cursor is None else 1)
        seen += [each["id"] for each in page["sessions"]]
        if cursor is None:
            assert (await site.http.delete("/sessions/2")).status_code == 200  # seen already: nothing moves
        cursor = page["next"]
        if cursor is None:
            break
        assert len(page["sessions"]) == 300
    assert seen == list(range(1, many + 1))
    page = await site.get("/sessions", search=site.clients[777].relayed[0].port, sort="-rate")
    assert any(str(site.clients[777].relayed[0]) in each["relayed"] for each in page["sessions"])
    ended = await site.http.delete("/sessions", params={"user": USER})
    assert ended.json()["ended"] == many - 1
    for client in site.clients:
        client.relayed = ()


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard < wanted:
            pytest.skip(f"only {hard} open files are allowed here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def test_hostile_names_come_through_as_they_are(start_admin: StartAdmin) -> None:
    name = 'a"}\n\x1b[2J<script>\u202e'
    site = await start_admin(credentials={"secret": SECRET})
    await site.client(login=timed(name))
    session = await only(site)
    assert session["quota_user"] == name
    assert session["user"].endswith(f":{name}")
    assert (await site.get("/sessions", user=name))["total"] == 1


async def test_a_peer_gets_nothing_after_the_session_has_ended(site: Site) -> None:
    client = await site.client()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        address = Address(*peer.getsockname())
        channel = await client.bind_channel(address)
        client.send_channel(channel, b"before")
        loop = asyncio.get_running_loop()
        assert (await asyncio.wait_for(loop.sock_recvfrom(peer, 100), PATIENCE))[0] == b"before"
        await site.http.delete("/sessions/1")
        client.send_channel(channel, b"after")
        with pytest.raises(TransactionFailed):
            await client.refresh(300)
        with pytest.raises(BlockingIOError):
            peer.recv(100)
