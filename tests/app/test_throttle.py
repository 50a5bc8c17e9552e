"""How many lines the log has of each kind, and that what is left out is counted."""

from __future__ import annotations

import contextlib
import io
from collections import Counter

import pytest
import structlog

from turnsvr.app import log, throttle
from turnsvr.app.throttle import ALL_USERS, BY_CLIENT, BY_USER, Throttle


def test_a_flood_is_throttled_and_the_next_line_tells_how_many_are_missing() -> None:
    now = 0.0
    throttle = Throttle(lambda: now, rate=1.0, burst=3.0)
    assert passing(throttle, 10, event="a fault") == 3
    assert throttle(None, "warning", {"event": "another"}) == {"event": "another"}
    now = 1.5
    assert throttle(None, "warning", {"event": "a fault"})["suppressed"] == 7
    now = 3.0
    assert "suppressed" not in throttle(None, "warning", {"event": "a fault"})


def passing(throttle: Throttle, count: int, **fields: str) -> int:
    """How many of so many equal events pass."""
    passed = 0
    for _ in range(count):
        with contextlib.suppress(structlog.DropEvent):
            throttle(None, "warning", dict(fields))
            passed += 1
    return passed


def failing(throttle: Throttle, client: str, count: int) -> int:
    return passing(throttle, count, event="authentication failed", client=client)


def test_no_client_s_failures_hide_another_s() -> None:
    throttle = Throttle(lambda: 0.0, salt=b"one in which these are of different slots")
    for flooder in ("203.0.113.1", "2001:db8::1", "203.0.113.2"):
        assert failing(throttle, flooder, 10_000) == 20
    assert failing(throttle, "203.0.113.9", 10) == 10
    assert failing(throttle, "2001:db8:0:1::1", 10) == 10


def test_an_ipv6_client_is_its_network() -> None:
    throttle = Throttle(lambda: 0.0)
    assert sum(failing(throttle, f"2001:db8::{host:x}", 1) for host in range(1000)) == 20


def test_a_client_that_goes_on_is_told_now_and_then() -> None:
    now = 0.0
    throttle = Throttle(lambda: now)
    failing(throttle, "203.0.113.1", 100)
    now = 20.0
    event = {"event": "authentication failed", "client": "203.0.113.1"}
    assert throttle(None, "warning", event)["suppressed"] == 80
    assert failing(throttle, "203.0.113.1", 100) == 0


def test_all_clients_together_are_bounded() -> None:
    throttle = Throttle(lambda: 0.0)
    clients = [f"10.{each >> 8 & 255}.{each & 255}.1" for each in range(20_000)]
    passed = sum(failing(throttle, client, 5) for client in clients)
    assert 10_000 < passed <= 20 * 1024


def test_a_library_s_messages_do_not_hide_another_s() -> None:
    throttle = Throttle(lambda: 0.0, rate=1.0, burst=3.0)
    assert passing(throttle, 100, event="library message", source="uvicorn.error") == 3
    assert passing(throttle, 1, event="library message", source="asyncio") == 1


def of_user(throttle: Throttle, text: str, user: str, count: int, **fields: str) -> int:
    return passing(throttle, count, event=text, realm="example.org", user=user, **fields)


@pytest.mark.parametrize("text", BY_USER)
def test_one_user_s_lines_are_bounded_and_hide_no_other_s(text: str) -> None:
    now = 0.0
    throttle = Throttle(lambda: now)
    share = BY_USER[text]
    assert of_user(throttle, text, "alice", 10_000) == share.burst
    assert of_user(throttle, text, "bob", 1) == 1
    now = 120.0
    assert of_user(throttle, text, "alice", 10_000) == min(share.burst, 120 * share.rate)


def test_a_bound_that_a_user_meets_is_told_once_a_minute() -> None:
    clock = iter(range(3_000))
    throttle = Throttle(lambda: next(clock, 3_000) / 10)
    assert of_user(throttle, "request refused", "alice", 3_000, reason="limits.allocations_per_user") == 5
    assert of_user(throttle, "request refused", "alice", 1, reason="limits.allocations") == 1
    assert passing(throttle, 1, event="request refused", realm="another", user="alice") == 1


@pytest.mark.parametrize("text", BY_USER)
def test_all_users_together_are_bounded(text: str) -> None:
    throttle = Throttle(lambda: 0.0)
    assert sum(of_user(throttle, text, f"user {each}", 1) for each in range(20_000)) == ALL_USERS.burst


def test_users_that_are_told_apart_are_bounded() -> None:
    subject = Throttle(lambda: 0.0)
    for each in range(3 * throttle._MAX_USERS):
        of_user(subject, "request refused", f"user {each}", 2)
    assert len(subject._users) <= throttle._MAX_USERS
    assert len(subject._suppressed) <= throttle._MAX_USERS
    assert subject.take_suppressed() == {"request refused": 6 * throttle._MAX_USERS - ALL_USERS.burst}


@pytest.mark.parametrize("text", [*BY_CLIENT, *BY_USER, "another kind"])
def test_written_and_suppressed_lines_add_up(text: str) -> None:
    now = 0.0
    subject = Throttle(lambda: now)
    count: Counter[str] = Counter()
    for step in range(3_000):
        now = step * 0.1
        event = {"event": text, "client": f"10.0.0.{step % 3}", "realm": "r", "user": f"{step % 5}"}
        with contextlib.suppress(structlog.DropEvent):
            count["written"] += 1 + subject(None, "info", dict(event)).get("suppressed", 0)
        if step % 500 == 0:
            count["written"] += subject.take_suppressed().get(text, 0)
    assert count["written"] + subject.take_suppressed().get(text, 0) == 3_000
    assert not subject.take_suppressed()


def test_what_no_line_has_told_of_is_told_now_and_then() -> None:
    stream = io.StringIO()
    log.configure("text", "info", stream)
    for _ in range(500):
        structlog.get_logger().info("session started", realm="r", user="alice")
    log.tell_suppressed()
    log.tell_suppressed()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 201
    assert lines[-1].partition(" ")[2] == 'warning lines suppressed of="session started" suppressed=300'
