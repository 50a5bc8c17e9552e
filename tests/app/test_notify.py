"""What the service manager hears, on a socket of its kind."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator

import pytest

from turnsvr.app.notify import ServiceManager


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """A datagram socket with an abstract name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0turnsvr-test-{secrets.token_hex(8)}")
        listener.settimeout(5)
        yield listener


def environ_of(listener: socket.socket) -> dict[str, str]:
    name = listener.getsockname()
    return {"NOTIFY_SOCKET": "@" + name[1:].decode()}


def test_states_are_datagrams_of_assignments(manager: socket.socket) -> None:
    service = ServiceManager(environ_of(manager))
    service.ready("serving")
    service.status("draining")
    service.alive()
    service.stopping("ending")
    assert [manager.recv(1000) for _ in range(4)] == [
        b"READY=1\nSTATUS=serving",
        b"STATUS=draining",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=ending",
    ]


def test_reloading_carries_the_time(manager: socket.socket) -> None:
    ServiceManager(environ_of(manager)).reloading()
    first, second = manager.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(value) > 0


def test_a_socket_in_the_file_system_serves_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("n") / "s"  # such paths have at most 107 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        ServiceManager({"NOTIFY_SOCKET": str(path)}).alive()
        assert listener.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("path", [None, "", "relative", "/nonexistent/notify", "@turnsvr-nobody-listens-here"])
def test_without_a_service_manager_nothing_happens(path: str | None) -> None:
    ServiceManager({} if path is None else {"NOTIFY_SOCKET": path}).ready("serving")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_only_when_it_watches_this_process(environ: dict[str, str], seconds: float | None) -> None:
    assert ServiceManager(environ).watchdog == seconds
