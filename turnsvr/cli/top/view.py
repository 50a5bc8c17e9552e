"""What `turnsvr top` shows and how keys change it. Pure: no terminal, no server, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from turnsvr.cli import statustext
from turnsvr.cli.sessiontable import table
from turnsvr.cli.text import duration, fit, printable, size
from turnsvr.cli.top.totals import lines, sparkline, totals

_HEAD = 4
"""Lines above the table's title."""
_MAX_SEARCH = 100
_HELD = {"AGE": 6, "LEFT": 6, "UP b/s": 6, "DOWN b/s": 8, "BYTES": 5, "PEERS": 5, "DROPS": 5, "CLIENT": 21, "USER": 12}
"""Least widths, by column: figures that change leave the others where they are."""

_TOTALS = ("", "user", "realm", "peer")
_SORTS = {"r": "rate", "b": "bytes", "u": "user", "a": "age", "i": "id"}
_LARGEST_FIRST = {"rate", "bytes", "age"}

_KEYS = (
    ("r b u a i", "sort by rate, bytes, user, age, ID; again: the other way round"),
    ("arrows j k", "select a session; Page Up, Page Down, Home, End"),
    ("Enter", "the selected session's peers and channels"),
    ("/", "find in users, realms and addresses; Escape: all again"),
    ("t", "totals by user, by realm, by peer; the sessions again"),
    ("p Space", "pause: what is shown stays as it is; again: go on"),
    ("x", "end the selected session"),
    ("q", "quit"),
)


class ViewMode(Enum):
    LIST = "list"
    DETAIL = "detail"
    SEARCH = "search"
    CONFIRM = "confirm"
    HELP = "help"


@dataclass(frozen=True)
class Choices:
    """What the person at the keys has chosen."""

    mode: ViewMode = ViewMode.LIST
    sort: str = "-rate"
    search: str = ""
    typed: str = ""
    """The search while it is being written."""
    selected: int | None = None
    """A session's ID; the first one's when None."""
    first: int = 0
    """Row, or line of a detail, at the top."""
    totals: str = ""
    """What is added up in the place of the sessions: user, realm, peer; empty for the sessions."""
    paused: bool = False
    back: ViewMode = ViewMode.LIST
    """Where a question was asked."""


@dataclass(frozen=True)
class Snapshot:
    """What the server answered last."""

    status: dict[str, Any] | None = None
    sessions: Sequence[dict[str, Any]] = ()
    total: int = 0
    detail: dict[str, Any] | None = None
    problem: str = ""
    """Why there is no answer; empty when there is one."""
    history: Sequence[float] = ()
    """Bits a second both ways at the last looks, the newest last."""
    message: str = ""
    """What came of what was asked last."""


class Quit(NamedTuple):
    pass


class EndSession(NamedTuple):
    session: int


Action = Quit | EndSession | None


class Style(Enum):
    NORMAL = "normal"
    TITLE = "title"
    SELECTED = "selected"
    BAD = "bad"
    FAINT = "faint"


class Line(NamedTuple):
    text: str
    style: Style = Style.NORMAL


# Keys


def press(state: Choices, key: str, snapshot: Snapshot, height: int) -> tuple[Choices, Action]:
    """What a key does.

    Its name is its character, or up, down, left, pageup, pagedown, home, end, enter, escape or backspace.
    """
    if state.mode is ViewMode.SEARCH:
        return _write(state, key), None
    if state.mode is ViewMode.CONFIRM:
        back = replace(state, mode=state.back)
        return back, EndSession(state.selected) if key in ("y", "Y") and state.selected is not None else None
    if key == "q":
        return state, Quit()
    if state.mode is ViewMode.HELP:
        return replace(state, mode=ViewMode.LIST), None
    chosen = selected(state, snapshot)
    if key == "x" and chosen is not None:
        return replace(state, mode=ViewMode.CONFIRM, back=state.mode, selected=chosen), None
    if state.mode is ViewMode.DETAIL:
        return _read(state, key, height), None
    if key == "enter" and chosen is not None:
        return replace(state, mode=ViewMode.DETAIL, selected=chosen, first=0), None
    return _choose(state, key, snapshot, height), None


def _write(state: Choices, key: str) -> Choices:
    if key == "enter":
        return replace(state, mode=ViewMode.LIST, search=state.typed, selected=None, first=0)
    if key == "escape":
        return replace(state, mode=ViewMode.LIST)
    if key == "backspace":
        return replace(state, typed=state.typed[:-1])
    if len(key) == 1 and key.isprintable() and len(state.typed) < _MAX_SEARCH:
        return replace(state, typed=state.typed + key)
    return state


def _read(state: Choices, key: str, height: int) -> Choices:
    if key in ("escape", "enter", "backspace", "left"):
        return replace(state, mode=ViewMode.LIST, first=0)
    return replace(state, first=max(0, state.first + _STEPS.get(key, 0) + _pages(key) * max(1, height - 2)))


