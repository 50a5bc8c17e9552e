"""What `turnsvr top` shows, and what its keys do: no terminal, no server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.test_text import session
from turnsvr.cli.text import width
from turnsvr.cli.top.totals import sparkline, steady
from turnsvr.cli.top.view import (
    Action,
    Choices,
    EndSession,
    Quit,
    Snapshot,
    Style,
    ViewMode,
    press,
    render,
    rows,
    scrolled,
    selected,
)

FLOW = {"packets": 5, "bytes": 6, "packets_per_second": 7.0, "bits_per_second": 8_000_000.0}
STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "ready": True,
    "draining": False,
    "problems": [],
    "uptime": 4000.0,
    "sessions": {"now": 30, "started": {"udp": 100, "tcp": 5}, "ended": {}},
    "relayed": {"from_client": FLOW, "to_client": FLOW},
    "drops": {"no_permission": 4, "overload": 0},
}
SESSIONS = [session(number, f"user{number}") for number in range(1, 31)]
SNAPSHOT = Snapshot(STATUS, SESSIONS, 30)
KEYS = [
    *"rbuaix/?qyYnhjktp \x00é",
    "up",
    "down",
    "left",
    "pageup",
    "pagedown",
    "home",
    "end",
    "enter",
    "escape",
    "backspace",
]
HEIGHT = 16
NOTHING_CHOSEN = Choices()


def texts(state: Choices, snapshot: Snapshot = SNAPSHOT, cells: int = 120, height: int = HEIGHT) -> list[str]:
    return [line.text.rstrip() for line in render(state, snapshot, cells, height)]


def pressed(*keys: str, state: Choices = NOTHING_CHOSEN, snapshot: Snapshot = SNAPSHOT) -> tuple[Choices, Action]:
    action: Action = None
    for key in keys:
        state, action = press(scrolled(state, snapshot, HEIGHT), key, snapshot, HEIGHT)
    return scrolled(state, snapshot, HEIGHT), action


def chosen(state: Choices, snapshot: Snapshot = SNAPSHOT) -> str:
    """The line that is marked."""
    (line,) = [line.text for line in render(state, snapshot, 120, HEIGHT) if line.style is Style.SELECTED]
    return line


def test_the_head_tells_of_the_whole_server() -> None:
    first, second, refusals, third, title, *_ = texts(Choices())
    assert first == "turnsvr 1.2.3  ready  up 1h06m"
    assert second == ("30 sessions, 105 since start  up 8.0 Mb/s 7 packets/s  down 8.0 Mb/s 7 packets/s  4 dropped")
    assert refusals == "refused: 0 logins, 0 peers; drops: no permission 4"
    assert third == "30 listed, by rate, down"
    assert title.split()[:3] == ["ID", "USER", "CLIENT"]


def test_what_is_wrong_stands_first_and_marked() -> None:
    status = STATUS | {"ready": False, "problems": ["credential store unavailable"]}
    first = render(Choices(), replace(SNAPSHOT, status=status), 120, HEIGHT)[0]
    assert first.text.rstrip() == "turnsvr 1.2.3  not ready  up 1h06m  credential store unavailable"
    assert first.style is Style.BAD


def test_a_server_that_is_gone_is_told_and_nothing_old_is_shown() -> None:
    lines = texts(Choices(), Snapshot(problem="no server answers; trying again"))
    assert lines[0] == "no server answers; trying again"
    assert not any("user1" in line for line in lines)


def test_the_selection_moves_and_the_list_scrolls_with_it() -> None:
    shown = rows(HEIGHT)
    assert shown == 10
    state, _ = pressed()
    assert chosen(state).split()[1] == "user1"
    state, _ = pressed("down", "j", "down", "k", "up")
    assert chosen(state).split()[1] == "user2"
    state, _ = pressed("pagedown")
    assert chosen(state).split()[1] == "user11"
    state, _ = pressed("end")
    assert chosen(state).split()[1] == "user30"
    assert state.first == 20
    assert chosen(pressed("down", state=state)[0]).split()[1] == "user30"
    state, _ = pressed("home", state=state)
    assert (chosen(state).split()[1], state.first) == ("user1", 0)
    assert chosen(pressed("up", state=state)[0]).split()[1] == "user1"


def test_the_selection_stays_with_its_session_when_the_order_changes() -> None:
    state, _ = pressed("down", "down")
    turned = replace(SNAPSHOT, sessions=SESSIONS[::-1])
    state = scrolled(state, turned, HEIGHT)
    assert chosen(state, turned).split()[1] == "user3"


def test_where_the_selected_session_has_gone_another_is_selected() -> None:
    state, _ = pressed("end")
    fewer = replace(SNAPSHOT, sessions=SESSIONS[:4])
    state = scrolled(state, fewer, HEIGHT)
    assert chosen(state, fewer).split()[1].startswith("user")
    assert selected(state, replace(SNAPSHOT, sessions=[])) is None
    assert press(state, "x", Snapshot(STATUS), HEIGHT) == (state, None)


@pytest.mark.parametrize(
    ("keys", "sort"),
    [("r", "rate"), ("b", "-bytes"), ("bb", "bytes"), ("bbb", "-bytes"), ("u", "user"), ("uu", "-user"), ("a", "-age")],
)
def test_keys_sort(keys: str, sort: str) -> None:
    state, _ = pressed(*keys)
    assert state.sort == sort


def test_searching() -> None:
    state, _ = pressed("/", *"alx", "backspace", "q")
    assert state.mode is ViewMode.SEARCH
    assert texts(state)[-1] == "find: alq_"
    assert state.search == ""
    state, action = pressed("enter", state=state)
    assert (state.search, state.mode, action) == ("alq", ViewMode.LIST, None)
    assert texts(state)[3] == "finding 'alq'  30 listed, by rate, down"
    assert pressed("/", "x", "escape", state=state)[0].search == "alq"
    assert pressed("escape", state=state)[0].search == ""


def test_ending_a_session_is_asked_about() -> None:
    state, action = pressed("down", "x")
    assert action is None
    assert texts(state)[-1] == "end session 2 of user2? y/n"
    for no in ("n", "q", "escape", "enter", "x"):
        back, action = press(state, no, SNAPSHOT, HEIGHT)
        assert (back.mode, action) == (ViewMode.LIST, None)
    back, action = press(state, "y", SNAPSHOT, HEIGHT)
    assert (back.mode, action) == (ViewMode.LIST, EndSession(2))


def test_the_question_is_about_the_session_that_was_selected_whatever_the_list_does_meanwhile() -> None:
    state, _ = pressed("down", "x")
    other = replace(SNAPSHOT, sessions=SESSIONS[10:])
    state = scrolled(state, other, HEIGHT)
    assert texts(state, other)[-1] == "end session 2? y/n"
    assert press(state, "y", other, HEIGHT)[1] == EndSession(2)


def test_a_session_s_peers_are_shown_and_scrolled() -> None:
    state, _ = pressed("down", "enter")
    assert "SESSION 2" in texts(state)[4]
    assert "asking the server …" in texts(state)[5]
    detail = session(2, "user2", permissions=[{"peer": f"203.0.113.{n}", "remaining": 9.0} for n in range(40)])
    snapshot = replace(SNAPSHOT, detail=detail)
    lines = texts(state, snapshot, height=40)
    assert "client      192.0.2.1:40000  over udp, read by pump" in lines
    assert "  203.0.113.0  for 9s" in lines
    down, _ = press(state, "pagedown", snapshot, HEIGHT)
    assert "  203.0.113.5  for 9s" in texts(down, snapshot)
    far = state
    for _ in range(20):
        far, _ = press(far, "pagedown", snapshot, HEIGHT)
    assert texts(far, snapshot)[4] == "SESSION 2"
    assert any("0x4001  203.0.113.9:9" in line for line in texts(far, snapshot)[4:])
    asked, _ = press(state, "x", snapshot, HEIGHT)
    assert texts(asked, snapshot)[-1] == "end session 2 of user2? y/n"
    assert press(asked, "y", snapshot, HEIGHT) == (
        replace(state, mode=ViewMode.DETAIL, back=ViewMode.DETAIL),
        EndSession(2),
    )
    assert press(state, "escape", snapshot, HEIGHT)[0].mode is ViewMode.LIST


def test_quitting_and_help() -> None:
    assert pressed("q")[1] == Quit()
    assert pressed("enter", "q")[1] == Quit()
    state, _ = pressed("?")
    assert any("sort by rate" in line for line in texts(state))
    assert pressed(" ", state=state)[0].mode is ViewMode.LIST


def test_messages_stand_in_the_last_line() -> None:
    line = render(Choices(), replace(SNAPSHOT, message="session 3 has ended"), 120, HEIGHT)[-1]
    assert (line.text.rstrip(), line.style) == ("session 3 has ended", Style.NORMAL)


@given(
    st.lists(st.sampled_from(KEYS), max_size=25),
    st.integers(0, 130),
    st.integers(0, 40),
    st.lists(st.text(max_size=10), max_size=12),
    st.booleans(),
)
def test_any_keys_on_any_terminal_with_any_names(
    keys: list[str], cells: int, height: int, names: list[str], there: bool
) -> None:
    sessions = [session(number, name, client=name) for number, name in enumerate(names, 1)]
    snapshot = Snapshot(
        STATUS, sessions, len(sessions), detail=sessions[0] if sessions else None, message=names[0] if names else ""
    )
    state = Choices()
    for number, key in enumerate(keys):
        now = snapshot if there or number % 2 else Snapshot(problem="gone\x1b")
        state = scrolled(state, now, height)
        lines = render(state, now, cells, height)
        assert len(lines) == height
        assert all(width(line.text) == cells and (line.text.isprintable() or not line.text) for line in lines)
        state, _ = press(state, key, now, height)


def test_pause_holds_what_is_shown() -> None:
    paused, _ = press(NOTHING_CHOSEN, "p", SNAPSHOT, HEIGHT)
    assert any(text.startswith("PAUSED") for text in texts(paused))
    again, _ = press(paused, " ", SNAPSHOT, HEIGHT)
    assert again == NOTHING_CHOSEN


def test_totals_by_user_realm_and_peer() -> None:
    sessions = [session(1, "alice"), session(2, "alice"), session(3, "bob", realm="other.example", permissions=None)]
    snapshot = Snapshot(STATUS, sessions, 3)
    state, seen = NOTHING_CHOSEN, []
    for _ in range(4):
        state, _ = press(state, "t", snapshot, HEIGHT)
        names = ("alice", "bob ", "example.org", "other.example", "203.0.113.9", "no peer")
        seen.append([line.split()[:2] for line in texts(state, snapshot) if line.startswith(names)])
    assert seen[0] == [["alice", "2"], ["bob", "1"]]
    assert seen[1] == [["example.org", "2"], ["other.example", "1"]]
    assert seen[2] == [["203.0.113.9", "2"], ["no", "peer"]]
    assert state == NOTHING_CHOSEN


def test_why_packets_and_requests_are_refused() -> None:
    status = STATUS | {"authentications_failed": 7, "peers_refused": 2, "drops": {"overload": 1, "no_permission": 1200}}
    assert "refused: 7 logins, 2 peers; drops: no permission 1.2k, overload 1" in texts(
        NOTHING_CHOSEN, Snapshot(status, SESSIONS, 30)
    )


def test_rows_hold_still_at_about_equal_rates() -> None:
    def at(number: int, rate: float) -> dict[str, Any]:
        flow = {"packets": 0, "bytes": 0, "packets_per_second": 0.0, "bits_per_second": rate}
        return session(number) | {"traffic": {"from_client": flow, "to_client": flow, "dropped": 0}}

    def order(rates: dict[int, float], before: list[int], sort: str = "-rate") -> list[int]:
        return [each["id"] for each in steady([at(*each) for each in rates.items()], before, sort)]

    first = order({1: 100_000, 2: 101_000, 3: 900_000, 4: 0}, [])
    assert first == [3, 1, 2, 4]
    assert order({4: 0, 2: 99_000, 1: 103_000, 3: 850_000}, first) == first
    assert order({1: 100_000, 2: 400_000, 3: 900_000, 4: 0}, first) == [3, 2, 1, 4]
    assert order({1: 100_000, 3: 900_000}, first, "rate") == [1, 3]
    assert order({2: 1, 1: 2}, first, "user") == [2, 1]


def test_the_line_of_rates() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 50, 100]) == "▁▅█"
    assert any(text.endswith("▁█") for text in texts(NOTHING_CHOSEN, replace(SNAPSHOT, history=(0, 9))))
