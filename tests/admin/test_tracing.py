"""What a client asks and is answered, followed over the admin interface: real clients over every transport."""

from __future__ import annotations

import asyncio
import base64
import secrets
from typing import Any

import pytest

from tests.admin.conftest import Site, StartAdmin
from tests.conftest import PASSWORD, PATIENCE, USER, address_of
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import AllocateOptions, TurnClient
from turnsvr.credentials import shared_secret
from turnsvr.net.tracing import traces
from turnsvr.relay import PumpKind, refuses_dtls
from turnsvr.stun.address import Address
from turnsvr.stun.message import Message

SECRET = "north of the wall"


async def begin(site: Site, **wanted: Any) -> int:
    answer = await site.http.post("/traces", params=wanted)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


async def read(site: Site, number: int, count: int, **query: Any) -> list[Any]:
    """So many events, and no more."""
    events: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while len(events) < count:
            page = await site.get(f"/traces/{number}", raw="true", **query)
            assert page["left_out"] == 0
            events += page["events"]
            assert page["events"] or not page["ended"], page["ended"]
    assert not (await site.get(f"/traces/{number}", wait=0))["events"]
    assert len(events) == count, [(each["method"], each["kind"]) for each in events]
    return events


def heads(events: list[Any]) -> list[str]:
    found = []
    for each in events:
        error = next((a["value"] for a in each["attributes"] if a["name"] == "ERROR-CODE"), "")
        found.append(f"{'>' if each['from_client'] else '<'} {each['method']} {each['kind']} {error}".strip())
    return found


def value(event: Any, name: str) -> str:
    (found,) = (each["value"] for each in event["attributes"] if each["name"] == name)
    return str(found)


ALLOCATED = [
    "> Allocate request",
    "< Allocate error 401 Unauthenticated",
    "> Allocate request",
    "< Allocate success",
]


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "dtls"])
async def test_all_of_a_client_at_an_address(start_admin: StartAdmin, pump_kind: PumpKind, transport: str) -> None:
    """Also what the pump would answer by itself."""
    if transport == "dtls" and (reason := refuses_dtls(pump_kind)):
        pytest.skip(reason)
    site = await start_admin(listen=[f"{transport}://127.0.0.1:0"], pump={"kind": pump_kind})
    number = await begin(site, client="127.0.0.1")
    client = await site.client(transport)
    await client.binding()
    with pytest.raises(TransactionFailed):
        await client.permit(Address("10.1.2.3", 1))
    events = await read(site, number, 8)
    assert heads(events) == [
        *ALLOCATED,
        "> Binding request",
        "< Binding success",
        "> CreatePermission request",
        "< CreatePermission error 403 Forbidden",
    ]
    assert [each["proven"] for each in events] == [None, None, None, True, None, None, None, True]
    assert [each["session"] for each in events] == [None, None, None, *[events[3]["session"]] * 5]
    assert {each["transport"] for each in events} == {transport}
    assert {each["client"] for each in events} == {str(client.link.local)}
    assert {each["server"] for each in events} == {str(address_of(site.application, transport))}
    assert value(events[2], "USERNAME") == USER
    assert value(events[2], "REQUESTED-TRANSPORT") == "UDP"
    assert value(events[2], "MESSAGE-INTEGRITY-SHA256") == "present"
    assert value(events[3], "XOR-RELAYED-ADDRESS") == str(client.relayed[0])
    assert value(events[3], "LIFETIME") == "600 s"
    assert value(events[6], "XOR-PEER-ADDRESS").startswith("10.1.2.3:")
    assert [each["at"] for each in events] == sorted(each["at"] for each in events)


async def test_a_user_from_before_they_say_who_they_are(start_admin: StartAdmin) -> None:
    """Over a stream the challenge comes from the rules, and belongs to whoever answers it."""
    site = await start_admin(listen=["tcp://127.0.0.1:0"], credentials={"users": {USER: PASSWORD}, "secret": SECRET})
    name = f"2000000000:{USER}"
    password = shared_secret.password_of(SECRET.encode(), name)
    number = await begin(site, user=USER)
    await site.client("tcp", Login(name, password))
    events = await read(site, number, 4)
    assert heads(events) == ALLOCATED
    assert value(events[2], "USERNAME") == name
    with pytest.raises(TransactionFailed):
        await site.client("tcp", Login("bob", "builder"))
    assert not (await site.get(f"/traces/{number}", wait=0))["events"]
    with pytest.raises(TransactionFailed):
        await site.client("tcp", Login(USER, "wrong"))
    events = await read(site, number, 4)
    assert [each["proven"] for each in events] == [None, None, None, False]
    assert heads(events)[3] == "< Allocate error 401 Unauthenticated"


