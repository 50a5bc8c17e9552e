"""Calls through an upgrade: real processes, real clients, packets counted where they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.app.handover.rig import Flow, Server, is_alive
from tests.conftest import PATIENCE
from tests.processes import wait_for
from turnsvr import relay
from turnsvr.net.tls import TlsFiles

T = TypeVar("T")
LEGS = ("udp", "tcp", "tls")


async def off_loop(call: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(call, *arguments)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.05)


@pytest.fixture(params=[("auto", "auto"), ("portable", "auto"), ("auto", "portable")], ids="->".join)
def kinds(request: pytest.FixtureRequest) -> tuple[str, str]:
    if relay.describe().startswith("portable"):
        pytest.skip(relay.describe())
    before, after = request.param
    return before, after


async def test_no_packet_is_lost_on_any_leg(kinds: tuple[str, str], tmp_path: Path, certificate: TlsFiles) -> None:
    before, after = kinds
    with Server(tmp_path, certificate, more=f"pump: {{kind: {before}}}") as server:
        flows = [await Flow.open(server, leg) for leg in LEGS]
        for flow in flows:
            flow.start()
        await asyncio.sleep(0.5)
        server.rewrite(f"kind: {before}", f"kind: {after}")
        done = await off_loop(server.upgrade)
        assert done.returncode == 0, done.stderr + server.log
        assert "2 sessions moved" in done.stdout
        assert "1 session of TLS clients stay in the old process" in done.stdout
        await asyncio.sleep(0.5)
        for flow in flows:
            await flow.stop()
        assert [flow.lost for flow in flows] == [0, 0, 0]
        assert [flow.doubled for flow in flows] == [0, 0, 0]
        listed = {each["transport"]: each for each in server.admin.every_session()}
        for leg, flow in zip(LEGS[:2], flows, strict=False):
            of_session = server.admin.session(listed[leg]["id"])["traffic"]
            assert of_session["from_client"]["bytes"] == of_session["to_client"]["bytes"] == 4 * flow.sent, leg
        assert server.admin.status()["pump"].startswith("portable" if after == "portable" else "compiled")
        for flow in flows:
            await flow.client.refresh(600)
            await flow.close()
        await off_loop(wait_for, server.pids[:1], "Z")  # the old process ends with the client of TLS
        assert is_alive(server.pids[1])
        assert "Traceback" not in server.log