def _choose(state: Choices, key: str, snapshot: Snapshot, height: int) -> Choices:
    if key in _SORTS:
        return replace(state, sort=_resorted(state.sort, _SORTS[key]), selected=None, first=0)
    if key == "/":
        return replace(state, mode=ViewMode.SEARCH, typed=state.search)
    if key == "escape":
        return replace(state, search="", selected=None, first=0)
    if key in ("?", "h"):
        return replace(state, mode=ViewMode.HELP)
    if key in ("p", " "):
        return replace(state, paused=not state.paused)
    if key == "t":
        return replace(state, totals=_TOTALS[(_TOTALS.index(state.totals) + 1) % len(_TOTALS)], first=0)
    numbers = [session["id"] for session in snapshot.sessions]
    if not numbers:
        return state
    if key in ("home", "end"):
        return replace(state, selected=numbers[0 if key == "home" else -1])
    step = _STEPS.get(key, 0) + _pages(key) * max(1, rows(height))
    now = _index(state, numbers)
    return replace(state, selected=numbers[min(max(now + step, 0), len(numbers) - 1)]) if step else state


_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1}


def _pages(key: str) -> int:
    return {"pageup": -1, "pagedown": 1}.get(key, 0)


def _resorted(sort: str, by: str) -> str:
    usual = f"-{by}" if by in _LARGEST_FIRST else by
    other = by if by in _LARGEST_FIRST else f"-{by}"
    return other if sort == usual else usual


def selected(state: Choices, snapshot: Snapshot) -> int | None:
    """ID of the selected session; None when there is none."""
    if state.mode in (ViewMode.DETAIL, ViewMode.CONFIRM) and state.selected is not None:
        return state.selected
    numbers = [session["id"] for session in snapshot.sessions]
    return numbers[_index(state, numbers)] if numbers else None


def _index(state: Choices, numbers: Sequence[int]) -> int:
    """Row of the selected session; where it has gone, the one that stands where the list began."""
    if state.selected in numbers:
        return numbers.index(state.selected)
    return min(state.first, max(0, len(numbers) - 1))


def scrolled(state: Choices, snapshot: Snapshot, height: int) -> Choices:
    """The same with the selected row among those that are shown."""
    if state.mode is ViewMode.DETAIL:
        return state
    numbers = [session["id"] for session in snapshot.sessions]
    shown, index = max(1, rows(height)), _index(state, numbers)
    first = min(state.first, index, max(0, len(numbers) - shown))
    return replace(state, first=max(first, index - shown + 1, 0))


def rows(height: int) -> int:
    """Sessions that a screen of so many lines shows."""
    return max(0, height - _HEAD - 2)


# Lines


def render(state: Choices, snapshot: Snapshot, cells: int, height: int) -> list[Line]:
    """At most so many lines, none of them wider: a head, the table or a detail, and a line of keys or a question."""
    last = _last(state, snapshot)
    head = _head(state, snapshot)
    if state.mode is ViewMode.HELP:
        body = [Line("KEYS", Style.TITLE), *(Line(f"{keys:<12}{what}") for keys, what in _KEYS)]
    elif state.mode is ViewMode.DETAIL or (state.mode is ViewMode.CONFIRM and state.back is ViewMode.DETAIL):
        body = _detail(state, snapshot)
        body = body[:1] + body[1:][min(state.first, max(0, len(body) - 2)) :]
    elif state.totals:
        title, *sums = lines(totals(snapshot.sessions, state.totals), state.totals)
        body = [Line(title, Style.TITLE), *map(Line, sums)]
    else:
        body = _table(state, snapshot, cells, rows(height))
    room = max(0, height - 1)
    above = [*head, *body] if room > _HEAD else [*head[:1], *body[1:]]
    shown = above[:room]
    shown += [Line("")] * (room - len(shown))
    return [Line(fit(line.text, cells), line.style) for line in [*shown, last][:height]]


def _head(state: Choices, snapshot: Snapshot) -> list[Line]:
    status = snapshot.status
    if status is None:
        said = printable(snapshot.problem) or "asking the server …"
        return [Line(said, Style.BAD), *(Line("") for _ in range(_HEAD - 1))]
    relayed, sessions = status["relayed"], status["sessions"]
    problems = "; ".join(map(printable, status["problems"]))
    first = f"turnsvr {status['version']}  {statustext.state(status)}  up {duration(status['uptime'])}"
    drops = sum(status["drops"].values())
    order = f"by {state.sort.removeprefix('-')}, {'down' if state.sort.startswith('-') else 'up'}"
    found = f"finding {printable(state.search)!r}  " if state.search else ""
    shown = len(snapshot.sessions)
    listed = f"{shown} of {snapshot.total}" if shown < snapshot.total else str(snapshot.total)
    return [
        Line(first + (f"  {problems}" if problems else ""), Style.NORMAL if status["ready"] else Style.BAD),
        Line(
            f"{sessions['now']} sessions, {sum(sessions['started'].values())} since start  "
            f"up {_rate(relayed['from_client'])}  down {_rate(relayed['to_client'])}  {size(drops)} dropped"
        ),
        Line(_refusals(status)),
        Line(f"{'PAUSED  ' if state.paused else ''}{found}{listed} listed, {order}  {sparkline(snapshot.history)}"),
    ]


