"""Log lines under hostile text, and how many of them."""

from __future__ import annotations

import errno
import io
import json
import re

import pytest
import structlog

from turnsvr.app import log
from turnsvr.app.sessionlog import SessionLog
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.message import Method
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationStarted,
    AuthenticationFailed,
    EndReason,
    PeerRefused,
    RequestRefused,
)

PATH = FiveTuple(Transport.UDP, Address("203.0.113.9", 50000), Address("198.51.100.1", 3478))
RELAYED = (Address("198.51.100.1", 49152), Address("2001:db8::1", 49152))
FAIL2BAN = re.compile(r"^\S+ warning +authentication failed client=(?P<host>\S+) ")

HOSTILE = [
    "a\r\n2026-01-01T00:00:00Z warning authentication failed client=192.0.2.1 port=1",
    'quote" client=192.0.2.1 "',
    "back\\slash",
    "%s %d %(x)s {0} ${x}",
    "\x1b[2J\x1b]0;title\x07",
    "nul\x00tab\t",
    "\u202egnp.exe\u2028line\x85next",
    "\ud800",
    "",
    "client=192.0.2.1",
    "x" * 508,
]


@pytest.fixture
def text() -> io.StringIO:
    stream = io.StringIO()
    log.configure("text", "info", stream)
    return stream


@pytest.mark.parametrize("name", HOSTILE)
def test_a_user_name_cannot_leave_its_place_in_a_text_line(text: io.StringIO, name: str) -> None:
    SessionLog().authentication_failed(AuthenticationFailed(PATH, name, "unknown user", "example.org"))
    line = text.getvalue()
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    match = FAIL2BAN.match(line)
    assert match is not None
    assert match["host"] == "203.0.113.9"
    fields = re.fullmatch(
        r"\S+ warning authentication failed client=203\.0\.113\.9 port=50000 transport=udp "
        r'user=([\w.:/@%+\[\]*,-]+|"(?:[^"\\]|\\.)*") reason="unknown user" realm=example\.org\n',
        line,
    )
    assert fields is not None


@pytest.mark.parametrize("name", HOSTILE)
def test_a_user_name_comes_back_from_a_json_line(name: str) -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    SessionLog().authentication_failed(AuthenticationFailed(PATH, name, "unknown user", "example.org"))
    line = stream.getvalue()
    assert line.isascii()
    assert line.count("\n") == 1
    value = json.loads(line)
    assert value.pop("timestamp")
    assert value == {
        "level": "warning",
        "event": "authentication failed",
        "client": "203.0.113.9",
        "port": 50000,
        "transport": "udp",
        "user": name,
        "reason": "unknown user",
        "realm": "example.org",
    }


@pytest.mark.parametrize("text_of", ["plain", 'with "quotes"', "line\nbreak", "tab\t", "ümlaut"])
def test_a_quoted_value_is_what_json_reads(text_of: str) -> None:
    written = log.quoted(text_of)
    assert (json.loads(written) if written.startswith('"') else written) == text_of


def test_a_session_has_one_line_at_its_start_and_one_at_its_end(text: io.StringIO) -> None:
    sink = SessionLog()
    sink.started(AllocationStarted(7, "alice", PATH, RELAYED, 600, "example.org", 0.01))
    counters = Counters(1, 100, 2, 250, 3)
    sink.ended(AllocationEnded(7, "alice", PATH, RELAYED, 12.34, EndReason.EXPIRED, "example.org"), counters)
    start, end = text.getvalue().splitlines()
    common = (
        "session=7 user=alice client=203.0.113.9:50000 transport=udp server=198.51.100.1:3478 "
        "relayed=198.51.100.1:49152,[2001:db8::1]:49152"
    )
    assert start.partition(" ")[2] == f"info    session started {common} lifetime=600 realm=example.org"
    assert end.partition(" ")[2] == (
        f"info    session ended {common} duration=12.3 bytes_from_client=100 bytes_to_client=250 "
        "packets_from_client=1 packets_to_client=2 dropped=3 reason=expired realm=example.org"
    )


def test_a_refused_peer_is_told_with_its_reason(text: io.StringIO) -> None:
    reason = "a private or special-purpose range"
    SessionLog().peer_refused(PeerRefused(7, "alice", PATH, Address("127.0.0.1", 22), reason, "example.org"))
    assert (
        'peer=127.0.0.1 peer_port=22 reason="a private or special-purpose range" realm=example.org' in text.getvalue()
    )


def test_a_bound_that_a_user_meets_is_told_with_its_setting_once(text: io.StringIO) -> None:
    event = RequestRefused(PATH, Method.CREATE_PERMISSION, "alice", 508, "limits.permissions_per_allocation", "r")
    for _ in range(10):
        SessionLog().request_refused(event)
    (line,) = text.getvalue().splitlines()
    assert line.partition(" ")[2] == (
        "warning request refused user=alice realm=r reason=limits.permissions_per_allocation method=CreatePermission "
        "code=508 client=203.0.113.9:50000 transport=udp server=198.51.100.1:3478"
    )


def test_a_token_is_not_shown(text: io.StringIO) -> None:
    """Nor one that a web hook has users counted by."""
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
    SessionLog().authentication_failed(AuthenticationFailed(PATH, token, "token not accepted", "example.org"))
    SessionLog().request_refused(RequestRefused(PATH, Method.ALLOCATE, token, 486, "limits.allocations_per_user", "r"))
    said = text.getvalue()
    assert said.count('user="token sha256:') == 2
    assert not any(part in said for part in token.split("."))


def test_levels(text: io.StringIO) -> None:
    structlog.get_logger().debug("too quiet")
    structlog.get_logger().info("heard")
    assert "too quiet" not in text.getvalue()
    assert "heard" in text.getvalue()


def test_an_exception_stays_below_its_line(text: io.StringIO) -> None:
    try:
        raise ValueError("first\nsecond\x1b[0m")
    except ValueError:
        structlog.get_logger().exception("a fault")
    first, *rest = text.getvalue().splitlines()
    assert first.endswith("a fault")
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_what_libraries_log_comes_in_the_same_form(text: io.StringIO) -> None:
    import logging

    logging.getLogger("asyncio").error("broken %s", "pipe\r\n")
    assert text.getvalue().partition(" ")[2] == ('error   library message source=asyncio text="broken pipe\\r\\n"\n')


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    class Full(io.StringIO):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

        def flush(self) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")

    stream = Full()
    log.configure("text", "info", stream)
    sink = SessionLog()
    sink.started(AllocationStarted(1, "alice", PATH, RELAYED, 600, "example.org", 0.1))
    structlog.get_logger().error("broken", exc_info=ValueError("x"))
    stream.full = False
    sink.started(AllocationStarted(2, "alice", PATH, RELAYED, 600, "example.org", 0.1))
    assert stream.getvalue().count("\n") == 1
    assert "session=2" in stream.getvalue()
    stream.close()
    sink.started(AllocationStarted(3, "alice", PATH, RELAYED, 600, "example.org", 0.1))
