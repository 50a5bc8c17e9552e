"""The terminal of `turnsvr top`: keys in, lines out, and everything as it was at the end."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from turnsvr.admin import NoServer
from turnsvr.cli.top.feed import Feed, Selection
from turnsvr.cli.top.view import Choices, EndSession, Line, Quit, Style, ViewMode, press, render, scrolled

if TYPE_CHECKING:
    from turnsvr.admin.client import AdminClient

_TURN = 100
"""Milliseconds to wait for a key before a newer snapshot is shown."""
_ESCAPE_DELAY = 25
_SIZE_VARIABLES = ("COLUMNS", "LINES")
"""What curses would believe, and never again ask the terminal."""

_NAMES: dict[int | str, str] = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_PPAGE: "pageup",
    curses.KEY_NPAGE: "pagedown",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
    curses.KEY_DC: "x",
    "\n": "enter",
    "\r": "enter",
    "\x1b": "escape",
    "\x7f": "backspace",
    "\b": "backspace",
}


def run(connect: Callable[[], AdminClient], interval: float) -> None:
    """Until the person quits, or a signal comes; raises NoServer when there is no server to begin with."""
    with connect() as client:
        client.status()
    locale.setlocale(locale.LC_ALL, "")
    for name in _SIZE_VARIABLES:
        os.environ.pop(name, None)
    screen = _Screen(connect, interval)
    with _ending_on_signals(screen.end):
        try:
            curses.wrapper(screen.run)
        except curses.error as error:
            raise NoServer(f"this terminal cannot be used: {error}; turnsvr sessions prints a list") from None
        finally:
            screen.end()


@contextlib.contextmanager
def _ending_on_signals(end: Callable[[], None]) -> Iterator[None]:
    """SIGINT is one of them: nothing that is under way is cut off."""

    def handle(number: int, frame: FrameType | None) -> None:
        end()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Screen:
    def __init__(self, connect: Callable[[], AdminClient], interval: float) -> None:
        self._state = Choices()
        self._feed = Feed(connect, interval, self._selection())
        self._ended = False
        self._seen = self._feed.snapshot

    def end(self) -> None:
        """At the next turn; ending twice is fine."""
        self._ended = True
        self._feed.stop()

    def run(self, window: curses.window) -> None:
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        curses.set_escdelay(_ESCAPE_DELAY)
        self._styles = _styles()
        window.timeout(_TURN)
        while not self._ended and self._turn(window):
            pass

    def _turn(self, window: curses.window) -> bool:
        """Show what there is and take one key; False to quit."""
        snapshot = self._seen if self._state.paused else self._feed.snapshot
        self._seen = snapshot
        height, cells = window.getmaxyx()
        self._state = scrolled(self._state, snapshot, height)
        self._draw(window, render(self._state, snapshot, cells, height))
        try:
            pressed = window.get_wch()
        except curses.error:
            return True
        key = _NAMES.get(pressed, pressed)
        if not isinstance(key, str):
            return True
        self._state, action = press(self._state, key, snapshot, height)
        match action:
            case Quit():
                return False
            case EndSession(session):
                self._feed.end(session)
        self._feed.show(self._selection())
        return True

    def _selection(self) -> Selection:
        state = self._state
        reading = state.mode is ViewMode.DETAIL or (state.mode is ViewMode.CONFIRM and state.back is ViewMode.DETAIL)
        return Selection(state.sort, state.search, state.selected if reading else None, state.totals == "peer")

    def _draw(self, window: curses.window, lines: list[Line]) -> None:
        window.erase()
        for row, line in enumerate(lines):
            text = line.text.encode(window.encoding, "replace").decode(window.encoding)
            with contextlib.suppress(curses.error):  # the last cell of the screen takes its character, and says no
                window.addstr(row, 0, text, self._styles[line.style])
        window.refresh()


def _styles() -> dict[Style, int]:
    bad = curses.A_BOLD
    if curses.has_colors():
        curses.use_default_colors()
        curses.init_pair(1, curses.COLOR_RED, -1)
        bad |= curses.color_pair(1)
    return {
        Style.NORMAL: curses.A_NORMAL,
        Style.TITLE: curses.A_BOLD | curses.A_UNDERLINE,
        Style.SELECTED: curses.A_REVERSE,
        Style.BAD: bad,
        Style.FAINT: curses.A_DIM,
    }
