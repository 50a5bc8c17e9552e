"""docs/recipes/matrix.md: Synapse gives out credentials of ours, and they relay."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import PATIENCE, Serve, free_port
from turnsvr.client.probe import probe
from turnsvr.client.probe_report import render

SECRET = "north of the wall, and cold"
CONFIGURATION = """\
server_name: example.org
pid_file: {directory}/pid
media_store_path: {directory}/media
signing_key_path: {directory}/signing.key
report_stats: false
trusted_key_servers: []
database: {{name: sqlite3, args: {{database: "{directory}/db"}}}}
listeners:
  - {{port: {port}, type: http, bind_addresses: [127.0.0.1], resources: [{{names: [client]}}]}}
enable_registration: true
enable_registration_without_verification: true
turn_uris:
  - "turn:127.0.0.1:{turn}?transport=udp"
  - "turn:127.0.0.1:{turn}?transport=tcp"
turn_shared_secret: "{secret}"
turn_user_lifetime: 2h
"""


def installed() -> str:
    """Synapse, which `.ci/run` leaves out for its size: without it, this skips."""
    program = shutil.which("synapse_homeserver")
    if program is None:
        pytest.skip("synapse_homeserver is not installed")
    return program


@asynccontextmanager
async def synapse(directory: Path, turn: int) -> AsyncIterator[str]:
    """Synapse, where anybody may register; gives the URL of its clients' API."""
    program, port, file = installed(), free_port(), directory / "homeserver.yaml"
    file.write_text(CONFIGURATION.format(directory=directory, port=port, secret=SECRET, turn=turn))
    keys = [program, "-c", str(file), "--generate-keys"]
    await asyncio.to_thread(subprocess.run, keys, check=True, capture_output=True, timeout=PATIENCE, cwd=directory)
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, "-c", str(file), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory
        )
    try:
        yield f"http://127.0.0.1:{port}/_matrix/client/v3"
    finally:
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


async def turn_server(base: str) -> dict[str, Any]:
    """What Synapse tells a user of TURN servers."""
    user = {"auth": {"type": "m.login.dummy"}, "username": "alice", "password": "a password of hers"}
    async with aiohttp.ClientSession() as session, asyncio.timeout(2 * PATIENCE):
        while True:
            try:
                async with session.post(f"{base}/register", json=user) as answer:
                    token = (await answer.json())["access_token"]
            except aiohttp.ClientConnectionError:  # it is still starting
                await asyncio.sleep(0.1)
            else:
                break
        headers = {"Authorization": f"Bearer {token}"}
        async with session.get(f"{base}/voip/turnServer", headers=headers) as answer:
            found: dict[str, Any] = await answer.json()
    return found


async def test_credentials_of_synapse_relay(serve: Serve, tmp_path: Path) -> None:
    """They do with the same secret, over UDP and TCP, and with no other."""
    turn, elsewhere = free_port(), free_port()
    for port, secret in ((turn, SECRET), (elsewhere, f"{SECRET}er")):
        await serve(listen=[f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"], credentials={"secret": secret})
    async with synapse(tmp_path, turn) as base:
        answer = await turn_server(base)
    assert answer["username"].endswith(":@alice:example.org")
    assert len(answer["uris"]) == 2
    for uri in answer["uris"]:
        for port, relays in ((turn, True), (elsewhere, False)):
            tried = uri.replace(str(turn), str(port))
            report = await probe(tried, answer["username"], answer["password"], timeout=PATIENCE)
            assert report.ok == relays, render(report)
