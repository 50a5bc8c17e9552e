"""docs/recipes/clients.md: the examples, as they stand there, against a server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest
import socketio  # noqa: F401  whole, for others' clients: turnsvr.web.sparing would leave out what they stand on

from tests.conftest import PATIENCE, Serve, need
from turnsvr.app.application import Application

KEY = "a key of the app, long enough"
PAGE = (Path(__file__).parents[2] / "docs" / "recipes" / "clients.md").read_text()

TRIED_BY_AIORTC = """
import asyncio

async def main() -> None:
    connection = new_connection()
    connection.createDataChannel("any")
    await connection.setLocalDescription(await connection.createOffer())
    print(connection.localDescription.sdp)
    await connection.close()

asyncio.run(main())
"""


def example(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
async def base(serve: Serve) -> str:
    """URL of a server that knows the key, and serves UDP alone."""
    web = {"listen": "http://127.0.0.1:0", "keys": [{"name": "app", "key": KEY}]}
    application: Application = await serve(
        listen=["udp://127.0.0.1:0"], credentials={"secret": "north of the wall"}, web=web
    )
    assert application.web is not None
    return str(application.web.listening[0]).rstrip("/")


async def run(base: str, *command: str | Path, directory: Path) -> str:
    environ = os.environ | {"BASE": base, "KEY": KEY, "GOCACHE": str(directory / "cache"), "GO111MODULE": "off"}
    running = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=directory, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(running.communicate(), 5 * PATIENCE)
    assert running.returncode == 0, errors.decode()
    return output.decode()


async def test_python(base: str, tmp_path: Path) -> None:
    """Its connection has a relay candidate of this server."""
    file = tmp_path / "app.py"
    file.write_text(example("python") + TRIED_BY_AIORTC)
    assert " typ relay " in await run(base, sys.executable, file, directory=tmp_path)


async def test_go(base: str, tmp_path: Path) -> None:
    file = tmp_path / "main.go"
    file.write_text(example("go"))
    answer = json.loads(await run(base, need("go"), "run", file, directory=tmp_path))
    relays = [each for each in answer["iceServers"] if "credential" in each]
    assert relays[0]["urls"][0].startswith("turn:127.0.0.1:")
    assert ":app:" in relays[0]["username"]
    assert answer["ttl"] > 0
