"""Log lines on standard error or in a file: text for people, JSON for machines, the same events in both.

What came from the network is written so that it cannot end a line, forge a field or control a terminal. Secrets are
never given to the log. Nothing is logged at packet rate: every line is throttled (throttle.py), and a line that follows
suppressed ones says how many they were.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import time
from typing import Any, Literal, TextIO, cast

import structlog

from turnsvr.app.logfile import LogFile
from turnsvr.app.throttle import LIBRARY, EventDict, Throttle

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PLAIN = re.compile(r"[\w.:/@%+\[\]*,-]+", re.ASCII)
_MAX_TEXT = 1024
"""Characters of one value; user names are at most 508 bytes."""


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
    tell_suppressed()
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


def tell_suppressed() -> None:
    """Log how many lines were suppressed of which no line has told yet; to be called now and then."""
    for throttle in structlog.get_config()["processors"]:
        if isinstance(throttle, Throttle):
            for text, suppressed in sorted(throttle.take_suppressed().items()):
                structlog.get_logger().warning("lines suppressed", of=text, suppressed=suppressed)


def is_enabled(level: int) -> bool:
    """Whether an event of this level, one of logging's, is written: for those that cost something to describe."""
    return _level.isEnabledFor(level)


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
    """A stream whose failures stop no caller: a full disk, a reader that has gone. What it cannot take is lost."""

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
            _LEVELS[level], LIBRARY, source=record.name, text=record.getMessage(), exc_info=record.exc_info
        )
