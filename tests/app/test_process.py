"""`turnsvr run` as operators see it: a process, its signals, its log, what its service manager hears."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, ServerProcess, free_port, wait_until
from turnsvr.app import firstrun
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink, StreamLink
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.compiled import tls as pump_tls
from turnsvr.stun.address import Address

T = TypeVar("T")
Start = Callable[..., ServerProcess]


def settings(port: int, tls: TlsFiles | None = None, *, more: str = "", password: str = PASSWORD) -> str:
    text = f"""
realm: example.org
listen: [udp://127.0.0.1:{port}, tcp://127.0.0.1:{port}]
relay: {{addresses: [127.0.0.1]}}
credentials: {{users: {{{USER}: {password}}}}}
{more}
"""
    return text + (f"tls: {{certificate: {tls.certificate}, key: {tls.key}}}\n" if tls else "")


async def allocated(port: int, *, stream: bool = False, password: str = PASSWORD) -> TurnClient:
    address = Address("127.0.0.1", port)
    link = await (StreamLink.open(address) if stream else DatagramLink.open(address))
    client = TurnClient(link, Login(USER, password))
    try:
        await client.allocate()
    except BaseException:
        await client.link.close()
        raise
    return client


async def off_loop(call: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(call, *arguments)


@pytest.mark.parametrize("kind", ["auto", "portable"])
def test_start_up_tells_who_serves_tls(server_process: Start, certificate: TlsFiles, kind: str) -> None:
    server = server_process(settings(free_port(), certificate, more=f"pump: {{kind: {kind}}}"))
    reader = "pump" if kind == "auto" and not pump_tls.missing() else "asyncio"
    assert f" tls={reader} " in server.wait_logged("^.* serving .*$").group()


async def test_sigterm_ends_sessions_cleanly_with_a_line_of_each(server_process: Start) -> None:
    port = free_port()
    server = server_process(settings(port))
    clients = [await allocated(port), await allocated(port, stream=True)]
    server.signal(signal.SIGTERM)
    assert await off_loop(server.wait_end) == 0
    ended = [line for line in server.log.splitlines() if " session ended " in line]
    assert len(ended) == 2
    for line, client in zip(ended, clients, strict=True):
        assert f"user={USER} client=127.0.0.1:{client.link.local.port}" in line
        assert f"relayed={client.relayed[0]}" in line
        assert line.endswith('reason="server stopped" realm=example.org')
    assert "STOPPING=1" in server.wait_notified("STOPPING=1")
    assert "Traceback" not in server.log
    for client in clients:
        client.relayed = ()
        await client.close()


async def test_the_line_of_a_session_counts_bytes_each_way(server_process: Start) -> None:
    port = free_port()
    server = server_process(settings(port, more="peers: {allow: [127.0.0.1]}"))
    client = await allocated(port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(PATIENCE)
        address = Address(*peer.getsockname())
        await client.permit(address)
        client.send(address, b"a" * 100)
        _, source = await off_loop(peer.recvfrom, 1000)
        peer.sendto(b"b" * 30, source)
        assert await asyncio.wait_for(client.receive(), PATIENCE) == PeerData(address, b"b" * 30)
    await client.close()
    line = (await off_loop(server.wait_logged, "session ended .*"))[0]
    assert "bytes_from_client=100 bytes_to_client=30 packets_from_client=1 packets_to_client=1" in line
    assert line.endswith('reason="client ended it" realm=example.org')


async def test_a_failed_authentication_has_one_line_with_the_client(server_process: Start) -> None:
    port = free_port()
    server = server_process(settings(port))
    with pytest.raises(ClientError):
        await allocated(port, password="guessed")
    line = (await off_loop(server.wait_logged, "^.*authentication failed.*$"))[0]
    assert re.fullmatch(
        rf"\S+ warning authentication failed client=127\.0\.0\.1 port=\d+ transport=udp user={USER} "
        'reason="wrong password" realm=example.org',
        line,
    )
    assert "guessed" not in server.log
    assert PASSWORD not in server.log


async def test_sighup_takes_new_settings_and_keeps_allocations(server_process: Start) -> None:
    port = free_port()
    server = server_process(settings(port))
    client = await allocated(port, stream=True)
    changed = settings(port, password="looking-glass", more="limits: {allocations_per_user: 2}")
    server.file.write_text(changed)
    server.signal(signal.SIGHUP)
    await off_loop(server.wait_notified, "RELOADING=1")
    await off_loop(server.wait_notified, "READY=1")
    await client.refresh(300)
    with pytest.raises(ClientError):
        await allocated(port)
    second = await allocated(port, password="looking-glass")
    with pytest.raises(ClientError, match="486"):
        await allocated(port, password="looking-glass")
    for each in (client, second):
        await each.close()


async def test_sighup_with_mistakes_names_them_and_keeps_the_old_settings(server_process: Start) -> None:
    port = free_port()
    server = server_process(settings(port))
    server.file.write_text("realm: example.org\ncredentials: {user: {a: b}}\n")
    server.signal(signal.SIGHUP)
    await off_loop(server.wait_logged, r"settings not reloaded mistake=.*turnsvr\.yaml:2")
    await (await allocated(port)).close()


async def test_sighup_takes_a_new_certificate_and_drops_no_connection(
    server_process: Start, tmp_path: Path, certificate: TlsFiles
) -> None:
    port = free_port()
    files = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    server = server_process(settings(port, files))
    first = await off_loop(served_certificate, port)
    assert first == ssl.PEM_cert_to_DER_cert(files.certificate.read_text())
    client = await allocated(port, stream=True)
    files.certificate.write_bytes(certificate.certificate.read_bytes())
    server.signal(signal.SIGHUP)
    await off_loop(server.wait_logged, "settings not reloaded .*key")
    assert await off_loop(served_certificate, port) == first
    files.key.write_bytes(certificate.key.read_bytes())
    server.signal(signal.SIGHUP)
    await off_loop(server.wait_logged, "settings reloaded")
    assert await off_loop(served_certificate, port) == ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())
    await client.refresh(300)
    await client.close()


async def test_sigusr2_takes_a_renewed_certificate(
    server_process: Start, tmp_path: Path, certificate: TlsFiles
) -> None:
    port = free_port()
    files = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    server = server_process(settings(port, files))
    files.key.write_bytes(certificate.key.read_bytes())
    files.certificate.write_bytes(certificate.certificate.read_bytes())
    server.signal(signal.SIGUSR2)
    await off_loop(server.wait_logged, "certificate reloaded")
    assert await off_loop(served_certificate, port) == ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())


def served_certificate(port: int) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain) as connection,
    ):
        return connection.getpeercert(binary_form=True)


async def test_sigusr1_drains(server_process: Start) -> None:
    port = free_port()
    server = server_process(settings(port))
    client = await allocated(port)
    server.signal(signal.SIGUSR1)
    await off_loop(server.wait_logged, "draining sessions=1")
    with pytest.raises(ClientError):
        await allocated(port)
    await client.refresh(300)
    assert server.process.poll() is None
    await client.close()
    assert await off_loop(server.wait_end) == 0


def test_sigusr1_without_sessions_ends_at_once(server_process: Start) -> None:
    server = server_process(settings(free_port()))
    server.signal(signal.SIGUSR1)
    assert server.wait_end() == 0


def test_the_watchdog_is_fed_while_packets_come_in(server_process: Start) -> None:
    server = server_process(settings(free_port()), environ={"WATCHDOG_USEC": "600000"})
    for _ in range(3):
        server.wait_notified("WATCHDOG=1")
    assert "takes no packets" not in server.log


def test_libraries_say_nothing_at_start_and_end(server_process: Start) -> None:
    server = server_process(settings(free_port(), more="web: {listen: 'http://127.0.0.1:0'}"))
    server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert "serving HTTP" in server.log
    assert "library message" not in server.log


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (tmp_path / "turnsvr.yaml").write_text(settings(port))
        done = subprocess.run(
            [sys.executable, "-m", "turnsvr", "run", "-c", str(tmp_path / "turnsvr.yaml")],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"turnsvr: udp://127.0.0.1:{port}: port {port}/udp is in use; ")
    assert "Traceback" not in done.stderr


async def test_an_ice_servers_list_from_stdout_relays(server_process: Start, tmp_path: Path) -> None:
    """Without credentials in the settings one is made and printed; two clients meet with what it says."""
    server = server_process(None, command=(sys.executable, "-c", FIRST_RUN))
    printed = wait_until(lambda: re.search(r"^\{\n.*^\}$", server.output, re.MULTILINE | re.DOTALL), "JSON")
    configuration = json.loads(printed[0])
    turn = configuration["iceServers"][-1]
    assert all(url.startswith("turn:") for url in turn["urls"])
    host, port = re.fullmatch(r"turn:(.*):(\d+)\?transport=udp", turn["urls"][0]).groups()  # type: ignore[union-attr]
    login = Login(turn["username"], turn["credential"])
    ends = [TurnClient(await DatagramLink.open(Address(host, int(port))), login) for _ in range(2)]
    for end in ends:
        await end.allocate()
    for end, other in zip(ends, reversed(ends), strict=True):
        await end.permit(other.relayed[0])
    ends[0].send(ends[1].relayed[0], b"hello")
    assert await asyncio.wait_for(ends[1].receive(), PATIENCE) == PeerData(ends[0].relayed[0], b"hello")
    for end in ends:
        await end.close()
    assert turn["credential"] not in server.log


FIRST_RUN = """
import sys
from turnsvr import app
from turnsvr.config.settings import Settings
listen = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0", "tls://127.0.0.1:0"]
sys.exit(app.run(Settings.model_validate({"listen": listen, "relay": {"addresses": ["127.0.0.1"]}})))
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_file_is_opened_again_on_hangup(server_process: Start, tmp_path: Path, form: str) -> None:
    file, rotated = tmp_path / "turnsvr.log", tmp_path / "turnsvr.log.1"
    server = server_process(settings(free_port(), more=f"log: {{file: turnsvr.log, format: {form}}}"))
    assert "serving" in file.read_text()
    assert server.log == ""
    file.rename(rotated)
    server.signal(signal.SIGHUP)
    wait_until(lambda: file.exists() and "settings reloaded" in file.read_text(), "a new log file")
    assert "settings reloaded" not in rotated.read_text()
    assert file.stat().st_mode & 0o007 == 0
    server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert "stopped" in file.read_text()


def test_a_log_file_is_opened_again_whatever_becomes_of_the_settings(server_process: Start, tmp_path: Path) -> None:
    file = tmp_path / "turnsvr.log"
    server = server_process(settings(free_port(), more="log: {file: turnsvr.log}"))
    file.rename(tmp_path / "turnsvr.log.1")
    server.file.write_text("nonsense: yes\n")
    server.signal(signal.SIGHUP)
    wait_until(lambda: file.exists() and "settings not reloaded" in file.read_text(), "a new log file")


def test_another_log_file_is_taken_and_one_that_cannot_be_is_refused(server_process: Start, tmp_path: Path) -> None:
    port = free_port()
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    server = server_process(settings(port, more="log: {file: first.log}"))
    server.file.write_text(settings(port, more="log: {file: nowhere/second.log}"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: "cannot write" in first.read_text(), "the refusal")
    server.file.write_text(settings(port, more="log: {file: second.log}"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: second.exists() and "settings reloaded" in second.read_text(), "the other file")
    server.file.write_text(settings(port))
    server.signal(signal.SIGHUP)
    server.wait_logged("settings reloaded")


def test_a_log_file_that_cannot_be_written_keeps_the_server_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "turnsvr.yaml"
    file.write_text(settings(free_port(), more="log: {file: nowhere/turnsvr.log}"))
    command = [sys.executable, "-m", "turnsvr", "run", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 1
    assert "log.file: cannot write" in ended.stderr
    assert "Traceback" not in ended.stderr
