"""Calls through a restart by systemd itself, which this host has and which runs beside everything else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.systemd import SYSTEMD, Systemd
from tests.app.handover.rig import Flow, off_loop
from tests.app.handover.test_upgrade import a_call, ended, talks
from tests.conftest import PASSWORD, PATIENCE, USER, free_port, need
from turnsvr.client.turn import PeerData


class Service:
    """turnsvr.service, started."""

    def __init__(self, systemd: Systemd, port: int, log: Path) -> None:
        self.port = self.tls_port = port
        self.systemd = systemd
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def do(self, what: str) -> float:
        """What systemctl is told, and how many seconds it takes."""
        began = time.monotonic()
        self.systemd.systemctl(what, "turnsvr.service")
        return time.monotonic() - began


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    if not SYSTEMD.exists() or os.geteuid():
        if os.environ.get("TURNSVR_REQUIRE_ALL") == "1":
            pytest.fail("systemd and root are needed")
        pytest.skip("systemd and root are needed")
    need("unshare")
    port, file, log = free_port(), tmp_path / "turnsvr.yaml", tmp_path / "log"
    file.write_text(f"""
realm: example.org
listen: [udp://127.0.0.1:{port}, tcp://127.0.0.1:{port}]
relay: {{addresses: [127.0.0.1]}}
peers: {{allow: [127.0.0.1]}}
credentials: {{users: {{{USER}: {PASSWORD}}}}}
admin: {{socket: {tmp_path}/admin.sock}}
survive: crash
""")
    with Systemd(tmp_path / "units", f"{sys.executable} -m turnsvr run -c {file}", log) as systemd:
        systemd.systemctl("start", "turnsvr.service")
        yield Service(systemd, port, log)


async def test_a_restart_loses_no_packet_and_a_stop_ends_sessions(service: Service) -> None:
    flows = [await Flow.open(service, leg, 50.0) for leg in ("udp", "tcp")]
    for flow in flows:
        flow.start()
    await asyncio.sleep(0.3)
    before = service.systemd.main_pid()
    took = await off_loop(service.do, "restart")
    assert service.systemd.main_pid() not in (0, before)
    assert "session ended" not in service.log
    await asyncio.sleep(0.3)
    for flow in flows:
        await flow.stop()
    assert all(flow.lost <= 2 * flow.sent // 100 for flow in flows), [(each.sent, each.lost) for each in flows]
    assert all(flow.doubled == 0 for flow in flows)
    assert all(max(flow.late) < took + 2.0 for flow in flows)
    await off_loop(service.do, "stop")
    assert service.log.count('reason="server stopped"') == 2
    await off_loop(service.do, "start")
    assert "sessions of the process before this one" not in service.log
    for flow in flows:
        flow.client.relayed = ()
        await flow.close()


async def test_calls_outlive_a_crash(service: Service) -> None:
    client, peer = await a_call(service)
    await asyncio.sleep(0.3)
    before = service.systemd.main_pid()
    os.kill(before, signal.SIGKILL)
    peer.sendto(b"waits", client.relayed[0])
    async with asyncio.timeout(3 * PATIENCE):
        received = await client.receive()
    assert isinstance(received, PeerData)
    assert received.data == b"waits"
    await talks(client, peer, b"after")
    assert service.systemd.main_pid() not in (0, before)
    await off_loop(service.do, "restart")
    await talks(client, peer, b"after a restart as well")
    await ended(client, peer)
