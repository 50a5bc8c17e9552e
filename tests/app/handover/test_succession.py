"""One successor at a time, and none that serves what it was refused: whoever hangs, and whatever ends meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.app.handover.keeping import Keeper
from tests.app.handover.rig import Server
from tests.app.handover.test_store import Place
from tests.app.handover.test_upgrade import a_call, ended, talks
from tests.conftest import PATIENCE
from turnsvr.app.application import Application
from turnsvr.app.handover import giver as giving
from turnsvr.app.handover.giver import CannotHandOver, Giver
from turnsvr.app.handover.steps import VARIABLE
from turnsvr.app.handover.wire import Closed, Process, Wire
from turnsvr.turn.snapshot import Document

ASK: Document = {"kind": "ask", "reads": [1], "version": "9.0", "pid": 1}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    yield place
    await place.close()


class Successor:
    """A process that does nothing, and its end of the connection, at which the test speaks for it."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.process = subprocess.Popen(["sleep", "600"])
        self.giver = Wire(ours, Process.numbered(self.process.pid))
        self.wire = Wire(its, Process.numbered(os.getpid()))

    async def hear(self, kind: str) -> Document:
        """Read on up to a message of this kind."""
        while True:
            message, descriptors = await self.wire.receive(PATIENCE)
            for each in descriptors:
                os.close(each)
            if message["kind"] == kind:
                return message

    def has_been_killed(self) -> bool:
        return self.process.wait(PATIENCE) == -signal.SIGKILL


@contextmanager
def successor() -> Iterator[Successor]:
    made = Successor()
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        made.wire.close()
        made.giver.close()


def giver_of(application: Application, to: Successor) -> Giver:
    return Giver(application.rooms, application._crossing, to.giver)


async def test_whoever_does_not_read_is_not_waited_for_and_never_serves(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that finds no room in the connection. Its reader would serve it, once this process has ended."""
    monkeypatch.setattr(giving, "READYING", 0.3)
    monkeypatch.setattr(giving, "_GOING", 0.1)
    application = await place.start()
    now = 2_000_000_000
    for number in range(4000):
        application.rooms.revocations.add(f"{number}{'x' * 90}", now - 100, expiry=now)
    client, peer = await a_call(place)
    with successor() as hanging:
        await hanging.wire.send(ASK)
        with pytest.raises(CannotHandOver, match="did not answer in time"):
            await asyncio.wait_for(giver_of(application, hanging).hand_over(), PATIENCE)
        assert await asyncio.to_thread(hanging.has_been_killed)
    await talks(client, peer, b"after")
    await ended(client, peer)


async def test_whoever_hears_that_it_is_refused_lives(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving, "READYING", 0.5)
    application = await place.start()
    client, peer = await a_call(place)
    with successor() as slow:
        await slow.wire.send(ASK)
        handing = asyncio.create_task(giver_of(application, slow).hand_over())
        await slow.hear("end")
        assert (await slow.hear("refused"))["reason"] == "the successor did not answer in time"
        with pytest.raises(CannotHandOver):
            await handing
        assert slow.process.poll() is None
    await talks(client, peer, b"after")
    await ended(client, peer)


async def test_nothing_follows_a_message_that_was_cut_off() -> None:
    with successor() as hanging:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await hanging.giver.send({"kind": "rules", "rules": "x" * 1_000_000})
        with pytest.raises(Closed, match="cut off"):
            await hanging.giver.send({"kind": "refused", "reason": "anything"})


@pytest.mark.parametrize("how", ["leave", "stop"])
async def test_a_server_that_ends_calls_off_a_hand_over(place: Place, how: str) -> None:
    """Whether it is to start again or not: the successor hears it, and what is left is left to one process."""
    application = await place.start()
    client, peer = await a_call(place)
    keeper = Keeper()
    with successor() as early:
        await early.wire.send(ASK)
        handing = asyncio.create_task(application.succession._hand_over(early.giver))
        await early.hear("end")
        ending = asyncio.create_task(application.leave(keeper) if how == "leave" else application.stop())
        assert (await early.hear("refused"))["reason"] == "this server ends"
        with pytest.raises(CannotHandOver, match="this server ends"):
            await handing
        await ending
        assert len(keeper.kept) == (how == "leave")
        with successor() as late, pytest.raises(CannotHandOver, match="this server ends"):
            await application.succession._hand_over(late.giver)
    keeper.close()
    await ended(client, peer)


async def test_a_server_that_ends_waits_for_a_successor_that_may_serve(place: Place) -> None:
    """Then it leaves nothing to the service manager: what is kept there is the successor's.

    Operators are answered until the successor has the place of the admin socket.
    """
    application = await place.start()
    client, peer = await a_call(place)
    keeper = Keeper()
    with successor() as next_one:
        await next_one.wire.send(ASK)
        handing = asyncio.create_task(application.succession._hand_over(next_one.giver))
        await next_one.hear("end")
        await next_one.wire.send({"kind": "ready"})
        await next_one.hear("go")
        leaving = asyncio.create_task(application.leave(keeper))
        await asyncio.sleep(0.1)
        assert not leaving.done()
        await next_one.wire.send({"kind": "serving"})
        await next_one.hear("left")
        assert not handing.done()
        await next_one.wire.send({"kind": "placed"})
        given = await handing
        assert len(given.sessions) == 1
        await leaving
        assert not keeper.kept
    await ended(client, peer)


async def test_two_at_once_are_one(place: Place) -> None:
    application = await place.start()
    with successor() as first, successor() as second:
        await first.wire.send(ASK)
        handing = asyncio.create_task(application.succession._hand_over(first.giver))
        await first.hear("end")
        with pytest.raises(CannotHandOver, match="another process is taking over"):
            await application.succession._hand_over(second.giver)
        assert (await second.hear("refused"))["reason"] == "another process is taking over"
        await first.wire.send({"kind": "failed", "reason": "it is a test"})
        with pytest.raises(CannotHandOver, match="it is a test"):
            await handing


async def test_a_manager_that_does_not_know_the_successor_hears_that_it_has_died(tmp_path: Path) -> None:
    """By the exit status of the process that it looks after, which has nothing left to do."""
    with Server(tmp_path) as server:
        client, peer = await a_call(server)
        dies = server.take_over({VARIABLE: "serves=kill"})
        assert await asyncio.to_thread(dies.wait, 60) == -signal.SIGKILL
        assert await asyncio.to_thread(server.process.process.wait, PATIENCE) == 1
        await ended(client, peer)


async def test_a_hand_over_goes_on_where_whoever_asked_for_it_has_gone(place: Place) -> None:
    application = await place.start()
    client, peer = await a_call(place)
    with successor() as next_one:
        await next_one.wire.send(ASK)
        handing = asyncio.create_task(application.succession._hand_over(next_one.giver))
        await next_one.hear("end")
        await next_one.wire.send({"kind": "ready"})
        await next_one.hear("go")
        handing.cancel()
        await asyncio.gather(handing, return_exceptions=True)
        await next_one.wire.send({"kind": "serving"})
        await next_one.wire.send({"kind": "placed"})
        await next_one.hear("left")
        assert application.succession.has_left
    await ended(client, peer)