async def test_a_session_to_its_end(start_admin: StartAdmin, pump_kind: PumpKind) -> None:
    site = await start_admin(pump={"kind": pump_kind})
    client, other = await site.client(), await site.client()
    session = (await site.get("/sessions", client=str(client.link.local)))["sessions"][0]["id"]
    number = await begin(site, session=session)
    await other.refresh()
    await client.refresh(0)
    page = await site.get(f"/traces/{number}")
    assert heads(page["events"]) == ["> Refresh request", "< Refresh success"]
    assert {each["session"] for each in page["events"][:1]} == {session}
    assert page["ended"] == "the session has ended"
    assert (await site.http.get(f"/traces/{number}")).status_code == 404


async def test_a_session_that_moves(start_admin: StartAdmin) -> None:
    """Its ticket is as good as a password, once: nobody sees it."""
    site = await start_admin(stun={"mobility": True})
    client = await site.client(options=AllocateOptions(mobile=True))
    session = (await site.get("/sessions"))["sessions"][0]["id"]
    number = await begin(site, session=session)
    await (await client.move(await DatagramLink.open(address_of(site.application, "udp")))).close()
    events = await read(site, number, 4)  # a nonce is for one address
    assert value(events[2], "MOBILITY-TICKET").endswith("bytes, not shown")
    for each in events[2:]:
        held = base64.b64decode(each["bytes"])
        assert bytes(32) in held
        Message.parse(held)


async def test_packets_of_a_session(start_admin: StartAdmin, pump_kind: PumpKind) -> None:
    site = await start_admin(pump={"kind": pump_kind})
    one, other = await site.client(), await site.client()
    await one.bind_channel(other.relayed[0], 0x4000)
    await other.permit(one.relayed[0])
    session = (await site.get("/sessions", client=str(one.link.local)))["sessions"][0]["id"]
    without = await begin(site, session=session)
    number = await begin(site, session=session, data=True)
    one.send_channel(0x4000, b"there")
    assert (await other.receive()).data == b"there"  # type: ignore[union-attr]
    other.send(one.relayed[0], b"and back")
    assert (await one.receive()).data == b"and back"  # type: ignore[union-attr]
    events = await read(site, number, 2)
    assert [(each["what"], each["from_client"], base64.b64decode(each["bytes"])) for each in events] == [
        ("packet", True, b"there"),
        ("packet", False, b"and back"),
    ]
    assert {(each["relayed"], each["peer"]) for each in events} == {(str(one.relayed[0]), str(other.relayed[0]))}
    assert not (await site.get(f"/traces/{without}", wait=0))["events"]


async def test_no_secret_leaves(start_admin: StartAdmin) -> None:
    site = await start_admin()
    number = await begin(site, client="127.0.0.1")
    await site.client()
    events = await read(site, number, 4)
    assert bytes(32) in base64.b64decode(events[2]["bytes"])  # where MESSAGE-INTEGRITY-SHA256 was


async def test_few_at_once_and_none_that_nobody_reads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = site.application.rooms.engine
    assert engine.observer is None
    numbers = [await begin(site, user=secrets.token_hex(4)) for _ in range(traces.MAX_TRACES)]
    refused = await site.http.post("/traces", params={"user": "one more"})
    assert refused.status_code == 409
    for number in numbers[1:]:
        assert (await site.http.delete(f"/traces/{number}")).json() == {"closed": 1}
    assert engine.observer is not None
    assert (await site.http.delete(f"/traces/{numbers[0]}")).json() == {"closed": 1}
    assert engine.observer is None
    monkeypatch.setattr(traces, "_UNREAD", 0.05)
    number = await begin(site, user=USER)
    async with asyncio.timeout(PATIENCE):
        while engine.observer is not None:  # noqa: ASYNC110 - a timer tells nobody
            await asyncio.sleep(0.01)
    assert (await site.http.get(f"/traces/{number}")).status_code == 404


async def test_its_time_is_over(site: Site) -> None:
    number = await begin(site, user=USER, seconds=0.05)
    page = await site.get(f"/traces/{number}", wait=5)
    assert page["ended"] == "its time is over"
    assert site.application.rooms.engine.observer is None


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({}, 400),
        ({"user": "a", "session": 1}, 400),
        ({"session": 999}, 404),
        ({"client": "nowhere"}, 400),
        ({"user": "a", "seconds": 1e9}, 400),
        ({"usr": "a"}, 400),
    ],
)
async def test_what_means_nothing_is_refused(site: Site, wanted: dict[str, Any], status: int) -> None:
    answer = await site.http.post("/traces", params=wanted)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert site.application.rooms.engine.observer is None


async def test_the_server_ends_while_somebody_traces(site: Site) -> None:
    await begin(site, client="127.0.0.1", data=True)
    client = TurnClient(await DatagramLink.open(address_of(site.application, "udp")), Login(USER, PASSWORD))
    await client.allocate()
    await client.close()
    await site.application.stop()
