"""The Unix socket: whose it is, where it is, and what becomes of those that others left or hold."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.admin.conftest import Site, StartAdmin, on_socket
from tests.conftest import Serve
from turnsvr.admin.places import places
from turnsvr.admin.unixsocket import Taken, UnixListener
from turnsvr.app.errors import StartError


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_the_server_s_own_user_may_connect(site: Site) -> None:
    assert stat.S_ISSOCK(site.socket.stat().st_mode)
    assert mode_of(site.socket) == 0o600


@pytest.fixture
def directories() -> Iterator[tuple[Path, Path]]:
    """One of ours, and one whose group 7654 is let in; tmp_path lies in a directory that others may not enter."""
    with tempfile.TemporaryDirectory() as name:
        own, shared = Path(name, "own"), Path(name, "shared")
        own.mkdir()
        shared.mkdir()
        os.chown(shared, 0, 7654)
        for directory, mode in ((Path(name), 0o755), (own, 0o755), (shared, 0o2750)):
            directory.chmod(mode)
        yield own, shared


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
async def test_another_user_is_kept_out_and_let_in_with_the_directory_s_group(
    start_admin: StartAdmin, request: pytest.FixtureRequest
) -> None:
    own, shared = (each / "admin.sock" for each in request.getfixturevalue("directories"))
    for path in (own, shared):
        await start_admin(admin={"socket": path})
    assert mode_of(own) == 0o600
    assert mode_of(shared) == 0o660
    assert shared.stat().st_gid == 7654
    assert await asyncio.to_thread(connects_as, 4321, 4321, own) == "PermissionError"
    assert await asyncio.to_thread(connects_as, 4321, 4321, shared) == "PermissionError"
    assert await asyncio.to_thread(connects_as, 4321, 7654, shared) == "connected"


def connects_as(user: int, group: int, path: Path) -> str:
    command = [sys.executable, "-I", "-c", CONNECT, str(user), str(group), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


CONNECT = """
import os, socket, sys
user, group, path = sys.argv[1:]
os.setgroups([])
os.setgid(int(group))
os.setuid(int(user))
try:
    socket.socket(socket.AF_UNIX).connect(path)
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""


async def test_the_umask_takes_nothing_away_and_adds_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        UnixListener(tmp_path / "open.sock").socket.close()
        os.umask(0o777)
        UnixListener(tmp_path / "closed.sock").socket.close()
        assert os.umask(0o777) == 0o777
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "open.sock") == mode_of(tmp_path / "closed.sock") == 0o600


async def test_what_a_dead_server_left_is_replaced(start_admin: StartAdmin, tmp_path: Path) -> None:
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    await start_admin(admin={"socket": path})
    async with on_socket(path) as http:
        assert (await http.get("/status")).status_code == 200


async def test_a_living_server_keeps_its_socket(site: Site, start_admin: StartAdmin) -> None:
    with pytest.raises(StartError, match="another server listens on"):
        await start_admin(admin={"socket": site.socket})
    assert (await site.http.get("/status")).status_code == 200


