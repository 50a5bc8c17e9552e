"""`turnsvr top` in a real terminal, driven by its keys, against a real server with sessions that relay."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_control import SECRET, Served, settings
from tests.conftest import PATIENCE, ServerProcess, free_port, need, wait_until
from turnsvr.client.credentials import Login
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TurnClient
from turnsvr.credentials import shared_secret

StartTop = Callable[..., "Terminal"]


class Terminal:
    """A shell in a terminal of tmux, with a server of tmux of its own."""

    def __init__(self, cells: int, height: int, environ: dict[str, str]) -> None:
        self._tmux = [need("tmux"), "-u", "-L", f"turnsvr-{secrets.token_hex(6)}", "-f", "/dev/null"]
        variables = {name: value for name, value in os.environ.items() if name not in ("TMUX", "LC_ALL", "LANG")}
        subprocess.run(
            [*self._tmux, "new-session", "-d", "-x", str(cells), "-y", str(height), "sh"],
            check=True,
            env=variables | {"PS1": "$ ", "LC_ALL": "C.UTF-8", "SHELL": "/bin/sh"} | environ,
        )
        self._socket = Path(self.ask("socket_path"))
        self.wait("$")

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)
        self._socket.unlink(missing_ok=True)

    def type(self, text: str) -> None:
        """And Enter."""
        self._run("send-keys", "-l", text)
        self.keys("Enter")

    def keys(self, *keys: str) -> None:
        """As tmux names them."""
        self._run("send-keys", *keys)

    def resize(self, cells: int, height: int) -> None:
        self._run("resize-window", "-x", str(cells), "-y", str(height))

    @property
    def lines(self) -> list[str]:
        return self._run("capture-pane", "-p").splitlines()

    def line(self, start: str) -> str:
        """The line that begins so, empty when there is none."""
        return next((line for line in self.lines if line.strip().startswith(start)), "")

    def ask(self, what: str) -> str:
        """A variable of the terminal's state."""
        return self._run("display-message", "-p", f"#{{{what}}}").strip()

    def wait(self, text: str, *, gone: bool = False) -> list[str]:
        """Until it is on the screen, or no more; returns the screen."""

        def look() -> list[str]:
            lines = self.lines
            return lines if any(text in line for line in lines) != gone else []

        try:
            return wait_until(look, repr(text))
        except pytest.fail.Exception:
            pytest.fail(f"waited in vain for {text!r}:\n" + "\n".join(self.lines))

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], check=True, capture_output=True, text=True)
        return done.stdout


@pytest.fixture
def start_top(tmp_path: Path) -> Iterator[StartTop]:
    """Starts `turnsvr top` on the server of the test's directory, in a shell that reports on its terminal."""
    terminals: list[Terminal] = []

    def start(cells: int = 110, height: int = 20, **environ: str) -> Terminal:
        terminal = Terminal(cells, height, environ)
        terminals.append(terminal)
        program = shlex.join([sys.executable, "-m", "turnsvr"])
        command = (
            f"sh -c 'echo $$ >{tmp_path}/pid; exec {program} top --interval 0.5s --socket {tmp_path / 'admin.sock'}'"
        )
        terminal.type(f"stty -g >{tmp_path}/before; {command}; echo status $?; stty -g >{tmp_path}/after; echo ov''er")
        return terminal

    yield start
    for terminal in terminals:
        terminal.close()


