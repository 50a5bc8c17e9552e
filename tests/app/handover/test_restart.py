"""Calls through a restart by a service manager: real processes and clients, and a manager that keeps descriptors."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.app.handover.keeping import raw
from tests.app.handover.manager import Manager
from tests.app.handover.rig import Flow, off_loop
from tests.app.handover.test_upgrade import a_call, ended, talks
from tests.conftest import PATIENCE
from turnsvr import relay
from turnsvr.app.handover.steps import VARIABLE
from turnsvr.app.handover.store import NAME
from turnsvr.net.tls import TlsFiles


@pytest.fixture(params=[("compiled", "compiled"), ("portable", "compiled"), ("compiled", "portable")], ids="->".join)
def kinds(request: pytest.FixtureRequest) -> tuple[str, str]:
    if relay.describe().startswith("portable"):
        pytest.skip(relay.describe())
    before, after = request.param
    return before, after


async def test_packets_wait_while_no_process_runs(kinds: tuple[str, str], tmp_path: Path) -> None:
    before, after = kinds
    with Manager(tmp_path, pump=before) as manager:
        flows = [await Flow.open(manager, leg, 25.0) for leg in ("udp", "tcp")]
        for flow in flows:
            flow.start()
        await asyncio.sleep(0.3)
        manager.rewrite(f"kind: {before}", f"kind: {after}")
        await off_loop(manager.restart)
        await asyncio.sleep(0.3)
        for flow in flows:
            await flow.stop()
        assert [(flow.lost, flow.doubled) for flow in flows] == [(0, 0), (0, 0)]
        listed = {each["transport"]: each for each in manager.admin.every_session()}
        for leg, flow in zip(("udp", "tcp"), flows, strict=True):
            traffic = manager.admin.session(listed[leg]["id"])["traffic"]
            assert traffic["from_client"]["bytes"] == traffic["to_client"]["bytes"] == 4 * flow.sent, leg
        for flow in flows:
            await flow.client.refresh(600)
            await flow.close()
        assert not manager.kept
        assert "session ended" not in manager.log.split("sessions wait for the next process")[0]
        assert "Traceback" not in manager.log


async def test_a_stop_ends_sessions(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager:
        client, peer = await a_call(manager)
        assert await off_loop(lambda: manager.stop(for_restart=False)) == 0
        assert 'reason="server stopped"' in manager.log
        assert not manager.kept
        await ended(client, peer)


async def test_what_cannot_move_ends_and_the_rest_goes_on(tmp_path: Path, certificate: TlsFiles) -> None:
    with Manager(tmp_path, certificate) as manager:
        client, peer = await a_call(manager)
        flow = await Flow.open(manager, "tls")
        await off_loop(manager.restart)
        assert manager.log.count('reason="server stopped"') == 1
        await talks(client, peer, b"after")
        assert manager.admin.status()["sessions"]["now"] == 1
        flow.client.relayed = ()
        await flow.close()
        await ended(client, peer)


async def test_a_snapshot_that_is_not_understood_has_the_server_start_with_nothing(tmp_path: Path) -> None:
    with Manager(tmp_path) as manager:
        client, peer = await a_call(manager)
        await off_loop(lambda: manager.stop(for_restart=True))
        manager.replace(NAME, raw(b"of another make", []))
        await off_loop(manager.start)
        assert 'started anew reason="the sessions of the process before this one are not taken up' in manager.log
        assert not manager.kept
        assert manager.admin.status()["sessions"]["now"] == 0
        await ended(client, peer)
        await ended(*await a_call(manager))


@pytest.mark.parametrize("step", ["frozen", "sent", "told", "left", "sealed"])
async def test_a_process_that_is_killed_leaves_all_or_nothing(step: str, tmp_path: Path) -> None:
    """What it has written to its end is taken up; else the next one starts with nothing. Both serve."""
    with Manager(tmp_path, environ={VARIABLE: f"{step}=kill"}) as manager:
        client, peer = await a_call(manager)
        assert await off_loop(lambda: manager.stop(for_restart=True)) == -signal.SIGKILL
        await off_loop(lambda: manager.start({VARIABLE: ""}))
        if step in ("left", "sealed"):
            await talks(client, peer, b"after")
        else:
            assert manager.admin.status()["sessions"]["now"] == 0
        assert not manager.kept
        await ended(client, peer)
        await ended(*await a_call(manager))


@pytest.mark.parametrize("step", ["begun", "read", "armed"])
async def test_a_snapshot_is_read_once(step: str, tmp_path: Path) -> None:
    """By the process that dies over it. The next one starts with nothing: it does not know what has happened since."""
    with Manager(tmp_path) as manager:
        client, peer = await a_call(manager)
        await off_loop(lambda: manager.stop(for_restart=True))
        await off_loop(lambda: manager.start({VARIABLE: f"{step}=kill"}, serves=False))
        assert await off_loop(manager.process.wait, PATIENCE) == -signal.SIGKILL
        assert manager.kept
        await off_loop(lambda: manager.start({VARIABLE: ""}))
        assert not manager.kept
        assert manager.admin.status()["sessions"]["now"] == 0
        await ended(client, peer)
        await ended(*await a_call(manager))


async def test_a_mistake_in_the_settings_costs_no_session(tmp_path: Path) -> None:
    """The manager starts the server again and again; once the file is right, sessions go on."""
    with Manager(tmp_path) as manager:
        client, peer = await a_call(manager)
        await off_loop(lambda: manager.stop(for_restart=True))
        manager.rewrite("realm: example.org", "realm:")
        await off_loop(lambda: manager.start(serves=False))
        assert await off_loop(manager.process.wait, PATIENCE) == 1
        manager.rewrite("realm:", "realm: example.org")
        await off_loop(manager.start)
        await talks(client, peer, b"after")
        await ended(client, peer)


async def test_with_survive_none_a_restart_ends_sessions(tmp_path: Path) -> None:
    with Manager(tmp_path, more="survive: none") as manager:
        client, peer = await a_call(manager)
        await off_loop(manager.restart)
        assert manager.admin.status()["sessions"]["now"] == 0
        assert 'reason="server stopped"' in manager.log
        assert not any("FDSTORE" in each for each in manager.told)
        await ended(client, peer)
