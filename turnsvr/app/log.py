"""Log lines on standard error or in a file: text for people, JSON for machines, the same events in both.

What came from the network is written so that it cannot end a line, forge a field or steer a terminal. Secrets are
never given to the log. Nothing is logged at packet rate: what strangers can cause is throttled, and a line that
follows suppressed ones says how many they were.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Literal, TextIO, cast

import structlog

from turnsvr.app.logfile import LogFile
from turnsvr.limits import TokenBucket, client_of

EventDict = structlog.typing.EventDict

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PLAIN = re.compile(r"[\w.:/@%+\[\]*,-]+", re.ASCII)
_LINES_A_SECOND = 10.0
_BURST = 100.0
_CLIENT_LINES_A_SECOND = 0.05
_CLIENT_BURST = 20.0
_CLIENT_SLOTS = 1024
_MAX_TEXT = 1024
"""Characters of one value; user names are at most 508 bytes."""

UNTHROTTLED = frozenset({"session started", "session ended"})
"""Events that are complete, because somebody counts them: quotas bound how often they come."""

BY_CLIENT = frozenset({"authentication failed", "admin request refused"})
"""Events that clients are judged by: no flood of one may hide another's. Their field `client` is a host."""

_LIBRARY = "library message"


class _Output:
    file: LogFile | None = None


_output = _Output()
_level = logging.getLogger("turnsvr.lines")
"""Knows our level, for is_enabled(); nothing is logged through it, and no library's logger stands below it."""
_level.setLevel(logging.DEBUG)


def write_to(file: LogFile | None) -> None:
    """Where configure() has lines go from now on when it names no stream: this file, or standard error."""
    _output.file = file


def configure(form: Literal["text", "json"], level: str, stream: TextIO | None = None) -> None:
    """Log to the stream, or where write_to() said, from this level up. May be called again."""
    stream = stream or cast("TextIO | None", _output.file) or sys.stderr
    threshold = _LEVELS[level]
    _level.setLevel(threshold)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            Throttle(time.monotonic),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render_json if form == "json" else render_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Forgiving(stream))),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    root.setLevel(max(threshold, logging.WARNING))


def is_enabled(level: int) -> bool:
    """Whether an event of this level, one of logging's, is written: for those that cost something to describe."""
    return _level.isEnabledFor(level)


class Throttle:
    """Drops an event that comes too often; the next of its kind that passes tells how many were suppressed.

    Kinds are event texts, which are ours and few; of libraries' messages each logger's are one kind. BY_CLIENT events
    are of one kind for each client, which is its IPv4 address or its IPv6 /64. Clients are told apart by a slot of a
    fixed number, so that all lines together stay bounded; which clients share one is up to the salt.
    """

    def __init__(
        self, clock: Callable[[], float], rate: float = _LINES_A_SECOND, burst: float = _BURST, salt: bytes = b""
    ) -> None:
        """rate in lines a second, of kinds that are not of a client; salt up to 64 bytes, random when empty."""
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._salt = salt or secrets.token_bytes(16)
        self._buckets: dict[tuple[str, str | int], TokenBucket] = {}
        self._suppressed: dict[tuple[str, str | int], int] = {}

    def __call__(self, logger: object, method: str, event: EventDict) -> EventDict:
        text = event["event"]
        if text in UNTHROTTLED:
            return event
        now = self._clock()
        kind = self._kind(text, event)
        bucket = self._buckets.get(kind)
        if bucket is None:
            bucket = self._buckets[kind] = self._fresh(text, now)
        if not bucket.take(1.0, now):
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            raise structlog.DropEvent
        suppressed = self._suppressed.pop(kind, 0)
        return {**event, "suppressed": suppressed} if suppressed else event

    def _kind(self, text: str, event: EventDict) -> tuple[str, str | int]:
        if text in BY_CLIENT:
            return text, self._slot(str(event.get("client", "")))
        return text, str(event.get("source", "")) if text == _LIBRARY else ""

    def _slot(self, host: str) -> int:
        digest = blake2b(_network(host), digest_size=8, key=self._salt).digest()
        return int.from_bytes(digest, "big") % _CLIENT_SLOTS

    def _fresh(self, text: str, now: float) -> TokenBucket:
        if text in BY_CLIENT:
            return TokenBucket(_CLIENT_LINES_A_SECOND, _CLIENT_BURST, now)
        return TokenBucket(self._rate, self._burst, now)


def _network(host: str) -> bytes:
    """Who is one client; a text that is no address is one, too."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.encode(errors="replace")
    return client_of(address.packed)


def render_text(logger: object, method: str, event: EventDict) -> str:
    """`TIME level event key=value …`, a trace-back indented below."""
    exception = event.pop("exception", None)
    head = f"{event.pop('timestamp', '')} {event.pop('level', method):<7} {printable(str(event.pop('event', '')))}"
    fields = "".join(f" {key}={quoted(value)}" for key, value in event.items())
    if exception is None:
        return head + fields
    return head + fields + "".join(f"\n    {printable(line)}" for line in str(exception).splitlines())


def render_json(logger: object, method: str, event: EventDict) -> str:
    """One object, ASCII only."""
    ordered = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return json.dumps({**ordered, **event}, default=str)


def quoted(value: Any) -> str:
    """A value for a text line: bare when it is one plain word, else in quotes as JSON has them."""
    text = str(value)
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + "…"
    if _PLAIN.fullmatch(text):
        return text
    return printable(json.dumps(text, ensure_ascii=False))


def printable(text: str) -> str:
    """The text with everything that is not printable as \\uXXXX."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    encoded = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{encoded[at : at + 2].hex()}" for at in range(0, len(encoded), 2))


class _Forgiving:
    """A stream whose failures stop nobody: a disk that is full, a reader that has gone. What it cannot take is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Bridge(logging.Handler):
    """What libraries log comes out in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        # The throttle goes by the event's text and the source, so a library's own text is a field.
        structlog.get_logger().log(
            _LEVELS[level], _LIBRARY, source=record.name, text=record.getMessage(), exc_info=record.exc_info
        )
