"""What a crash leaves: calls that go on, and never more than there was."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.app.handover.keeping import Keeper, open_descriptors
from tests.app.handover.manager import Manager
from tests.app.handover.rig import Flow, off_loop
from tests.app.handover.test_store import Place
from tests.app.handover.test_upgrade import a_call, ended, talks
from turnsvr.app.handover import records
from turnsvr.app.handover.found import find
from turnsvr.app.handover.journal import JOURNAL, Slot
from turnsvr.app.handover.recovery import Recovered
from turnsvr.app.handover.store import CRASH, HostTime
from turnsvr.relay import PumpKind
from turnsvr.turn.commands import EndReason
from turnsvr.turn.snapshot import Unreadable

LATE = 0.3
"""Seconds after which everything is written."""


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    keeper = Keeper(most=100)
    yield keeper
    keeper.close()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    yield place
    await place.close()


@dataclass
class Left:
    """A copy of what the manager has: messages of socket pairs. Its descriptors are its own."""

    messages: list[tuple[bytes, list[int]]]

    @classmethod
    def of(cls, keeper: Keeper) -> Left:
        found = []
        for name, kept in keeper.kept.items():
            assert name.startswith(CRASH)
            for each in kept:
                with socket.socket(fileno=os.dup(each)) as pair:
                    data, [(_, _, numbers)], _, _ = pair.recvmsg(4096, socket.CMSG_LEN(4 * 253), socket.MSG_PEEK)
                    found.append((data, array("i", numbers).tolist()))
        return cls(found)

    @property
    def journal(self) -> bytes:
        [found] = [each[0] for text, each in self.messages if text == JOURNAL]
        return records.read_all(found)

    def kept(self, journal: bytes | None = None) -> list[int]:
        """Descriptors as a manager hands them over; journal: in place of the one that there is."""
        pairs = []
        for text, descriptors in self.messages:
            ours, kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with ours:
                given = list(descriptors)
                if text == JOURNAL and journal is not None:
                    given[0] = os.memfd_create("test")
                    os.write(given[0], journal)
                socket.send_fds(ours, [text], given)
                if given[0] != descriptors[0]:
                    os.close(given[0])
            pairs.append(kept.detach())
        return pairs

    def close(self) -> None:
        for _, descriptors in self.messages:
            for each in descriptors:
                os.close(each)


async def test_calls_go_on_in_the_next_server(place: Place, pump_kind: PumpKind, keeper: Keeper) -> None:
    place.kind = pump_kind
    first = await place.start()
    await first.keep_journal(keeper)
    calls = [await a_call(place) for _ in range(3)]
    streams = await Flow.client_of(place, "tcp")
    await asyncio.sleep(LATE)
    await ended(*calls[0])  # which it has not told the server
    assert first.rooms.end_sessions([1], EndReason.REVOKED) == 1
    left = Left.of(keeper)
    streams.relayed = ()
    await streams.close()
    await first.stop()
    assert not keeper.kept
    taker, names = find({f"{CRASH}5": left.kept()})
    left.close()
    assert taker is not None
    assert names == [f"{CRASH}5"]
    second = await place.start(taker)
    assert second.server.numbers() == {2, 3}
    for client, peer in calls[1:]:
        await talks(client, peer, b"after")
        await ended(client, peer)
    another, its_peer = await a_call(place)
    assert max(second.server.numbers()) > 4
    await ended(another, its_peer)


async def test_wherever_a_journal_is_cut_off_it_says_what_was_then(place: Place, keeper: Keeper) -> None:
    first = await place.start()
    await first.keep_journal(keeper)
    calls = [await a_call(place) for _ in range(2)]
    await asyncio.sleep(LATE)
    await calls[0][0].refresh(300)
    await asyncio.sleep(LATE)
    await calls[0][0].refresh(0)
    left = Left.of(keeper)
    journal = left.journal
    at, cuts, expected, ends = 0, set[int](), set[int](), list[tuple[int, set[int]]]()
    for message, _ in records.unpack(journal):
        size = len(records.pack(message, 0))
        cuts |= {at, at + 1, at + 4, at + 6, at + 9, at + 10, at + 11, at + size // 2, at + size - 1, at + size}
        at += size
        if message["kind"] == "session":
            expected = expected | {int(str(message["number"]))}
        elif message["kind"] == "ended":
            expected = expected - {int(str(message["number"]))}
        ends.append((at, expected))
    assert at == len(journal)
    assert ends[-1][1] == {2}
    for cut in sorted(cuts):
        whole = [numbers for end, numbers in ends if end <= cut]
        before = open_descriptors()
        recovered = Recovered(left.kept(journal[:cut]))
        if len(whole) < 4:
            with pytest.raises(Unreadable):
                recovered.open(HostTime.now())
        else:
            recovered.open(HostTime.now())
            assert numbers_of(recovered) == whole[-1], cut
        recovered.discard()
        assert open_descriptors() == before
    left.close()
    for client, peer in calls:
        await ended(client, peer)


def numbers_of(recovered: Recovered) -> set[int]:
    said: list[dict[str, Any]] = [message for message, _ in recovered._messages]
    return {each["allocation"]["number"] for part in said if part["kind"] == "sessions" for each in part["are"]}


async def test_what_is_damaged_has_nothing_taken_up(place: Place, keeper: Keeper) -> None:
    """But for a size that becomes so large that the record looks as if it were cut off."""
    first = await place.start()
    await first.keep_journal(keeper)
    calls = [await a_call(place) for _ in range(2)]
    await asyncio.sleep(LATE)
    left = Left.of(keeper)
    journal = left.journal
    refused = 0
    for at in range(3, len(journal), 37):
        damaged = bytearray(journal)
        damaged[at] ^= 1 << at % 8
        recovered = Recovered(left.kept(bytes(damaged)))
        try:
            recovered.open(HostTime.now())
        except Unreadable:
            refused += 1
        else:
            assert numbers_of(recovered) < {1, 2}
        recovered.discard()
    assert refused > len(journal) // 50
    left.close()
    for client, peer in calls:
        await ended(client, peer)


async def test_a_session_without_its_sockets_has_ended(place: Place, keeper: Keeper) -> None:
    first = await place.start()
    await first.keep_journal(keeper)
    calls = [await a_call(place) for _ in range(2)]
    await asyncio.sleep(LATE)
    left = Left.of(keeper)
    [at] = [at for at, (text, _) in enumerate(left.messages) if text != JOURNAL]
    text, descriptors = left.messages[at]
    left.messages[at] = text, descriptors[:1]
    os.close(descriptors[1])
    recovered = Recovered(left.kept())
    recovered.open(HostTime.now())
    assert len(numbers_of(recovered)) == 1
    recovered.discard()
    left.close()
    for client, peer in calls:
        await ended(client, peer)


async def test_a_journal_is_written_anew_before_it_is_large(
    place: Place, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnsvr.app.handover.journal._LEAST", 2000)
    first = await place.start()
    await first.keep_journal(keeper)
    client, peer = await a_call(place)
    sizes = []
    for _ in range(12):
        await client.refresh(600)
        await asyncio.sleep(0.11)
        left = Left.of(keeper)
        sizes.append(len(left.journal))
        assert numbers_of_open(left) == {1}
        left.close()
    assert any(after < before for before, after in pairwise(sizes))
    await ended(client, peer)


def numbers_of_open(left: Left) -> set[int]:
    recovered = Recovered(left.kept())
    recovered.open(HostTime.now())
    numbers = numbers_of(recovered)
    recovered.discard()
    return numbers


async def test_a_name_stays_revoked_through_a_crash(
    place: Place, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no session has to do with it, and where a journal that was written anew has it already."""
    first = await place.start()
    revocations = first.rooms.revocations
    until = int(time.time()) + 3_600
    at_first, later, last = (f"{until}:{user}" for user in ("at-first", "later", "last"))
    assert revocations.add(at_first, time.time(), owner="shop")
    await first.keep_journal(keeper)
    assert revocations.add(later, time.time(), owner="shop")
    await asyncio.sleep(LATE)
    assert revoked_in(keeper) == [["shop", at_first, until], ["shop", later, until]]
    monkeypatch.setattr("turnsvr.app.handover.journal._LEAST", 0)
    for number in range(300):
        revocations.add(f"{until}:{number}", time.time(), owner="another")
    assert revocations.add(last, time.time())
    await asyncio.sleep(LATE)
    left = Left.of(keeper)
    await first.stop()
    assert revocations.heard == [first.rooms.elsewhere.revoke]
    taker, _ = find({f"{CRASH}5": left.kept()})
    left.close()
    assert taker is not None
    second = await place.start(taker)
    assert sorted(second.rooms.revocations.held()) == sorted(revocations.held())
    assert len(revocations) == 303


