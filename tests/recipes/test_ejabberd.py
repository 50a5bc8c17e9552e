"""docs/recipes/xmpp.md: ejabberd gives out credentials of ours (XEP-0215), and they relay."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Serve, free_port
from tests.recipes.xmpp import ANONYMOUS, services_of
from turnsvr.client.probe import probe
from turnsvr.client.probe_report import render

SECRET = "north of the wall, and cold"
CONFIGURATION = """\
hosts:
  - example.org
auth_method: anonymous
anonymous_protocol: sasl_anon
listen:
  - port: {port}
    ip: 127.0.0.1
    module: ejabberd_c2s
modules:
  mod_disco: {{}}
  mod_stun_disco:
    secret: "{secret}"
    access: all
    credentials_lifetime: 2h
    services:
      - {{host: 127.0.0.1, port: {turn}, type: stun, transport: udp, restricted: false}}
      - {{host: 127.0.0.1, port: {turn}, type: turn, transport: udp, restricted: true}}
      - {{host: 127.0.0.1, port: {turn}, type: turn, transport: tcp, restricted: true}}
"""


def installed() -> tuple[str, Path]:
    """Erlang, and the folder of Debian's ejabberd, which `.ci/run` leaves out for its size: without it, this skips."""
    erlang, found = shutil.which("erl"), sorted(Path("/usr/lib").glob("*/ejabberd-*/ebin/mod_stun_disco.beam"))
    if erlang is None or not found:
        pytest.skip("ejabberd is not installed")
    return erlang, found[0].parents[2]


@asynccontextmanager
async def ejabberd(directory: Path, turn: int) -> AsyncIterator[int]:
    """ejabberd, which anybody may join; gives the port on which clients are served."""
    erlang, libraries = installed()
    port, file = free_port(), directory / "ejabberd.yml"
    file.write_text(CONFIGURATION.format(port=port, secret=SECRET, turn=turn))
    environ = os.environ | {
        "ERL_LIBS": str(libraries),
        "ERL_CRASH_DUMP": str(directory / "crash"),
        "HOME": str(directory),
        "EJABBERD_CONFIG_PATH": str(file),
        "EJABBERD_LOG_PATH": str(directory / "ejabberd.log"),
    }
    command = (erlang, "-noinput", "-mnesia", "dir", f'"{directory}/db"', "-s", "ejabberd")
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=directory
        )
    try:
        yield port
    finally:
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


@pytest.mark.parametrize(("ours", "relays"), [(SECRET, True), (f"{SECRET}er", False)])
async def test_credentials_of_ejabberd_relay(serve: Serve, tmp_path: Path, ours: str, relays: bool) -> None:
    """They do with the same secret, over UDP and TCP, and with no other."""
    turn = free_port()
    await serve(listen=[f"udp://127.0.0.1:{turn}", f"tcp://127.0.0.1:{turn}"], credentials={"secret": ours})
    async with ejabberd(tmp_path, turn) as xmpp:
        services = await services_of(xmpp, ANONYMOUS)
    assert {(each["type"], each["transport"]) for each in services} == {
        ("stun", "udp"),
        ("turn", "udp"),
        ("turn", "tcp"),
    }
    for each in services:
        query = f"?transport={each['transport']}" if each["type"] == "turn" else ""
        url = f"{each['type']}:{each['host']}:{each['port']}{query}"
        report = await probe(url, each.get("username"), each.get("password"), timeout=PATIENCE)
        assert report.ok == (relays or each["type"] == "stun"), render(report)
