"""What waits in the service manager: taken up whole, or not at all and then nothing of it stays open."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.app.handover.keeping import Keeper, open_descriptors, put_together, raw, take_apart
from tests.app.handover.rig import Flow
from tests.app.handover.test_upgrade import a_call, ended, talks
from tests.conftest import PASSWORD, PATIENCE, USER, free_port
from turnsvr.app.application import Application
from turnsvr.app.errors import StartError
from turnsvr.app.handover import document, records, store
from turnsvr.app.handover.found import find
from turnsvr.app.handover.store import NAME, HostTime, StoredTaker
from turnsvr.config.settings import Settings
from turnsvr.relay import PumpKind
from turnsvr.stun.address import Address
from turnsvr.stun.framing import pack_channel_data
from turnsvr.turn.snapshot import Unreadable

SNAPSHOT = Path(__file__).parent / "snapshots" / "v1.jsonl"


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    keeper = Keeper()
    yield keeper
    keeper.close()


class Place:
    """Where one server after another serves."""

    def __init__(self, kind: str = "auto") -> None:
        self.port = self.tls_port = free_port()
        self.kind = kind
        self._started: list[Application] = []

    async def start(self, taker: StoredTaker | None = None, **sections: Any) -> Application:
        usual: dict[str, Any] = {
            "realm": "example.org",
            "listen": [f"udp://127.0.0.1:{self.port}", f"tcp://127.0.0.1:{self.port}"],
            "relay": {"addresses": ["127.0.0.1"]},
            "credentials": {"users": {USER: PASSWORD}},
            "peers": {"allow": ["127.0.0.1"]},
            "admin": {"socket": "off"},
            "pump": {"kind": self.kind},
        }
        application = Application(Settings.model_validate(usual | sections))
        await application.start(taker)
        self._started.append(application)
        return application

    async def close(self) -> None:
        for application in self._started:
            await application.stop()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    yield place
    await place.close()


async def leave(application: Application, keeper: Keeper) -> int:
    """End a server as for a restart; returns what is kept, which is the caller's."""
    await application.leave(keeper)
    await application.stop()
    [kept] = keeper.kept.pop(NAME)
    return kept


def taken(kept: int) -> StoredTaker:
    found, names = find({NAME: [kept]})
    assert names == [NAME]
    assert found is not None
    return found


async def test_sessions_go_on_in_the_next_server(place: Place, pump_kind: PumpKind, keeper: Keeper) -> None:
    place.kind = pump_kind
    first = await place.start()
    client, peer = await a_call(place)
    kept = await leave(first, keeper)
    assert len(first.server) == 0
    second = await place.start(taken(kept))
    assert len(second.server) == 1
    await talks(client, peer, b"after")
    await ended(client, peer)


async def test_a_session_has_one_name_in_both_servers(place: Place, keeper: Keeper, tmp_path: Path) -> None:
    """In records of its use and in Redis, where whoever adds up goes by it."""
    records = tmp_path / "usage.jsonl"
    sections: dict[str, Any] = {"usage": {"file": records}, "status": {"redis": "redis://127.0.0.1:1/"}}
    first = await place.start(**sections)
    client, peer = await a_call(place)
    assert first.rooms.accounting is not None
    assert first.rooms.session_status is not None
    await first.rooms.accounting.usage.tell_live()
    keys = {each.name for each in first.rooms.session_status._sessions.values()}
    second = await place.start(taken(await leave(first, keeper)), **sections)
    assert second.rooms.session_status is not None
    assert keys == {each.name for each in second.rooms.session_status._sessions.values()}
    await client.refresh(0)
    await asyncio.sleep(0)
    early, late = map(json.loads, records.read_text().splitlines())
    assert (early["kind"], late["kind"]) == ("interim", "end")
    assert early["session"] == late["session"]
    assert early["id"] != late["id"]
    await ended(client, peer)


@pytest.mark.parametrize("run", [None, 7, "", "0123456789a", "0123456789AB", "0123456789abc", "g" * 12])
async def test_a_run_of_no_name_is_not_understood(place: Place, keeper: Keeper, run: object) -> None:
    said = take_apart(await leave(await place.start(), keeper))
    for message, _ in said:
        if message["kind"] == "rules":
            message["others"]["run"] = run
    assert "run is no" in await refused(await put_together(said))


