"""docs/recipes/xmpp.md: Prosody gives out credentials of ours (XEP-0215), and they relay."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import PATIENCE, Serve, address_of, free_port, need
from tests.recipes.xmpp import password_of, services_of
from turnsvr.client.probe import probe
from turnsvr.client.probe_report import render

SECRET = "north of the wall, and cold"
ALICE = password_of("alice", "password")
CONFIGURATION = """\
run_as_root = true
pidfile = "{directory}/prosody.pid"
data_path = "{directory}"
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
modules_enabled = {{ "saslauth", "disco", "turn_external" }}
modules_disabled = {{ "s2s", "tls", "offline" }}
authentication = "internal_plain"
allow_unencrypted_plain_auth = true
c2s_require_encryption = false
log = {{ info = "*console" }}
VirtualHost "example.org"
    turn_external_secret = "{secret}"
    turn_external_host = "127.0.0.1"
    turn_external_port = {turn}
    turn_external_tcp = true
"""


@asynccontextmanager
async def prosody(directory: Path, turn: int) -> AsyncIterator[int]:
    """Prosody with the user alice; gives the port on which clients are served."""
    program, control, port = need("prosody"), need("prosodyctl"), free_port()
    file = directory / "prosody.cfg.lua"
    file.write_text(CONFIGURATION.format(directory=directory, port=port, secret=SECRET, turn=turn))
    register = [control, "--config", str(file), "register", "alice", "example.org", "password"]
    await asyncio.to_thread(subprocess.run, register, check=True, capture_output=True, timeout=PATIENCE)
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, "--config", str(file), "-F", stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ
        )
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


async def test_credentials_of_prosody_relay(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    application = await serve(
        listen=[f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"], credentials={"secret": SECRET}
    )
    assert address_of(application, "udp").port == port
    async with prosody(tmp_path, port) as xmpp:
        services = await services_of(xmpp, ALICE)
    assert {(each["type"], each["transport"]) for each in services} == {
        (kind, transport) for kind in ("stun", "turn") for transport in ("udp", "tcp")
    }
    for each in services:
        query = f"?transport={each['transport']}" if each["type"] == "turn" else ""
        url = f"{each['type']}:{each['host']}:{each['port']}{query}"
        report = await probe(url, each.get("username"), each.get("password"), timeout=PATIENCE)
        assert report.ok, render(report)


async def test_another_secret_does_not_relay(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    await serve(listen=[f"udp://127.0.0.1:{port}"], credentials={"secret": f"{SECRET}er"})
    async with prosody(tmp_path, port) as xmpp:
        (turn,) = [
            each for each in await services_of(xmpp, ALICE) if (each["type"], each["transport"]) == ("turn", "udp")
        ]
    report = await probe(f"turn:127.0.0.1:{port}", turn["username"], turn["password"], timeout=PATIENCE)
    assert not report.ok
