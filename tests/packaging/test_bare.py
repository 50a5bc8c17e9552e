"""A plain install, without any extra, runs a server and every command that operates it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, ServerProcess, free_port

SETTINGS = """
realm: example.org
listen: [udp://127.0.0.1:{port}, tcp://127.0.0.1:{port}]
relay: {{addresses: 127.0.0.1}}
credentials: {{store: "sqlite:{database}"}}
"""


def turnsvr(bare: Path, *arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(bare / "turnsvr"), *map(str, arguments)],
        input=text, capture_output=True, text=True, check=False, timeout=60, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def test_no_package_of_an_extra_is_there(bare: Path) -> None:
    program = "import importlib.util as u, sys; print([m for m in sys.argv[1:] if u.find_spec(m)])"
    absent = ("fastapi", "httpx", "prometheus_client", "socketio", "websockets", "asyncpg", "aiomysql", "redis", "jwt")
    done = subprocess.run([str(bare / "python"), "-c", program, *absent], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def server(bare: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    database = tmp_path / "users.sqlite"
    added = turnsvr(
        bare, "user", "add", "alice", "--store", f"sqlite:{database}", "--realm", "example.org", text="wonderland\n"
    )
    assert added.returncode == 0, added.stderr
    settings = SETTINGS.format(port=free_port(), database=database)
    with ServerProcess(settings, tmp_path, command=(str(bare / "turnsvr"), "run")) as process:
        yield process


def test_the_server_and_its_users_are_operated(bare: Path, server: ServerProcess, tmp_path: Path) -> None:
    place = "--socket", tmp_path / "admin.sock"
    listed = turnsvr(bare, "user", "list", "-c", server.file)
    assert listed.stdout == "example.org\talice\n", listed.stderr
    status = turnsvr(bare, "status", *place)
    assert (status.returncode, "ready" in status.stdout) == (0, True), status.stderr
    assert json.loads(turnsvr(bare, "sessions", "--json", *place).stdout) == {"sessions": [], "total": 0}
    assert "there is no session 7" in turnsvr(bare, "kick", "7", *place).stderr
    assert turnsvr(bare, "reload", *place).returncode == 0
    assert turnsvr(bare, "log-level", "debug", *place).returncode == 0
    assert turnsvr(bare, "secret", "add", "--new", "-c", server.file).returncode == 0
    assert turnsvr(bare, "drain", *place).returncode == 0
    assert server.wait_end() == 0


def test_top_shows_it(bare: Path, server: ServerProcess, tmp_path: Path) -> None:
    terminal, its_end = pty.openpty()
    command = [str(bare / "turnsvr"), "top", "--socket", str(tmp_path / "admin.sock")]
    with subprocess.Popen(
        command, stdin=its_end, stdout=its_end, stderr=subprocess.PIPE, env={"TERM": "xterm", "PATH": "/usr/bin"}
    ) as top:
        os.close(its_end)
        assert os.read(terminal, 1)  # it draws
        os.write(terminal, b"q")
        assert top.stderr is not None
        while not top.poll() and top.returncode is None:
            try:
                os.read(terminal, 65_536)
            except OSError:
                break
        assert top.wait(PATIENCE) == 0, top.stderr.read()
    os.close(terminal)
