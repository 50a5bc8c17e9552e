"""External addresses that nobody wrote down: when they are looked for, what of an answer is taken, what is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from tests.conftest import PATIENCE, Serve, address_of
from turnsvr.app.external import metadata, stunquery, watch
from turnsvr.app.external.background import in_thread
from turnsvr.app.external.metadata import PublicAddress
from turnsvr.app.external.watch import ExternalAddresses, FoundAddress, Look
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.turn import TurnClient
from turnsvr.config.settings import RelaySettings
from turnsvr.stun.address import Address

PRIVATE, OTHER, PUBLIC, NEW, OWN = "10.0.0.5", "10.0.0.6", "8.8.8.8", "8.8.4.4", "9.9.9.9"


def auto(**more: object) -> RelaySettings:
    return RelaySettings.model_validate({"external": "auto", **more})


class World:
    """Answers each look with what it is given, and tells of changes."""

    def __init__(self) -> None:
        self.looks: asyncio.Queue[Look] = asyncio.Queue()
        self.asked: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
        self.changes: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.external = ExternalAddresses(lambda: self.changes.put_nowait(dict(self.external.known)), self._find)

    async def _find(self, relay: RelaySettings, addresses: Sequence[str]) -> Look:
        self.asked.put_nowait(tuple(addresses))
        return await self.looks.get()

    def answer(self, found: dict[str, str], *reasons: str) -> None:
        self.looks.put_nowait(
            Look({relay: FoundAddress(address, "somebody") for relay, address in found.items()}, [*reasons])
        )

    async def asked_for(self) -> tuple[str, ...]:
        async with asyncio.timeout(PATIENCE):
            return await self.asked.get()

    async def changed(self) -> dict[str, str]:
        async with asyncio.timeout(PATIENCE):
            return await self.changes.get()


async def test_what_is_found_is_known_until_something_else_is() -> None:
    world = World()
    world.external.go_by(auto(), [PRIVATE, OWN])
    assert await world.asked_for() == (PRIVATE,), "a public address stands for itself"
    assert world.external.described == [f"none for {PRIVATE}, being looked for"]
    world.answer({PRIVATE: PUBLIC})
    assert await world.changed() == {PRIVATE: PUBLIC}
    assert world.external.described == [f"{PUBLIC} for {PRIVATE}, from somebody"]
    world.external.look_again()
    await world.asked_for()
    world.answer({}, "nobody answers")
    world.external.look_again()
    await world.asked_for()
    assert world.external.known == {PRIVATE: PUBLIC}
    world.answer({PRIVATE: NEW})
    assert await world.changed() == {PRIVATE: NEW}
    assert world.external.former == {PRIVATE, PUBLIC}, "sessions may live that were given these"
    world.external.stop()


async def test_no_address_stands_for_two_relay_addresses() -> None:
    world = World()
    world.external.go_by(auto(), [OWN, PRIVATE, OTHER])
    await world.asked_for()
    world.answer({PRIVATE: OWN, OTHER: PUBLIC})
    assert await world.changed() == {OTHER: PUBLIC}
    assert f"{OWN}, which somebody tells of {PRIVATE}, stands for {OWN}" in world.external.described[0]
    world.external.look_again()
    await world.asked_for()
    world.answer({PRIVATE: NEW, OTHER: NEW})
    assert await world.changed() == {PRIVATE: NEW, OTHER: PUBLIC}
    world.external.look_again()
    await world.asked_for()
    world.answer({PRIVATE: PUBLIC})
    assert await world.changed() == {PRIVATE: PUBLIC}, "the later one"
    world.external.stop()


async def test_what_came_too_late_for_other_settings_is_dropped() -> None:
    world = World()
    world.external.go_by(auto(), [PRIVATE])
    await world.asked_for()
    world.external.go_by(auto(), [OTHER])
    world.answer({PRIVATE: PUBLIC})
    assert await world.asked_for() == (OTHER,)
    world.answer({OTHER: NEW})
    assert await world.changed() == {OTHER: NEW}
    world.external.stop()


async def test_addresses_that_are_written_down_end_the_looking() -> None:
    world = World()
    world.external.go_by(auto(), [PRIVATE])
    await world.asked_for()
    world.answer({PRIVATE: PUBLIC})
    await world.changed()
    world.external.go_by(RelaySettings.model_validate({"external": NEW}), [PRIVATE])
    assert world.external.known == {}
    assert world.external.described == []
    world.external.stop()


async def test_a_missing_address_is_looked_for_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SOON", 0.01)
    world = World()
    world.external.go_by(auto(), [PRIVATE])
    for _ in range(3):
        await world.asked_for()
        world.answer({}, "nobody answers")
    await world.asked_for()
    world.answer({PRIVATE: PUBLIC})
    await world.changed()
    world.external.stop()


@pytest.mark.parametrize(
    ("told", "relays", "known"),
    [
        ([PublicAddress(PUBLIC, PRIVATE)], [PRIVATE], {PRIVATE: PUBLIC}),
        ([PublicAddress(PUBLIC, OTHER), PublicAddress(NEW, PRIVATE)], [PRIVATE, OTHER], {PRIVATE: NEW, OTHER: PUBLIC}),
        ([PublicAddress(PUBLIC, "172.31.0.9")], [PRIVATE], {PRIVATE: PUBLIC}),
        ([PublicAddress(PUBLIC, "172.31.0.9")], [PRIVATE, OTHER], {}),
        ([PublicAddress(PUBLIC)], [PRIVATE, "fd00::5"], {PRIVATE: PUBLIC}),
        ([PublicAddress("2600::1")], [PRIVATE, "fd00::5"], {"fd00::5": "2600::1"}),
        ([PublicAddress("10.9.9.9", PRIVATE), PublicAddress(PUBLIC, PRIVATE)], [PRIVATE], {PRIVATE: PUBLIC}),
        ([PublicAddress("10.9.9.9")], [PRIVATE], {}),
    ],
)
async def test_which_of_a_clouds_addresses_stands_for_which(
    monkeypatch: pytest.MonkeyPatch, told: list[PublicAddress], relays: list[str], known: dict[str, str]
) -> None:
    async def ask() -> list[tuple[str, list[PublicAddress]]]:
        return [("A Cloud", told)]

    async def silent(server: tuple[str, int], local: str) -> str:
        raise TimeoutError

    monkeypatch.setattr(metadata, "ask", ask)
    monkeypatch.setattr(stunquery, "seen_from", silent)
    look = await watch.find(auto(), relays)
    assert {relay: found.address for relay, found in look.found.items()} == known


async def test_a_session_lives_on_when_its_address_is_found(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is private enough: a STUN server that sees it elsewhere is asked over loopback, too."""

    async def seen(server: tuple[str, int], local: str) -> str:
        await asked.wait()
        return PUBLIC

    async def no_cloud() -> list[tuple[str, list[PublicAddress]]]:
        return []

    asked = asyncio.Event()
    monkeypatch.setattr(stunquery, "seen_from", seen)
    monkeypatch.setattr(metadata, "ask", no_cloud)
    application = await serve(relay={"addresses": ["127.0.0.1"], "external": "auto"})
    client = TurnClient(await DatagramLink.open(address_of(application, "udp")), Login("alice", "wonderland"))
    await client.allocate()
    assert client.relayed[0].host == "127.0.0.1"
    await client.permit(Address("127.0.0.1", 9))
    asked.set()
    async with asyncio.timeout(PATIENCE):
        while application.rooms.addresses.relaying != [PUBLIC]:  # noqa: ASYNC110 - it is on its way
            await asyncio.sleep(0.01)
    await client.refresh()
    await client.permit(Address("127.0.0.1", 9))
    assert application.rooms.addresses.external == [f"{PUBLIC} for 127.0.0.1, from stun:stun.l.google.com:19302"]
    await client.close()


async def test_a_call_that_blocks_is_given_up() -> None:
    given_up = threading.Event()
    with pytest.raises(TimeoutError):
        await in_thread(lambda: given_up.wait(PATIENCE), 0.01, given_up.set)
    assert given_up.wait(PATIENCE)


async def test_what_a_call_raises_is_raised() -> None:
    def fail() -> None:
        raise ConnectionRefusedError("no")

    with pytest.raises(ConnectionRefusedError):
        await in_thread(fail, PATIENCE)
    assert await in_thread(lambda: 5, PATIENCE) == 5