def _refusals(status: dict[str, Any]) -> str:
    """What was refused since the start, and why packets were dropped, most frequent first."""
    refused = f"refused: {status.get('authentications_failed', 0)} logins, {status.get('peers_refused', 0)} peers"
    reasons = sorted(((number, name) for name, number in status["drops"].items() if number), reverse=True)
    drops = ", ".join(f"{name.replace('_', ' ')} {size(number)}" for number, name in reasons)
    return f"{refused}; drops: {drops}" if drops else refused


def _rate(flow: dict[str, Any]) -> str:
    return f"{size(flow['bits_per_second'], ' ')}b/s {size(flow['packets_per_second'])} packets/s"


def _table(state: Choices, snapshot: Snapshot, cells: int, room: int) -> list[Line]:
    visible = snapshot.sessions[state.first : state.first + room]
    title, *lines = table(visible, cells, least=_HELD)
    chosen = selected(state, snapshot)
    return [
        Line(title, Style.TITLE),
        *(
            Line(text, Style.SELECTED if session["id"] == chosen else Style.NORMAL)
            for text, session in zip(lines, visible, strict=True)
        ),
    ]


def _detail(state: Choices, snapshot: Snapshot) -> list[Line]:
    session = snapshot.detail
    if session is None or session["id"] != state.selected:
        return [Line(f"SESSION {state.selected}", Style.TITLE), Line("asking the server …", Style.FAINT)]
    traffic = session["traffic"]
    lines = [
        Line(f"SESSION {session['id']}", Style.TITLE),
        Line(f"user        {printable(session['user'])}  counted as {printable(session['quota_user'])}"),
        Line(f"realm       {printable(session['realm'])}"),
        Line(f"client      {printable(session['client'])}  over {session['transport']}, read by {session['reader']}"),
        Line(f"server      {printable(session['server'])}  pump {printable(session['pump'])}"),
        Line(f"relayed     {', '.join(map(printable, session['relayed']))}{_over(session)}"),
        Line(f"age         {duration(session['age'])}  ends in {duration(session['remaining'])}"),
        *(Line(f"{name:<12}{_flow(traffic[way])}") for name, way in (("up", "from_client"), ("down", "to_client"))),
        Line(f"dropped     {traffic['dropped']} packets"),
        Line(""),
        Line(f"{session['permission_count']} PEERS PERMITTED", Style.TITLE),
    ]
    lines += [
        Line(f"  {printable(each['peer'])}  for {duration(each['remaining'])}") for each in session["permissions"]
    ]
    lines.append(Line(f"{session['channel_count']} CHANNELS", Style.TITLE))
    lines += [
        Line(f"  0x{each['number']:04X}  {printable(each['peer'])}  for {duration(each['remaining'])}")
        for each in session["channels"]
    ]
    return lines + _connections(session)


def _over(session: dict[str, Any]) -> str:
    return "  over tcp" if session.get("relay") == "tcp" else ""


def _connections(session: dict[str, Any]) -> list[Line]:
    """Those to peers over TCP, of servers that tell of them."""
    connections = session.get("connections")
    if session.get("relay") != "tcp" or connections is None:
        return []
    lines = [Line(f"{len(connections)} CONNECTIONS TO PEERS", Style.TITLE)]
    for each in connections:
        joined = f"  with {printable(each['client'])}" if each["client"] else ""
        lines.append(Line(f"  {printable(each['peer'])}  {each['stage']}{joined}"))
    return lines


def _flow(flow: dict[str, Any]) -> str:
    return f"{_rate(flow)}, {size(flow['bytes'], ' ')}B in {size(flow['packets'])} packets"


def _last(state: Choices, snapshot: Snapshot) -> Line:
    if state.mode is ViewMode.SEARCH:
        return Line(f"find: {printable(state.typed)}_", Style.SELECTED)
    if state.mode is ViewMode.CONFIRM:
        found = [each for each in (*snapshot.sessions, snapshot.detail) if each and each["id"] == state.selected]
        whose = f" of {printable(found[0]['user'])}" if found else ""
        return Line(f"end session {state.selected}{whose}? y/n", Style.SELECTED)
    if snapshot.message:
        return Line(printable(snapshot.message))
    if state.mode is ViewMode.DETAIL:
        return Line("Escape back  x end  q quit", Style.FAINT)
    return Line(
        "r rate  b bytes  u user  a age  / find  t totals  p pause  Enter peers  x end  ? keys  q quit", Style.FAINT
    )