class Load:
    """Clients that send through the server, each so many packets a turn, to one of them that is quiet."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.clients: list[TurnClient] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def add(self, packets: int, size: int, login: Login | None = None) -> TurnClient:
        """So many packets of a size every 20 ms."""
        client = await self.served.client(login)
        self.clients.append(client)
        quiet = self.clients[0]
        await client.bind_channel(quiet.relayed[0], 0x4000)
        if client is not quiet:
            await quiet.permit(client.relayed[0])
            self._tasks.append(asyncio.create_task(self._send(client, packets, b"x" * size)))
        return client

    async def _send(self, client: TurnClient, packets: int, data: bytes) -> None:
        while True:
            for _ in range(packets):
                client.send_channel(0x4000, data)
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for client in self.clients:
            client.relayed = ()
            await client.close()


@pytest.fixture
async def load(served: Served) -> AsyncIterator[Load]:
    """Session 1 receives what 2 and 3 send, 2 much and 3 little; 4, of a time-limited user, is idle."""
    made = Load(served)
    await made.add(0, 0)
    await made.add(10, 1000)
    await made.add(1, 100)
    await made.add(0, 0, Login(*shared_secret.make(SECRET, "Zoë \x1b[2J\u202e日本", 3600, time.time())))
    yield made
    await made.close()


@pytest.fixture
def served(tmp_path: Path, run: Any) -> Iterator[Served]:
    port = free_port()
    with ServerProcess(settings(port), tmp_path) as process:
        yield Served(process, port, run)


async def off_loop(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return await asyncio.to_thread(call, *arguments, **options)


def numbers(terminal: Terminal) -> list[int]:
    """IDs in the order of the table."""
    lines = terminal.lines
    titles = [index for index, line in enumerate(lines) if line.split()[:2] == ["ID", "USER"]]
    found = []
    for line in lines[titles[0] + 1 :] if titles else []:
        first = line.split()[:1]
        if first and first[0].isdigit():
            found.append(int(first[0]))
    return found


async def test_it_shows_sorts_and_finds_sessions(load: Load, start_top: StartTop) -> None:
    terminal: Terminal = await off_loop(start_top, 150)
    await off_loop(terminal.wait, "4 sessions, 4 since start")
    await off_loop(wait_until, lambda: numbers(terminal) == [1, 2, 3, 4], "order by rate: the first receives it all")
    await off_loop(terminal.keys, "u")
    await off_loop(terminal.wait, "by user, up")
    await off_loop(terminal.keys, "u")
    await off_loop(terminal.wait, "by user, down")
    await off_loop(wait_until, lambda: numbers(terminal)[-1:] == [4], "alice before the time-limited name")
    await off_loop(terminal.keys, "a")
    await off_loop(wait_until, lambda: numbers(terminal) == [1, 2, 3, 4], "order by age")
    await off_loop(terminal.keys, "a")
    await off_loop(wait_until, lambda: numbers(terminal) == [4, 3, 2, 1], "order by age, the other way round")
    await off_loop(terminal.type, "/zo")
    await off_loop(terminal.wait, "finding 'zo'")
    await off_loop(wait_until, lambda: numbers(terminal) == [4], "the one session that is found")
    await off_loop(terminal.wait, "Zoë \\x1b[2J\\u202e")
    await off_loop(terminal.keys, "Escape")
    await off_loop(wait_until, lambda: len(numbers(terminal)) == 4, "all sessions again")


async def test_a_session_is_looked_at_and_ended_after_a_question(load: Load, start_top: StartTop) -> None:
    terminal: Terminal = await off_loop(start_top)
    await off_loop(terminal.wait, "4 sessions")
    await off_loop(terminal.keys, "i")
    await off_loop(wait_until, lambda: numbers(terminal) == [1, 2, 3, 4], "order by ID")
    await off_loop(terminal.keys, "Down", "Enter")
    await off_loop(terminal.wait, "1 CHANNELS")
    assert f"0x4000  {load.clients[0].relayed[0]}" in terminal.line("0x4000")
    await off_loop(terminal.keys, "x")
    await off_loop(terminal.wait, "end session 2 of alice? y/n")
    await off_loop(terminal.keys, "n")
    await off_loop(terminal.wait, "y/n", gone=True)
    await load.clients[1].refresh(300)
    await off_loop(terminal.keys, "x", "y")
    await off_loop(terminal.wait, "session 2 has ended")
    with pytest.raises(TransactionFailed, match="437"):
        await load.clients[1].refresh(300)
    await off_loop(terminal.keys, "Escape")
    await off_loop(wait_until, lambda: numbers(terminal) == [1, 3, 4], "the others")
    await load.clients[2].refresh(300)


def is_restored(terminal: Terminal, directory: Path) -> None:
    terminal.wait("over")
    assert (directory / "before").read_text() == (directory / "after").read_text()
    assert terminal.ask("alternate_on") == "0"
    assert terminal.ask("cursor_flag") == "1"
    assert not any("sessions" in line and "since start" in line for line in terminal.lines)


@pytest.mark.parametrize("keys", ["q", "C-c"])
def test_quitting_leaves_the_terminal_as_it_was(served: Served, start_top: StartTop, tmp_path: Path, keys: str) -> None:
    terminal = start_top()
    terminal.wait("0 sessions")
    assert terminal.ask("alternate_on") == "1"
    terminal.keys(keys)
    terminal.wait("status 0")
    is_restored(terminal, tmp_path)


def test_a_signal_leaves_the_terminal_as_it_was(served: Served, start_top: StartTop, tmp_path: Path) -> None:
    terminal = start_top()
    terminal.wait("0 sessions")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    terminal.wait("status 0")
    is_restored(terminal, tmp_path)


def test_without_a_server_the_terminal_is_never_taken(start_top: StartTop, tmp_path: Path) -> None:
    terminal = start_top()
    terminal.wait("status 2")
    is_restored(terminal, tmp_path)
    assert terminal.line("turnsvr: no server answers; looked at")


async def test_it_follows_the_size_of_the_terminal(load: Load, start_top: StartTop) -> None:
    terminal: Terminal = await off_loop(start_top)
    await off_loop(terminal.wait, "RELAYED")
    await off_loop(terminal.resize, 60, 12)
    await off_loop(terminal.wait, "RELAYED", gone=True)
    await off_loop(terminal.wait, "DOWN b/s")
    for cells, height in ((20, 5), (3, 2), (1, 1), (200, 50)):
        await off_loop(terminal.resize, cells, height)
    await off_loop(terminal.wait, "DROPS")
    await off_loop(wait_until, lambda: numbers(terminal) == [1, 2, 3, 4], "every session")
    assert "? keys" in terminal.lines[-1]


def test_a_server_that_comes_back_is_shown_again(served: Served, start_top: StartTop, tmp_path: Path, run: Any) -> None:
    terminal = start_top()
    terminal.wait("0 sessions")
    served.process.__exit__(None, None, None)
    terminal.wait("trying again")
    again = tmp_path / "again"
    again.mkdir()
    with ServerProcess(settings(served.port), again, environ={"RUNTIME_DIRECTORY": str(tmp_path)}):
        terminal.wait("0 sessions")
        terminal.wait("trying again", gone=True)
    terminal.keys("q")
    terminal.wait("status 0")
    is_restored(terminal, tmp_path)


async def test_a_terminal_without_unicode_is_served_too(load: Load, start_top: StartTop) -> None:
    terminal: Terminal = await off_loop(start_top, 60, 12, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    await off_loop(terminal.wait, "4 listed")
    await off_loop(wait_until, lambda: len(numbers(terminal)) == 4, "every session")
    assert "Traceback" not in " ".join(terminal.lines)
    await off_loop(terminal.keys, "q")
    await off_loop(terminal.wait, "status 0")
    await asyncio.wait_for(load.clients[0].refresh(300), PATIENCE)
