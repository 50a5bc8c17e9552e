"""No command waits for what only others need: which modules are not loaded, whatever the machine's speed."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ServerProcess, free_port

LOADED = """
import json, sys
from turnsvr.cli import main
try:
    main(sys.argv[1:])
finally:
    json.dump(sorted(sys.modules), open({report!r}, "w"))
"""

WEB = "web: {{listen: 'http://127.0.0.1:{port}', host: turn.example.org}}"
MODELS = {"pydantic", "yaml", "turnsvr.config.settings"}
SERVER = {
    "asyncio",
    "structlog",
    "turnsvr.app",
    "turnsvr.net",
    "turnsvr.relay",
    "turnsvr.turn",
    "turnsvr.stun",
    "ifaddr",
}
HTTP = {
    "starlette",
    "uvicorn",
    "fastapi",
    "socketio",
    "prometheus_client",
    "turnsvr.admin.server",
    "turnsvr.web.server",
}
HEAVY = {"cryptography", "greenlet", "sqlalchemy", "httpx", "aioice", "turnsvr.client", "turnsvr.migrate", "ssl"}


def loaded(tmp_path: Path, *arguments: str | Path) -> set[str]:
    """The modules that a command has loaded when it ends, however it does."""
    report = tmp_path / "modules.json"
    command = [sys.executable, "-c", LOADED.format(report=str(report)), *map(str, arguments)]
    subprocess.run(command, capture_output=True, check=False, timeout=60)
    return set(json.loads(report.read_text()))


def test_help_needs_the_command_line_alone(tmp_path: Path) -> None:
    found = loaded(tmp_path, "--help")
    assert not found & (MODELS | SERVER | HTTP | HEAVY | {"turnsvr.config", "turnsvr.cli.control", "hashlib"})


def test_each_command_loads_its_own_module_alone(tmp_path: Path) -> None:
    found = loaded(tmp_path, "reload", "--help")
    rooms = {name for name in found if name.startswith("turnsvr.cli.")}
    assert not rooms & {
        f"turnsvr.cli.{name}" for name in ("clients", "keys", "migrate", "realms", "serve", "stores", "top")
    }


@pytest.mark.parametrize("command", ["status", "sessions", "drain", "reload"])
def test_asking_a_server_needs_neither_models_nor_server(server_process: object, tmp_path: Path, command: str) -> None:
    settings = f"listen: [udp://127.0.0.1:{free_port()}]\nstun_only: true\n"
    with ServerProcess(settings, tmp_path):
        found = loaded(tmp_path, command, "--socket", tmp_path / "admin.sock")
    assert "turnsvr.admin.client" in found
    assert not found & (MODELS | SERVER | HTTP | (HEAVY - {"ssl"}))


SERVES = """
import asyncio, json, sys, threading
from turnsvr import config
from turnsvr.app.application import Application
async def main():
    application = Application(config.load(__import__("pathlib").Path(sys.argv[1])))
    await application.start()
    print(json.dumps(sorted(sys.modules)))
    await application.stop()
asyncio.run(main())
"""


def serving(tmp_path: Path, more: str) -> set[str]:
    """The modules of a server that serves."""
    file = tmp_path / "turnsvr.yaml"
    file.write_text(
        "realm: example.org\nlisten: [udp://127.0.0.1:0]\nrelay: {addresses: 127.0.0.1}\n"
        f"credentials: {{secret: north-north-north}}\n{more}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", SERVES, str(file)], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_server_alone_loads_nothing_of_http_stores_or_certificates(tmp_path: Path) -> None:
    found = serving(tmp_path, "admin: {socket: 'off'}")
    assert not found & (HTTP | HEAVY - {"ssl"} | {"turnsvr.stores.sql", "turnsvr.credentials.hook", "http.client"})
    assert "turnsvr.config.descriptions" not in found
    if "turnsvr.relay.compiled.pump" in found:
        assert "turnsvr.relay.portable.pump" not in found


def test_the_admin_interface_loads_nothing_of_the_web(tmp_path: Path) -> None:
    found = serving(tmp_path, f"admin: {{socket: {tmp_path}/admin.sock}}")
    assert "turnsvr.admin.server" in found
    assert not found & {"fastapi", "socketio", "prometheus_client", "turnsvr.admin.description"}


def test_the_web_loads_no_client_no_broker_and_no_description(tmp_path: Path) -> None:
    """python-socketio would import each of them that is installed."""
    found = serving(tmp_path, f"admin: {{socket: {tmp_path}/admin.sock}}\nweb: {{listen: 'http://127.0.0.1:0'}}")
    assert {"turnsvr.web.server", "socketio", "engineio"} <= found
    unused = {"fastapi", "aiohttp", "requests", "redis", "kombu", "websocket", "turnsvr.web.description"}
    assert not found & unused


@pytest.mark.parametrize(
    ("more", "megabytes"), [("admin: {{socket: 'off'}}", 32), (WEB, 50)], ids=["alone", "with web"]
)
def test_an_idle_server_is_small(tmp_path: Path, more: str, megabytes: int) -> None:
    """Beside an interpreter that has loaded asyncio and ssl: 27 MB, and 44 with web and admin."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs Linux")
    settings = (
        f"realm: example.org\nlisten: [udp://127.0.0.1:{free_port()}]\nrelay: {{addresses: 127.0.0.1}}\n"
        f"credentials: {{secret: north-north-north}}\n{more.format(port=free_port())}\n"
    )
    bare = "import asyncio, ssl; print(open('/proc/self/smaps_rollup').read())"
    done = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True, timeout=60)
    with ServerProcess(settings, tmp_path) as server:
        rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    assert kilobytes(rollup) - kilobytes(done.stdout) < megabytes * 1_000


def kilobytes(rollup: str) -> int:
    """The process's share of the memory that is in use, from proc(5)'s smaps_rollup."""
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(("arguments", "milliseconds"), [(["--help"], 250), (["status", "--help"], 300)])
def test_commands_take_little_processor_time(arguments: list[str], milliseconds: int) -> None:
    """50 ms and 90; the least of three, since the machine may be busy."""
    assert min(cpu_milliseconds(arguments) for _ in range(3)) < milliseconds


def cpu_milliseconds(arguments: list[str]) -> float:
    """User and system time of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "turnsvr", *arguments], capture_output=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def test_importing_the_settings_builds_no_validator() -> None:
    """Each costs milliseconds; they are built when a file is read."""
    program = (
        "from turnsvr.config import fields, settings, websettings\n"
        "def every(kind):\n"
        "    for each in kind.__subclasses__():\n"
        "        yield each\n"
        "        yield from every(each)\n"
        "print(sum(each.__pydantic_complete__ for each in every(fields.Section)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "0\n"