def test_of_servers_that_start_together_one_gets_the_place(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", TAKES_THE_PLACE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    try:
        said = [process.stdout.readline().strip() for process in starting if process.stdout]
        assert sorted(said) == ["taken"] * 5 + ["theirs"]
    finally:
        for process in starting:
            process.communicate("")


TAKES_THE_PLACE = """
import pathlib, sys
from turnsvr.admin.unixsocket import Taken, UnixListener
try:
    listener = UnixListener(pathlib.Path(sys.argv[1]))
    print("theirs", flush=True)
except Taken:
    print("taken", flush=True)
sys.stdin.read()
"""


def test_whoever_holds_the_directory_s_lock_keeps_nobody_out(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        UnixListener(tmp_path / "admin.sock").socket.close()
    finally:
        os.close(descriptor)
    assert os.listdir(tmp_path) == ["admin.sock"]


def test_our_own_lock_is_waited_for_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnsvr.admin.unixsocket._LOCK_PAUSE", 0.0)
    lock = tmp_path / "admin.sock.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"look who holds .*admin\.sock\.lock"):
            UnixListener(tmp_path / "admin.sock")
    assert mode_of(lock) == 0o600
    UnixListener(tmp_path / "admin.sock").socket.close()


def make_link(lock: Path) -> None:
    lock.symlink_to(lock.with_name("precious"))


def make_directory(lock: Path) -> None:
    lock.mkdir()


def make_pipe(lock: Path) -> None:
    os.mkfifo(lock)


@pytest.mark.parametrize("put", [make_link, make_directory, make_pipe])
def test_what_is_no_lock_is_left_alone(tmp_path: Path, put: Callable[[Path], None]) -> None:
    lock = tmp_path / "admin.sock.lock"
    put(lock)
    before = lock.lstat()
    with pytest.raises(OSError, match=r"symbolic links|directory|belongs to another user"):
        UnixListener(tmp_path / "admin.sock")
    assert (before.st_ino, before.st_mode) == (lock.lstat().st_ino, lock.lstat().st_mode)
    assert os.listdir(tmp_path) == [lock.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_somebody_else_s_lock_is_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "admin.sock.lock"
    lock.touch(0o666)
    os.chown(lock, 4321, 4321)
    with pytest.raises(OSError, match="belongs to another user"):
        UnixListener(tmp_path / "admin.sock")
    assert lock.exists()


async def test_a_directory_where_others_could_replace_the_socket_is_refused(
    start_admin: StartAdmin, tmp_path: Path
) -> None:
    os.chmod(tmp_path, 0o777)
    with pytest.raises(StartError, match="every user may write to its directory"):
        await start_admin(admin={"socket": tmp_path / "admin.sock"})
    os.chmod(tmp_path, 0o1777)
    await start_admin(admin={"socket": tmp_path / "admin.sock"})


async def test_a_server_with_a_full_backlog_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(Taken):
            UnixListener(path)
    assert path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(start_admin: StartAdmin, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(StartError, match="no socket"):
        await start_admin(admin={"socket": path})
    assert path.read_text() == "data"


@pytest.mark.parametrize(("name", "said"), [("nowhere/admin.sock", "no such directory"), ("x" * 150, "too long")])
async def test_a_place_that_cannot_be_had_is_one_line(
    start_admin: StartAdmin, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(StartError, match=said) as caught:
        await start_admin(admin={"socket": tmp_path / name})
    assert "\n" not in str(caught.value)


async def test_it_goes_with_the_server(site: Site) -> None:
    await site.application.stop()
    assert not site.socket.exists()
    await site.application.stop()


async def test_a_socket_that_somebody_else_has_put_there_stays(site: Site) -> None:
    site.socket.unlink()
    other = UnixListener(site.socket)
    await site.application.stop()
    assert site.socket.exists()
    other.remove()
    assert not site.socket.exists()
    other.socket.close()


def test_the_service_manager_s_directory_comes_first_and_the_user_s_own_last() -> None:
    everywhere = {"RUNTIME_DIRECTORY": "/run/one:/run/two", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert places(everywhere) == (
        Path("/run/one/admin.sock"),
        Path("/run/turnsvr/admin.sock"),
        Path("/run/user/7/turnsvr/admin.sock"),
    )
    assert places({}) == (Path("/run/turnsvr/admin.sock"),)
    assert places({"RUNTIME_DIRECTORY": "/run/turnsvr"}) == (Path("/run/turnsvr/admin.sock"),)


async def test_auto_takes_a_directory_that_it_makes(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "made"))
    application = await serve(admin={})
    assert application.admin is not None
    assert application.admin.listening == (str(tmp_path / "made" / "admin.sock"),)


async def test_auto_yields_to_a_living_server_and_says_so(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    first = await serve(admin={})
    with capture_logs() as logs:
        second = await serve(admin={})
    assert first.admin is not None
    assert second.admin is None
    lines = [line for line in logs if line["event"] == "no admin interface"]
    assert [line["log_level"] for line in lines] == ["info"]
    assert str(tmp_path / "admin.sock") in lines[0]["reason"]
    await second.stop()
    assert (tmp_path / "admin.sock").exists()


async def test_where_there_is_no_directory_auto_serves_on_and_says_so(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnsvr.admin.places.SYSTEM_DIRECTORY", tmp_path / "no" / "such")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with capture_logs() as logs:
        application = await serve(admin={})
    assert application.admin is None
    (line,) = [line for line in logs if line["event"] == "no admin interface"]
    assert (line["log_level"], line["hint"]) == ("info", "set admin.socket")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    application = await serve(admin={})
    assert application.admin is not None
    assert application.admin.listening == (str(tmp_path / "turnsvr" / "admin.sock"),)


async def test_off_is_off(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    application = await serve(admin={"socket": "off"})
    assert application.admin is None
    assert not (tmp_path / "admin.sock").exists()