async def test_a_frame_that_is_half_there_is_completed_after_the_restart(
    place: Place, pump_kind: PumpKind, keeper: Keeper
) -> None:
    place.kind = pump_kind
    first = await place.start()
    client = await Flow.client_of(place, "tcp")
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.setblocking(False)
    peer.bind(("127.0.0.1", 0))
    await client.bind_channel(Address(*peer.getsockname()), 0x4000)
    frame = pack_channel_data(0x4000, b"in two parts", padded=True)
    transport = client.link._socket  # type: ignore[attr-defined]
    transport.write(frame[:7])
    await asyncio.sleep(0.2)
    kept = await leave(first, keeper)
    await place.start(taken(kept))
    transport.write(frame[7:])
    async with asyncio.timeout(PATIENCE):
        assert (await asyncio.get_running_loop().sock_recvfrom(peer, 100))[0] == b"in two parts"
    await ended(client, peer)


async def test_deadlines_that_have_passed_meanwhile_have_passed(place: Place, keeper: Keeper) -> None:
    """Of a session, and of a permission alone."""
    first = await place.start()
    (late, its_peer), (client, peer), (silent, its_other) = [await a_call(place) for _ in range(3)]
    said = take_apart(await leave(first, keeper))
    [sessions] = [message["are"] for message, _ in said if message["kind"] == "sessions"]
    passed = time.monotonic() - 1
    for relayed in sessions[0]["allocation"]["relayed"]:
        relayed[2] = passed
    for permission in sessions[2]["allocation"]["permissions"]:
        permission[1] = passed
    for channel in sessions[2]["allocation"]["channels"]:
        channel[3] = passed
    second = await place.start(taken(await put_together(said)))
    async with asyncio.timeout(PATIENCE):
        while len(second.server) > 2:  # noqa: ASYNC110 - the timer tells nobody
            await asyncio.sleep(0.01)
    await talks(client, peer, b"goes on")
    for each, others in ((late, its_peer), (silent, its_other)):
        others.sendto(b"too late", each.relayed[0])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(each.receive(), 0.2)
        await ended(each, others)
    await ended(client, peer)


