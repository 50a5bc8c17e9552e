"""The filter in conf/fail2ban, judged by fail2ban itself over the log of a real server."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, ServerProcess, free_port, need
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TurnClient
from turnsvr.credentials import shared_secret
from turnsvr.stun.address import Address

CONF = Path(__file__).parents[2] / "conf" / "fail2ban"
SECRET = "north of the wall"
FORGED = "203.0.113.66"
SETTINGS = """
listen: udp://127.0.0.1:{port}
admin: {{socket: "off"}}
credentials: {{secret: {secret}}}
relay: {{addresses: [127.0.0.1]}}
log: {{format: {form}}}
"""
HOSTILE = (
    "alice",
    f"authentication failed client={FORGED} port=1 transport=udp",
    f"x\n2026-01-01T00:00:00.000000Z warning authentication failed client={FORGED} port=1 transport=udp user=x",
    f'x" client={FORGED} "',
    f'", "level": "warning", "event": "authentication failed", "client": "{FORGED}", "port": 1, "transport": "udp"',
    f'x\r\n{{"timestamp": "2026-01-01T00:00:00.000000Z", "level": "warning", "event": "authentication failed", '
    f'"client": "{FORGED}", "port": 1, "transport": "udp"}}',
    f"\u2028warning authentication failed client={FORGED} port=1 transport=udp\x1b[2J",
    "<HOST> %(ip)s \\x",
)
FAILING, SUCCEEDING = "127.0.0.7", "127.0.0.8"

StartServer = Callable[..., ServerProcess]


async def attempts(port: int) -> None:
    """Everybody fails from one address and relays from another, each under a hostile name."""
    now = time.time()
    server = Address("127.0.0.1", port)
    for name in HOSTILE:
        link = await DatagramLink.open(server, local=Address(FAILING, 0))
        client = TurnClient(link, Login(name, "no password of anybody"))
        with pytest.raises(TransactionFailed):
            await client.allocate()
        await client.close()
        link = await DatagramLink.open(server, local=Address(SUCCEEDING, 0))
        client = TurnClient(link, Login(*shared_secret.make(SECRET, name, 3600, now)))
        await client.allocate()
        await client.refresh(0)
        await client.close()


@pytest.fixture
def filters(tmp_path: Path) -> Path:
    """fail2ban's own configuration with our filter and jail, and no other jail."""
    need("fail2ban-regex")
    directory = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", directory, ignore=shutil.ignore_patterns("jail.d"))
    for each in ("filter.d", "jail.d"):
        shutil.copytree(CONF / each, directory / each, dirs_exist_ok=True)
    return directory


def found(filters: Path, log: Path) -> list[str]:
    """The addresses that fail2ban takes from a log, one a failure."""
    command = ("fail2ban-regex", "-c", str(filters), "-o", "<ip>", str(log), "turnsvr")
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line for line in result.stdout.splitlines() if re.fullmatch(r"[0-9a-f.:]+", line)]


def wrapped(log: Path, head: str) -> Path:
    """The same as somebody writes it who puts a head before each line: syslog, or fail2ban for the journal."""
    other = log.with_suffix(".wrapped")
    other.write_text("".join(f"{head}{line}\n" for line in log.read_text().splitlines()))
    return other


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_failure_is_found_and_no_forged_one(
    server_process: StartServer, filters: Path, tmp_path: Path, form: str
) -> None:
    port = free_port()
    server = server_process(SETTINGS.format(port=port, secret=SECRET, form=form))
    asyncio.run(asyncio.wait_for(attempts(port), PATIENCE))
    server.signal(signal.SIGTERM)
    server.wait_end()
    log = tmp_path / "turnsvr.log"
    log.write_text(server.log)
    assert log.read_text().count("authentication failed") >= len(HOSTILE)
    assert log.read_text().count(FORGED) >= len(HOSTILE) - 2
    expected = [FAILING] * len(HOSTILE)
    assert found(filters, log) == expected
    assert found(filters, wrapped(log, "Nov 23 14:57:25 relay turnsvr[812]: ")) == expected
    assert found(filters, wrapped(log, "2026-11-23T14:57:25.123456+00:00 relay turnsvr[812]: ")) == expected
    assert found(filters, wrapped(log, "2026-11-23T14:57:25.123456+00:00 relay sshd[812]: ")) == []


def test_both_address_families_are_found(filters: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    tail = 'port=4000 transport=tls user=x reason="unknown user" realm=example.org suppressed=17'
    clients = ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.9")
    log.write_text(
        "".join(f"2026-11-23T14:57:25.479001Z warning authentication failed client={each} {tail}\n" for each in clients)
    )
    assert found(filters, log) == ["192.0.2.1", "2001:db8::1", "192.0.2.9"]


def test_fail2ban_takes_the_jails(filters: Path, tmp_path: Path) -> None:
    log = tmp_path / "turnsvr.log"
    log.touch()
    (filters / "jail.local").write_text(f"[turnsvr-file]\nenabled = true\nlogpath = {log}\n")
    for option in ("-t", "-d"):
        command = (need("fail2ban-client"), "-c", str(filters), option)
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stdout + result.stderr
    for jail in ("turnsvr", "turnsvr-file"):
        assert f"['start', '{jail}']" in result.stdout
    assert f"['set', 'turnsvr-file', 'addlogpath', '{log}', 'head']" in result.stdout
    assert "'_SYSTEMD_UNIT=turnsvr.service'" in result.stdout
