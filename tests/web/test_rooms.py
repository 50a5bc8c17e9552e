"""Rooms: who hears what, and every bound; in memory, with a clock that is an argument."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.config.websettings import SignallingSettings
from turnsvr.web.rooms import Delivery, SignallingRooms

ROOM = "b5c1e0d2a9f84736b5c1e0d2a9f84736"
OTHER = "0123456789abcdef0123456789abcdef"


class Scene:
    def __init__(self, **bounds: Any) -> None:
        self.now = 100.0
        self._drawn = 0
        self.rooms = SignallingRooms(SignallingSettings.model_validate(bounds), self.random)

    def random(self, size: int) -> bytes:
        self._drawn += 1
        return bytes((self._drawn * 37 + place * 11) % 256 for place in range(size))

    def connect(self) -> str:
        return self.rooms.connect(self.now)

    def say(self, name: str, kind: object, message: object = None) -> list[Delivery]:
        return self.rooms.receive(name, kind, {} if message is None else message, self.now)

    def join(self, room: str = ROOM) -> str:
        name = self.connect()
        assert self.say(name, "join", {"room": room})[0].kind == "joined"
        return name


def error_of(deliveries: list[Delivery], name: str) -> str:
    (only,) = deliveries
    assert (only.to, only.kind) == (name, "error")
    assert only.message["message"]
    return str(only.message["code"])


def test_two_meet() -> None:
    scene = Scene()
    alice, bob = scene.connect(), scene.connect()
    assert scene.say(alice, "join", {"room": ROOM}) == [
        Delivery(alice, "joined", {"room": ROOM, "id": alice, "members": []})
    ]
    assert scene.say(bob, "join", {"room": ROOM}) == [
        Delivery(bob, "joined", {"room": ROOM, "id": bob, "members": [alice]}),
        Delivery(alice, "peer-joined", {"id": bob}),
    ]
    offer = {"to": alice, "description": {"type": "offer", "sdp": "v=0"}, "from": "forged", "type": "join"}
    assert scene.say(bob, "offer", offer) == [
        Delivery(alice, "offer", {"description": {"type": "offer", "sdp": "v=0"}, "from": bob})
    ]
    assert scene.say(bob, "leave") == [Delivery(alice, "peer-left", {"id": bob}), Delivery(bob, "left", {})]
    assert scene.rooms.disconnect(alice, scene.now) == []
    assert (scene.rooms.rooms, scene.rooms.members) == (0, 1)


def test_without_an_address_everyone_else_hears() -> None:
    scene = Scene()
    names = [scene.join() for _ in range(3)]
    assert [each.to for each in scene.say(names[0], "candidate", {"candidate": None})] == names[1:]


def test_a_room_without_a_name_is_given_one_that_nobody_guesses() -> None:
    scene = Scene()
    rooms = {scene.say(scene.connect(), "join")[0].message["room"] for _ in range(20)}
    assert len(rooms) == 20
    assert all(len(room) == 32 for room in rooms)


@pytest.mark.parametrize("room", ["lobby", "a" * 40, "x" * 19, ROOM + "/", ROOM * 3, 7, ["a"], {"a": 1}])
def test_guessable_names_are_refused(room: object) -> None:
    scene = Scene()
    alice = scene.connect()
    assert error_of(scene.say(alice, "join", {"room": room}), alice) == "bad-room"
    assert scene.rooms.rooms == 0


def test_members_are_bounded() -> None:
    scene = Scene(members=2)
    scene.join()
    scene.join()
    third = scene.connect()
    assert error_of(scene.say(third, "join", {"room": ROOM}), third) == "room-full"


def test_rooms_are_bounded_and_free_again() -> None:
    scene = Scene(rooms=1)
    alice = scene.join()
    bob = scene.connect()
    assert error_of(scene.say(bob, "join", {"room": OTHER}), bob) == "no-room"
    scene.say(alice, "leave")
    assert scene.say(bob, "join", {"room": OTHER})[0].kind == "joined"


def test_one_room_at_a_time() -> None:
    scene = Scene()
    alice = scene.join()
    assert error_of(scene.say(alice, "join", {"room": OTHER}), alice) == "in-a-room"
    again = scene.say(alice, "join", {"room": ROOM})
    assert again == [Delivery(alice, "joined", {"room": ROOM, "id": alice, "members": []})]


def test_nobody_outside_the_room_is_reached() -> None:
    scene = Scene()
    alice, stranger = scene.join(), scene.join(OTHER)
    assert error_of(scene.say(stranger, "offer", {"to": alice}), stranger) == "no-peer"
    assert scene.say(stranger, "offer") == []
    loner = scene.connect()
    assert error_of(scene.say(loner, "offer", {"to": alice}), loner) == "no-room"


def test_messages_are_bounded_by_rate() -> None:
    scene = Scene(messages="2/s")
    alice = scene.join()
    for _ in range(9):
        assert scene.say(alice, "candidate") == []
    assert error_of(scene.say(alice, "candidate"), alice) == "too-fast"
    scene.now += 0.5
    assert scene.say(alice, "candidate") == []
    assert error_of(scene.say(alice, "candidate"), alice) == "too-fast"


@pytest.mark.parametrize(
    ("kind", "message"),
    [("shout", {}), (None, {}), (["offer"], {}), ({}, {}), ("offer", []), ("join", "x"), ("join", 1)],
)
def test_nonsense_is_answered_with_an_error(kind: object, message: object) -> None:
    scene = Scene()
    alice = scene.connect()
    assert error_of(scene.rooms.receive(alice, kind, message, scene.now), alice) == "bad-message"


def test_who_waits_alone_too_long_is_to_be_disconnected() -> None:
    scene = Scene(idle_timeout="10m")
    loner, alice = scene.connect(), scene.join()
    scene.now += 599
    bob = scene.join()
    assert scene.rooms.idle(scene.now) == []
    scene.now += 2
    assert scene.rooms.idle(scene.now) == [loner]
    scene.now += 100_000
    assert scene.rooms.idle(scene.now) == [loner]
    scene.rooms.disconnect(alice, scene.now)
    assert scene.rooms.idle(scene.now + 599) == [loner]
    assert set(scene.rooms.idle(scene.now + 600)) == {loner, bob}


def test_who_is_gone_is_not_heard() -> None:
    scene = Scene()
    alice = scene.join()
    scene.rooms.disconnect(alice, scene.now)
    assert scene.say(alice, "join", {"room": ROOM}) == []
    assert scene.rooms.disconnect(alice, scene.now) == []
    assert (scene.rooms.rooms, scene.rooms.members) == (0, 0)


STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["join", "other", "leave", "gone", "offer"])), max_size=60
)


@given(STEPS)
def test_whatever_happens_nothing_is_left_and_no_bound_is_passed(steps: list[tuple[int, str]]) -> None:
    scene = Scene(members=3, rooms=1, messages=0)
    names: dict[int, str] = {}
    for who, what in steps:
        name = names.get(who) or names.setdefault(who, scene.connect())
        if what == "gone":
            scene.rooms.disconnect(names.pop(who), scene.now)
            continue
        room = {"join": ROOM, "other": OTHER}.get(what)
        deliveries = scene.say(name, "join" if room else what, {"room": room} if room else {})
        assert {each.to for each in deliveries} <= set(names.values())
        assert scene.rooms.rooms <= 1
        for each in deliveries:
            assert len(each.message.get("members", [])) < 3
    for name in names.values():
        scene.rooms.disconnect(name, scene.now)
    assert (scene.rooms.rooms, scene.rooms.members) == (0, 0)