async def test_a_manager_that_keeps_nothing_has_sessions_end(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    for keeper, reason in ((Keeper(most=0), "keeps nothing"), (Keeper(answers=False), "does not answer")):
        application = await place.start()
        client, peer = await a_call(place)
        await application.leave(keeper)
        assert len(application.server) == 1
        await application.stop()
        keeper.close()
        said = capfd.readouterr()
        assert reason in said.out + said.err
        await ended(client, peer)


async def test_what_has_no_room_ends_and_the_rest_goes_on(
    place: Place, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket pair takes some thousands of messages; here it takes a few."""
    monkeypatch.setattr(store, "_BUFFER", 1)
    monkeypatch.setattr(document, "SESSIONS_AT_ONCE", 1)
    first = await place.start()
    calls = [await a_call(place) for _ in range(12)]
    await first.leave(keeper)
    left = len(first.server)
    assert 0 < left < 12
    await first.stop()
    second = await place.start(taken(keeper.kept.pop(NAME)[0]))
    assert len(second.server) == 12 - left
    for client, peer in calls[: 12 - left]:
        await talks(client, peer, b"after")
    for client, peer in calls:
        await ended(client, peer)


# What is not taken up


def written(**changes: Any) -> tuple[bytes, list[int]]:
    """A snapshot as the sample has it, and how many descriptors its messages have."""
    messages = [json.loads(line) for line in SNAPSHOT.read_text().splitlines()]
    counts = [each.pop("descriptors", 0) for each in messages]
    moment = HostTime.now().write() | {name: value for name, value in changes.items() if name != "version"}
    messages = [moment, *messages, {"kind": "go"}, {"kind": "left"}]
    if "version" in changes:
        messages[1]["version"] = changes["version"]
    counts = [0, *counts, 0, 0]
    data = b"".join(records.pack(each, count) for each, count in zip(messages, counts, strict=True))
    return data, [count for count in counts if count]


async def refused(kept: int) -> str:
    """Why it is not taken up; nothing of it is open afterwards."""
    before = open_descriptors() - {kept}
    taker = taken(kept)
    with pytest.raises(StartError) as raised:
        await taker.read()
    taker.discard()
    assert open_descriptors() == before
    return str(raised.value)


def sockets(counts: list[int]) -> list[list[int]]:
    return [[socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach() for _ in range(count)] for count in counts]


def close(messages: list[list[int]]) -> None:
    for each in messages:
        for descriptor in each:
            os.close(descriptor)


async def test_the_sample_is_read_and_can_be_discarded() -> None:
    data, counts = written()
    messages = sockets(counts)
    kept = raw(data, messages)
    close(messages)
    before = open_descriptors() - {kept}
    taker = taken(kept)
    await taker.read()
    assert len(taker._sessions) == 2
    assert taker.staying == []
    taker.discard()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 7}, "version 7 is not understood here"),
        ({"boot": "another"}, "another run of this machine"),
        ({"monotonic": time.monotonic() + 1e6}, "a time to come"),
        ({"since_boot": time.monotonic() - 3600}, "has slept"),
        ({"boot": None}, "boot is no text"),
        ({"more": 1}, "'more' is not known here"),
    ],
)
async def test_what_means_something_else_here_is_not_taken_up(changes: dict[str, Any], reason: str) -> None:
    data, counts = written(**changes)
    messages = sockets(counts)
    kept = raw(data, messages)
    close(messages)
    assert reason in await refused(kept)


async def test_what_is_cut_off_is_not_taken_up() -> None:
    """At every record, and in the middle of each part of one."""
    data, _ = written()
    at, cuts = 0, [0]
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        cuts += [at + 1, at + 5, at + 8, at + 11, at + 10 + size // 2]
        at += 10 + size
        cuts.append(at)
    for cut in cuts[:-1]:
        assert "not written it to its end" in (said := await refused(raw(data[:cut], []))) or "record" in said, cut


async def test_what_is_damaged_is_not_taken_up() -> None:
    data, _ = written()
    for at in range(0, len(data), 41):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        assert "record" in await refused(raw(bytes(damaged), [])), at


async def test_without_its_sockets_it_is_not_taken_up() -> None:
    """Messages that are not there, one that has fewer than it should, and a second reader of the same descriptor."""
    data, counts = written()
    for at in range(len(counts)):
        messages = sockets(counts[:at])
        kept = raw(data, messages)
        assert "sockets" in await refused(kept)
        close(messages)
        if counts[at] > 1:
            messages = sockets([*counts[:at], counts[at] - 1, *counts[at + 1 :]])
            kept = raw(data, messages)
            assert "sockets" in await refused(kept)
            close(messages)
    messages = sockets(counts)
    kept = raw(data, messages)
    close(messages)
    again = os.dup(kept)
    taker = taken(kept)
    await taker.read()
    taker.discard()
    assert "sockets are not there" in await refused(again)


def test_what_is_no_socket_pair_is_not_taken_up() -> None:
    ours, its = os.pipe()
    os.close(its)
    assert find({NAME: [ours]}) == (None, [NAME])
    assert ours not in open_descriptors()


async def test_a_server_that_cannot_take_it_up_leaves_nothing_open(place: Place, keeper: Keeper) -> None:
    """Found out when the rooms are half built: two sessions of one number. The next one starts with nothing."""
    first = await place.start()
    calls = [await a_call(place) for _ in range(2)]
    said = take_apart(await leave(first, keeper))
    [sessions] = [message["are"] for message, _ in said if message["kind"] == "sessions"]
    sessions[1]["allocation"]["number"] = sessions[0]["allocation"]["number"]
    kept = await put_together(said)
    before = open_descriptors() - {kept}
    taker = taken(kept)
    with pytest.raises(StartError, match="two allocations"):
        await place.start(taker)
    taker.discard()
    assert open_descriptors() == before
    second = await place.start()
    assert len(second.server) == 0
    for client, peer in calls:
        await ended(client, peer)


def test_other_names_are_left_alone_and_those_of_other_versions_are_closed() -> None:
    one, other, theirs = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    found = find({NAME: [], "turnsvr-of-9.0": [one, other], "": [theirs]})
    assert found == (None, [NAME, "turnsvr-of-9.0"])
    assert theirs in open_descriptors()
    assert not {one, other} & open_descriptors()
    os.close(theirs)


def test_moments() -> None:
    then = HostTime("boot", 100.0, 150.0)
    then.check(HostTime("boot", 130.0, 180.2))
    for now in (replace(then, boot=""), replace(then, monotonic=99.0), HostTime("boot", 130.0, 190.0)):
        with pytest.raises(Unreadable):
            then.check(now)
