"""The commands over the admin interface, against a server in a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.conftest import PASSWORD, PATIENCE, USER, ServerProcess, free_port, need, wait_until
from turnsvr.admin import places
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TurnClient
from turnsvr.credentials import shared_secret
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address

SECRET = "north-north-north"
TOKEN = "open-sesame-open-sesame"

SETTINGS = """
realm: example.org
listen: [udp://127.0.0.1:{port}, tcp://127.0.0.1:{port}]
relay: {{addresses: [127.0.0.1]}}
credentials: {{users: {{{user}: {password}}}, secret: {secret}}}
peers: {{allow: [127.0.0.1]}}
{more}
"""


class Served:
    """A server, and `turnsvr` on its admin socket."""

    def __init__(self, process: ServerProcess, port: int, run: Run) -> None:
        self.process = process
        self.port = port
        self.socket = process.file.parent / "admin.sock"
        self._run = run

    def run(self, command: str, *arguments: str, status: int = 0) -> str:
        """Standard output; errors with a status."""
        result = self._run(command, "--socket", self.socket, *arguments)
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 else result.stderr

    def sessions(self, *arguments: str) -> list[Any]:
        found = json.loads(self.run("sessions", "--json", *arguments))
        assert found["total"] == len(found["sessions"])
        return list(found["sessions"])

    async def client(self, login: Login | None = None) -> TurnClient:
        link = await DatagramLink.open(Address("127.0.0.1", self.port))
        client = TurnClient(link, login or Login(USER, PASSWORD))
        try:
            await client.allocate()
        except BaseException:
            await link.close()
            raise
        return client


def settings(port: int, more: str = "") -> str:
    return SETTINGS.format(port=port, user=USER, password=PASSWORD, secret=SECRET, more=more)


@pytest.fixture
def served(tmp_path: Path, run: Run) -> Iterator[Served]:
    port = free_port()
    with ServerProcess(settings(port), tmp_path) as process:
        yield Served(process, port, run)


async def off_loop(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return await asyncio.to_thread(call, *arguments, **options)


async def test_sessions_are_a_table_and_json(served: Served) -> None:
    client = await served.client()
    title, line = (await off_loop(served.run, "sessions")).splitlines()
    assert title.split()[:4] == ["ID", "USER", "CLIENT", "VIA"]
    assert line.split()[:5] == ["1", USER, str(client.link.local), "udp", str(client.relayed[0])]
    (session,) = await off_loop(served.sessions)
    assert session["client"] == str(client.link.local)
    assert session["permissions"] == []
    assert await off_loop(served.sessions, "--user", "bob") == []
    assert len(await off_loop(served.sessions, "--client", "127.0.0.1", "--sort", "rate")) == 1
    assert "no address" in await off_loop(served.run, "sessions", "--peer", "somewhere", status=1)
    await client.close()


def test_coturn_s_client_is_seen_relaying(served: Served) -> None:
    """Each way some 400 packets of 170 bytes, at 50 packets a second and client."""
    load = subprocess.Popen(
        [
            need("turnutils_uclient"), "-u", USER, "-w", PASSWORD, "-p", str(served.port), "-e", "127.0.0.1",
            "-n", "400", "-m", "2", "-l", "170", "-X", "-c", "-y", "-g", "-z", "20", "127.0.0.1",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def relaying() -> list[Any]:
            found = served.sessions("--sort", "rate")
            return (
                found if sum(each["traffic"]["from_client"]["packets_per_second"] > 10 for each in found) >= 2 else []
            )

        first = wait_until(relaying, "two sessions that relay")[0]
        flow = first["traffic"]["from_client"]
        assert flow["packets_per_second"] < 400
        assert flow["bits_per_second"] == pytest.approx(8 * 170 * flow["packets_per_second"], rel=0.2)
        assert first["user"] == USER
        before = {each["id"] for each in served.sessions()}
        assert served.run("kick", str(first["id"])) == f"ended session {first['id']}\n"
        after = {each["id"] for each in served.sessions()}
        assert first["id"] in before - after
    finally:
        load.kill()
        load.wait()


async def test_kick_ends_what_it_names(served: Served) -> None:
    clients = [await served.client() for _ in range(3)]
    assert await off_loop(served.run, "kick", "1", "2") == "ended session 1\nended session 2\n"
    for client in clients[:2]:
        with pytest.raises(TransactionFailed, match="437"):
            await client.refresh(300)
    assert "there is no session 1" in await off_loop(served.run, "kick", "1", status=1)
    assert await off_loop(served.run, "kick", "--user", USER) == f"ended 1 session of {USER}\n"
    await off_loop(served.run, "kick", "--user", USER, status=1)
    with pytest.raises(TransactionFailed, match="437"):
        await clients[2].refresh(300)
    for client in clients:
        client.relayed = ()
        await client.close()


async def test_kick_with_revoke_keeps_a_time_limited_user_out(served: Served) -> None:
    login = Login(*shared_secret.make(SECRET, "carol", 3600, time.time()))
    client = await served.client(login)
    said = await off_loop(served.run, "kick", "--user", "carol", "--revoke")
    assert said == "ended 1 session of carol, refused 1 user name until expiry\n"
    with pytest.raises(TransactionFailed, match="401"):
        await served.client(login)
    assert "taken off that list" in await off_loop(served.run, "kick", "--user", USER, "--revoke", status=1)
    static = await served.client()
    said = await off_loop(served.run, "kick", "--user", USER, "--revoke")
    assert said.startswith(f"ended 1 session of {USER}, refused 0 user names until expiry\n")
    assert f"not revoked, since not time-limited: {USER};" in said
    static.relayed = ()
    await static.close()
    client.relayed = ()
    await client.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kick"], "name sessions"),
        (["kick", "1", "--user", "a"], "name sessions"),
        (["kick", "1", "--revoke"], "go with --user"),
        (["kick", "none"], "not a valid integer"),
        (["drain", "--wait", "--undo"], "--wait or --undo"),
        (["status", "--socket", "a", "--url", "http://127.0.0.1"], "name the server once"),
        (["log-level", "loud"], "loud"),
        (["status", "--wait", "soon"], "is not a duration"),
        (["top"], "top needs a terminal"),
        (["top", "--interval", "0.1s"], "half a second"),
    ],
)
def test_usage(run: Run, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


async def test_drain_waits_for_the_last_session_and_can_be_undone(served: Served) -> None:
    client = await served.client()
    assert await off_loop(served.run, "drain") == "draining; 1 session to end\n"
    with pytest.raises(TransactionFailed):
        await served.client()
    assert await off_loop(served.run, "drain", "--undo") == "taking new sessions again; 1 session now\n"
    await (await served.client()).close()
    waiting = asyncio.create_task(off_loop(served.run, "drain", "--wait"))
    await off_loop(served.process.wait_logged, r"draining sessions=1\n(.|\n)*draining sessions=1")
    assert not waiting.done()
    await client.close()
    assert await asyncio.wait_for(waiting, PATIENCE) == "draining; 1 session to end\nended\n"
    assert await off_loop(served.process.wait_end) == 0


def test_reload_says_what_was_wrong(served: Served) -> None:
    assert served.run("reload") == f"reloaded {served.process.file}\n"
    served.process.file.write_text(settings(served.port) + "limits: {lifetime: soon}\n")
    mistake, summary = served.run("reload", status=1).splitlines()
    assert mistake.startswith(f"{served.process.file}:")
    assert "limits.lifetime" in mistake
    assert summary == "turnsvr: the settings stay as they were"


def test_status_in_words_and_as_json(served: Served) -> None:
    lines = dict(re.split(r":\s+", line, maxsplit=1) for line in served.run("status").splitlines())
    assert lines["state"] == "ready"
    assert f"process {served.process.process.pid}" in lines["server"]
    assert lines["listening"] == f"udp://127.0.0.1:{served.port}, tcp://127.0.0.1:{served.port}"
    assert json.loads(served.run("status", "--json"))["pid"] == served.process.process.pid


async def test_status_of_a_draining_server_is_1(served: Served, run: Run) -> None:
    client = await served.client()
    await off_loop(served.run, "drain")
    result = await off_loop(run, "status", "--socket", served.socket)
    assert result.exit_code == 1
    assert result.stdout.startswith("state:       draining\n")
    await client.close()


def test_status_waits_for_a_server_that_is_yet_to_start(tmp_path: Path, run: Run) -> None:
    started: list[ServerProcess] = []

    def start() -> None:
        started.append(ServerProcess(settings(free_port()), tmp_path))

    soon = threading.Timer(0.5, start)
    soon.start()
    try:
        result = run("status", "--wait", "30s", "--socket", tmp_path / "admin.sock")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("state:       ready\n")
    finally:
        soon.join()
        for process in started:
            process.__exit__(None, None, None)


def test_no_server_is_2_and_says_where_it_looked(tmp_path: Path, run: Run) -> None:
    began = time.monotonic()
    for command in (["status"], ["status", "--wait", "0.3s"], ["sessions"], ["kick", "1"], ["drain"], ["reload"]):
        result = run(*command, "--socket", tmp_path / "nothing")
        assert result.exit_code == 2
        assert result.stderr == f"turnsvr: no server answers; looked at {tmp_path / 'nothing'} (not there)\n"
        assert not result.stdout
    assert time.monotonic() - began > 0.3
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    assert "(no server listens)" in run("status", "--socket", tmp_path / "dead").stderr


def test_something_else_that_answers_is_no_server(tmp_path: Path, run: Run) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "other"))
        listener.listen()

        def answer() -> None:
            """Whoever merely looks whether somebody listens is gone at once."""
            request = b""
            while not request:
                connected, _ = listener.accept()
                with connected:
                    request = connected.recv(4096)
                    if request:
                        connected.sendall(b"220 mail ready\r\n")

        other = threading.Thread(target=answer)
        other.start()
        result = run("status", "--socket", tmp_path / "other")
        other.join()
    assert result.exit_code == 2
    assert "is no admin interface" in result.stderr


def test_the_server_is_found_where_it_puts_its_socket(served: Served, run: Run, tmp_path: Path) -> None:
    """By the service manager's directory, by the user's own, and by the settings file."""
    assert run("status", RUNTIME_DIRECTORY=str(served.socket.parent)).exit_code == 0
    assert run("status", "-c", served.process.file, RUNTIME_DIRECTORY=str(served.socket.parent)).exit_code == 0
    (tmp_path / "turnsvr").mkdir()
    (tmp_path / "turnsvr" / "admin.sock").symlink_to(served.socket)
    if not places.SYSTEM_DIRECTORY.exists():
        assert run("status", XDG_RUNTIME_DIR=str(tmp_path), RUNTIME_DIRECTORY="").exit_code == 0
    named = tmp_path / "named.yaml"
    named.write_text(settings(1, f"admin: {{socket: {served.socket}}}"))
    assert run("status", "-c", named).exit_code == 0
    named.write_text(settings(1, "admin: {socket: off}"))
    result = run("status", "-c", named)
    assert (result.exit_code, result.stderr) == (2, f"turnsvr: {named}: admin has neither socket nor listen\n")
    named.write_text("realm: [\n")
    assert run("status", "-c", named).exit_code == 2


def test_over_tcp_with_the_token(tmp_path: Path, run: Run, certificate: TlsFiles) -> None:
    port, admin = free_port(), free_port()
    more = (
        f"tls: {{certificate: {certificate.certificate}, key: {certificate.key}}}\n"
        f"admin: {{socket: off, listen: https://127.0.0.1:{admin}, token: {TOKEN}}}\n"
    )
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    url = f"https://127.0.0.1:{admin}"
    trusted = {"SSL_CERT_FILE": str(certificate.certificate)}
    with ServerProcess(settings(port, more), tmp_path) as server:
        assert run("status", "--url", url, "--token-file", file, **trusted).exit_code == 0
        assert run("status", "--url", url, TURN_ADMIN_TOKEN=TOKEN, **trusted).exit_code == 0
        assert run("status", "-c", server.file, **trusted).exit_code == 0
        wrong = run("status", "--url", url, TURN_ADMIN_TOKEN="sesame", **trusted)
        assert (wrong.exit_code, wrong.stderr) == (2, f"turnsvr: {url}: the token is wrong\n")
        none = run("status", "--url", url, **trusted)
        assert none.exit_code == 2
        assert "a token is needed" in none.stderr
        untrusted = run("status", "--url", url, TURN_ADMIN_TOKEN=TOKEN)
        assert untrusted.exit_code == 2
        assert "its certificate is not trusted" in untrusted.stderr
    gone = run("status", "--url", url, TURN_ADMIN_TOKEN=TOKEN, **trusted)
    assert gone.exit_code == 2
    assert "no server answers" in gone.stderr
    assert TOKEN not in gone.output + untrusted.output + wrong.output


def test_the_log_level_command(served: Served) -> None:
    assert served.run("log-level", "debug", "--for", "10m") == "logging from debug up for 600 s\n"
    assert served.run("log-level", "info") == "logging from info up until the next reload\n"
