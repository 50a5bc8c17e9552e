"""What many rooms' tests use: programs that may be absent, free ports, certificates, servers in and out of process."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import resource
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import pytest
import structlog
from hypothesis import HealthCheck, settings

from turnsvr import relay
from turnsvr.app import firstrun
from turnsvr.app.application import Application
from turnsvr.config.settings import Settings
from turnsvr.net.engine import EventSink
from turnsvr.net.tls import TlsFiles
from turnsvr.relay import PumpKind
from turnsvr.stun.address import Address

# A busy machine is no reason for a property to fail.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds to wait for what is bound to come, on a machine that is busy with other tests."""

_START_PATIENCE = 60.0
"""Seconds for a process to start, which takes seconds of a core even before it has done anything."""

_FIRST_PORT = 12_000
_PORTS_A_WORKER = 2_000
"""Below the range of ephemeral ports; each pytest-xdist worker has ports of its own."""


@pytest.fixture(scope="session", params=["portable", "compiled"])
def pump_kind(request: pytest.FixtureRequest) -> PumpKind:
    """A pump that loads here. TURNSVR_REQUIRE_PUMP=1 makes the absence of the compiled one a failure."""
    kind: PumpKind = request.param
    if kind == "compiled" and relay.describe().startswith("portable"):
        if os.environ.get("TURNSVR_REQUIRE_PUMP") == "1":
            pytest.fail(relay.describe())
        pytest.skip(relay.describe())
    return kind


def need(program: str) -> str:
    """Path of a program. Without it the test is skipped, or fails under TURNSVR_REQUIRE_ALL=1."""
    path = shutil.which(program)
    if path is not None:
        return path
    if os.environ.get("TURNSVR_REQUIRE_ALL") == "1":
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"{program} is not installed")


def free_port() -> int:
    """A port that is free now for UDP and TCP on 127.0.0.1 and ::1, and that no other worker is given."""
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or "0")
    first = _FIRST_PORT + worker % 8 * _PORTS_A_WORKER
    while True:
        port = random.SystemRandom().randrange(first, first + _PORTS_A_WORKER)
        if all(_is_free(host, kind, port) for host in _LOOPBACK for kind in _KINDS):
            return port


_KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
_LOOPBACK = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


def _is_free(host: str, kind: socket.SocketKind, port: int) -> bool:
    with socket.socket(_LOOPBACK[host], kind) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@asynccontextmanager
async def accepting(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server of a test's own on 127.0.0.1: its port. In the end each connection is served to its end, and closed."""
    under_way: list[asyncio.Task[None]] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """No coroutine: one that the loop ends before its first step would leave the writer open."""
        under_way.append(asyncio.ensure_future(serve_one(reader, writer)))

    async with await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*under_way)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command that a test runs in this process sets up the log of the process, for no test that comes after it."""
    root, lines = logging.getLogger(), logging.getLogger("turnsvr.lines")
    before = list(root.handlers), root.level, lines.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = [each for each in root.handlers if each in before[0]]
    root.setLevel(before[1])
    lines.setLevel(before[2])


@pytest.fixture(scope="session", autouse=True)
def runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where servers that nobody tells otherwise put their admin sockets: not where this machine's own server has it."""
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(directory))
        yield directory


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A self-signed certificate for this host's name and loopback addresses."""
    return firstrun.write_self_signed(tmp_path_factory.mktemp("tls"), ["127.0.0.1", "::1"])


USER, PASSWORD = "alice", "wonderland"


class Serve(Protocol):
    """Starts an Application in this loop, with sections of settings in the place of the usual ones."""

    def __call__(self, *, sinks: tuple[EventSink, ...] = (), **sections: Any) -> Awaitable[Application]: ...


@pytest.fixture
async def serve(certificate: TlsFiles) -> AsyncIterator[Serve]:
    """A server on free ports of 127.0.0.1: UDP, TCP, TLS; loopback relays and peers; user alice."""
    started: list[Application] = []

    async def start(*, sinks: tuple[EventSink, ...] = (), **sections: Any) -> Application:
        usual: dict[str, Any] = {
            "realm": "example.org",
            "listen": ["udp://127.0.0.1:0", "tcp://127.0.0.1:0", "tls://127.0.0.1:0"],
            "tls": {"certificate": certificate.certificate, "key": certificate.key},
            "relay": {"addresses": ["127.0.0.1"]},
            "credentials": {"users": {USER: PASSWORD}},
            "peers": {"allow": ["127.0.0.1"]},
            "admin": {"socket": "off"},
        }
        application = Application(Settings.model_validate(usual | sections), sinks=sinks)
        await application.start()
        started.append(application)
        return application

    yield start
    for application in started:
        await application.stop()


def address_of(application: Application, transport: str) -> Address:
    """Where the first listener of a transport is."""
    found = next(each for each in application.listening if each.transport == transport)
    return Address(found.host, found.port)


class ServerProcess:
    """`turnsvr run` as a process of its own, with settings as YAML text or without a file; entered, it is ready.

    stdout and stderr go to files in directory, and its admin socket is there; what it tells its service manager is in
    notifications.
    """

    def __init__(
        self,
        settings: str | None,
        directory: Path,
        *,
        environ: dict[str, str] | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "turnsvr", "run"),
        files: int | None = None,
    ) -> None:
        """files: how many it may have open, soft and hard limit; as many as this process may when None."""
        self.file = directory / "turnsvr.yaml"
        self.notifications: list[str] = []
        self._output = directory / "stdout"
        self._errors = directory / "stderr"
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"turnsvr-test-{secrets.token_hex(8)}"
        self._manager.bind(f"\0{name}")
        arguments = list(command)
        if settings is not None:
            self.file.write_text(settings)
            arguments += ["-c", str(self.file)]
        usual = {"NOTIFY_SOCKET": f"@{name}", "PYTHONWARNINGS": "error", "RUNTIME_DIRECTORY": str(directory)}
        variables = os.environ | usual | (environ or {})
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=variables
            )
        if files is not None:
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (files, files))

    def __enter__(self) -> Self:
        try:
            self.wait_notified("READY=1", _START_PATIENCE)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._manager.close()

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def log(self) -> str:
        return self._errors.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_notified(self, assignment: str, seconds: float = PATIENCE) -> str:
        """Wait until the service manager is told this; returns the whole message."""
        self._manager.settimeout(0.2)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                message = self._manager.recv(4096).decode()
            except TimeoutError:
                if self.process.poll() is not None:
                    break
                continue
            self.notifications.append(message)
            if assignment in message.split("\n"):
                return message
        pytest.fail(f"the server did not say {assignment}:\n{self.log}")

    def wait_logged(self, pattern: str) -> re.Match[str]:
        """Wait until the log matches; returns the match."""
        return wait_until(lambda: re.search(pattern, self.log, re.MULTILINE), f"{pattern!r} in the log")

    def wait_end(self) -> int:
        """Exit status."""
        return self.process.wait(PATIENCE)


def wait_until(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something; for what happens in another process."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail(f"waited in vain for {what}")


@pytest.fixture
def server_process(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts server processes in a directory of the test's own; they end with the test."""
    started: list[ServerProcess] = []

    def start(settings: str | None, **options: Any) -> ServerProcess:
        process = ServerProcess(settings, tmp_path, **options).__enter__()
        started.append(process)
        return process

    yield start
    for process in started:
        process.__exit__(None, None, None)