def revoked_in(keeper: Keeper) -> Any:
    left = Left.of(keeper)
    recovered = Recovered(left.kept())
    recovered.open(HostTime.now())
    [rules] = [message for message, _ in recovered._messages if message["kind"] == "rules"]
    recovered.discard()
    left.close()
    others: Any = rules["others"]
    return others["revoked"]


async def test_what_a_revocation_adds_to_the_journal_does_not_grow_with_their_number(
    place: Place, keeper: Keeper
) -> None:
    first = await place.start()
    await first.keep_journal(keeper)
    until = int(time.time()) + 3_600
    sizes = []
    for number in range(4):
        for one in range(50):
            first.rooms.revocations.add(f"{until}:{number}-{one:02}", time.time(), owner="shop")
        await asyncio.sleep(LATE)
        left = Left.of(keeper)
        sizes.append(len(left.journal))
        left.close()
    [added] = {after - before for before, after in pairwise(sizes)}
    assert added > 50 * len(f"{until}:0-00")


async def test_the_port_of_a_session_that_has_ended_is_free_soon(place: Place, keeper: Keeper) -> None:
    first = await place.start()
    await first.keep_journal(keeper)
    client, peer = await a_call(place)
    relayed = client.relayed[0]
    await asyncio.sleep(LATE)
    await ended(client, peer)
    first.rooms.end_sessions([1], EndReason.REVOKED)
    await asyncio.sleep(LATE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(relayed)


async def test_a_manager_that_keeps_nothing_is_told_of(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    first = await place.start()
    await first.keep_journal(Keeper(most=0))
    said = capfd.readouterr()
    assert "no session outlives a crash" in said.out + said.err
    await ended(*await a_call(place))


def test_one_message_lies_in_a_slot(keeper: Keeper) -> None:
    slot = Slot(keeper, "slot")
    nothing = os.open(os.devnull, os.O_RDONLY)
    before = open_descriptors()
    [kept] = keeper.kept["slot"]
    for text in (b"one", b"another", b"", b"third"):
        slot.put(text, [nothing] if text else [])
        with socket.socket(fileno=os.dup(kept)) as pair:
            pair.setblocking(False)
            try:
                found = pair.recv(100, socket.MSG_PEEK)
            except BlockingIOError:
                found = b""
            assert found == text
    assert open_descriptors() == before
    slot.close()
    os.close(nothing)


# Processes


async def test_calls_outlive_a_crash_and_the_next_one(tmp_path: Path) -> None:
    with Manager(tmp_path, more="survive: crash", most=100) as manager:
        client, peer = await a_call(manager)
        over, its_peer = await a_call(manager)
        await ended(over, its_peer)
        await over_there(manager, 2)
        await asyncio.sleep(LATE)
        for at in range(2):
            await off_loop(manager.kill)
            peer.sendto(b"waits", client.relayed[0])
            await off_loop(manager.start)
            assert (await asyncio.wait_for(client.receive(), 20)).data == b"waits"  # type: ignore[union-attr]
            await talks(client, peer, b"after %d" % at)
            assert len({name for name, _ in manager.kept}) == 1
            await asyncio.sleep(LATE)
        assert "the process before this one has crashed sessions=2" in manager.log
        await off_loop(manager.restart)
        await talks(client, peer, b"after a restart as well")
        await off_loop(lambda: manager.stop(for_restart=False))
        assert not manager.kept
        await ended(client, peer)


async def over_there(manager: Manager, sessions: int) -> None:
    assert manager.admin.status()["sessions"]["now"] == sessions


async def test_an_upgrade_leaves_one_journal(tmp_path: Path) -> None:
    with Manager(tmp_path, more="survive: crash", most=100) as manager:
        client, peer = await a_call(manager)
        await asyncio.sleep(LATE)
        first = {name for name, _ in manager.kept}
        upgraded = await off_loop(lambda: manager.admin.upgrade(None))
        assert upgraded is not None
        await asyncio.sleep(1.0)
        second = {name for name, _ in manager.kept}
        assert len(second) == 1
        assert not first & second
        await talks(client, peer, b"after")
        os.kill(manager.admin.status()["pid"], signal.SIGKILL)
        await off_loop(manager.process.wait)
        await off_loop(manager.start)
        await talks(client, peer, b"after a crash")
        await ended(client, peer)
