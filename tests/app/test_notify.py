"""What the service manager hears, on a socket of its kind."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from turnsvr.app.notify import ServiceManager, inherited


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


async def test_descriptors_are_given_away_under_a_name(manager: socket.socket) -> None:
    service = ServiceManager(environ_of(manager))
    ours, its = socket.socketpair()
    with ours, its:
        service.keep(its.fileno(), "one")
        service.forget("one")
        data, [kept], _, _ = socket.recv_fds(manager, 1000, 1)
        assert data == b"FDSTORE=1\nFDNAME=one\nFDPOLL=0"
        assert manager.recv(1000) == b"FDSTOREREMOVE=1\nFDNAME=one"
        ours.send(b"x")
        with socket.socket(fileno=kept) as same:
            assert same.recv(1) == b"x"


async def test_who_waits_hears_when_everything_is_done(manager: socket.socket) -> None:
    service = ServiceManager(environ_of(manager))
    waiting = asyncio.create_task(service.settled(5.0))
    data, [barrier], _, _ = await asyncio.to_thread(socket.recv_fds, manager, 1000, 1)
    assert data == b"BARRIER=1"
    assert not waiting.done()
    os.close(barrier)
    assert await waiting
    assert not await service.settled(0.01)
    os.close(socket.recv_fds(manager, 1000, 1)[1][0])


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""},
    ],
)
def test_what_was_handed_to_another_process_is_not_taken(environ: dict[str, str]) -> None:
    assert inherited(environ) == {}
    assert environ == {}


def test_what_was_handed_over_goes_by_its_names() -> None:
    """In a process of its own, whose descriptors have these numbers."""
    program = (
        "import os; from turnsvr.app.notify import inherited; "
        "given = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '9', 'LISTEN_FDNAMES': 'a:b:a'}; "
        "[os.dup2(1, each) for each in range(3, 7)]; os.closerange(7, 20); found = inherited(given); "
        "print(found, os.get_inheritable(3))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "{'a': [3, 5], 'b': [4], '': [6]} False\n"
