"""What a crashed process has left, read as a hand-over: the journal and the sockets that journal.py has kept."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from typing import Final

import structlog

from turnsvr.app.handover import document, records
from turnsvr.app.handover.journal import JOURNAL, MEMBER
from turnsvr.app.handover.store import HostTime, identity
from turnsvr.app.handover.wire import MOST_DESCRIPTORS, Process, close_all, kind_of
from turnsvr.turn.snapshot import Document, Unreadable, Value, read_document, read_int, read_list

_MOST_TEXT: Final = MEMBER.size * MOST_DESCRIPTORS
_LAST: Final[list[tuple[Document, list[int]]]] = [
    ({"kind": "go", "gone": [], "missing": [], "rests": [], "waiting": [], "others": {"revoked": []}}, []),
    ({"kind": "left"}, []),
]

_log = structlog.get_logger()


class Recovered:
    """Stands in the place of a wire, and returns the messages that the crashed process would have sent."""

    process: Process | None = None

    def __init__(self, kept: Sequence[int]) -> None:
        """kept: ends of socket pairs, ours from here on."""
        self._sources = list(kept)
        self._messages: list[tuple[Document, list[int]]] = []
        self._taken: dict[int, tuple[int, int]] = {}

    def open(self, now: HostTime) -> None:
        """Read everything. Raises Unreadable for a journal that is damaged, or whose times mean nothing now."""
        sockets: dict[int, list[int]] = {}
        journal: list[int] = []
        for source in self._sources:
            text, descriptors = _last_message(source)
            self._taken.update({each: identity(each) for each in descriptors})
            if text == JOURNAL:
                journal = descriptors
            else:
                sockets.update(_members(text, descriptors))
        if not journal:
            raise Unreadable("there is no journal")
        try:
            said = records.unpack(records.read_all(journal[0]), cut_off=True)
        except OSError as error:
            raise Unreadable(error.strerror or "it cannot be read") from None
        finally:
            os.close(journal[0])
            del self._taken[journal[0]]
        self._messages = _as_a_hand_over([message for message, _ in said], journal[1:], sockets, now)[::-1]
        used = {each for _, descriptors in self._messages for each in descriptors}
        for each in [each for each in self._taken if each not in used]:
            os.close(each)
            del self._taken[each]

    async def send(self, message: Document, descriptors: Sequence[int] = ()) -> None:
        """Drop the message: no process reads it."""

    async def receive(self, seconds: float | None = None) -> tuple[Document, list[int]]:
        """Raises Unreadable at the end."""
        if not self._messages:
            raise Unreadable("it has no end")
        return self._messages.pop()

    def close(self) -> None:
        close_all(self._sources)
        self._sources.clear()

    def discard(self) -> None:
        """Close the descriptors that receive() has returned and that are still open. Call it once nothing uses them."""
        for source in self._sources:
            self._taken.update({each: identity(each) for each in _last_message(source)[1]})
        for descriptor, what in self._taken.items():
            with contextlib.suppress(OSError):
                if identity(descriptor) == what:
                    os.close(descriptor)
        self._taken.clear()
        self.close()


def _last_message(source: int) -> tuple[bytes, list[int]]:
    """The last message in a socket pair, which is empty afterwards; empty where there is none."""
    text, descriptors = b"", list[int]()
    try:
        pair = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=os.dup(source))
    except OSError:
        return text, descriptors
    with pair:
        pair.setblocking(False)
        with contextlib.suppress(OSError):
            while True:
                data, found, _, _ = socket.recv_fds(pair, _MOST_TEXT, MOST_DESCRIPTORS)
                if not data:
                    break
                close_all(descriptors)
                text, descriptors = data, list(found)
    for each in descriptors:
        os.set_inheritable(each, False)
    return text, descriptors


def _members(text: bytes, descriptors: list[int]) -> dict[int, list[int]]:
    """Sockets by session, of those that are there whole."""
    found: dict[int, list[int]] = {}
    at = 0
    for number, count in MEMBER.iter_unpack(text[: len(text) // MEMBER.size * MEMBER.size]):
        if at + count <= len(descriptors):
            found[number] = descriptors[at : at + count]
        at += count
    return found


def _as_a_hand_over(
    said: list[Document], listeners: list[int], sockets: dict[int, list[int]], now: HostTime
) -> list[tuple[Document, list[int]]]:
    """Raises Unreadable."""
    if [each.get("kind") for each in said[:4]] != ["kept", "begin", "rules", "sockets"]:
        raise Unreadable("a journal without its beginning")
    moment, begin, rules, of = said[:4]
    HostTime.read(moment).check(now)
    document.check_version(begin.get("version"))
    if len(read_list(of.get("are"), "are")) != len(listeners):
        raise Unreadable("its listeners are not there")
    sessions: dict[int, Document] = {}
    others = read_document(rules.get("others"), "others")
    revoked = [*read_list(others.get("revoked"), "revoked")]
    for each in said[4:]:
        kind = kind_of(each)
        if kind == "session":
            sessions[read_int(each.get("number"), "number")] = read_document(each.get("session"), "session")
        elif kind == "ended":
            sessions.pop(read_int(each.get("number"), "number"), None)
        elif kind == "revoked":
            revoked += read_list(each.get("are"), "are")
        else:
            raise Unreadable(f"a record {kind!a}")
    whole = {number: each for number, each in sessions.items() if _is_whole(each, sockets.get(number, []))}
    if len(whole) < len(sessions):
        _log.warning("sessions without their sockets have ended", sessions=len(sessions) - len(whole))
    _log.warning("the process before this one has crashed", sessions=len(whole))
    return [
        (begin, []),
        (_with_numbers_beyond(rules | {"others": others | {"revoked": revoked}}, whole), []),
        ({"kind": "staying", "are": [], "last_connection": 0}, []),
        (of, listeners),
        *_in_messages(whole, sockets),
        ({"kind": "end", "sessions": len(whole), "connections": 0}, []),
        *_LAST,
    ]


def _is_whole(session: Document, descriptors: list[int]) -> bool:
    return document.relays_of(session) == len(descriptors) > 0


def _with_numbers_beyond(message: Document, sessions: dict[int, Document]) -> Document:
    """The rules as they were when the journal began, with a next number beyond those of all sessions."""
    rules = read_document(message.get("rules"), "rules")
    beyond = max(sessions, default=0) + 1
    return message | {"rules": rules | {"next_number": max(beyond, read_int(rules.get("next_number"), "next_number"))}}


def _in_messages(sessions: dict[int, Document], sockets: dict[int, list[int]]) -> list[tuple[Document, list[int]]]:
    """The sessions in messages, with empty buckets: each may have relayed already what it had saved up."""
    numbers, now = list(sessions), time.monotonic()
    found = []
    for at in range(0, len(numbers), document.SESSIONS_AT_ONCE):
        part = numbers[at : at + document.SESSIONS_AT_ONCE]
        are: list[Value] = [sessions[number] | {"levels": [0.0, 0.0], "at": now} for number in part]
        message: Document = {"kind": "sessions", "are": are}
        found.append((message, [each for number in part for each in sockets[number]]))
    return found
