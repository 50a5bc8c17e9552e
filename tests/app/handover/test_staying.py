"""What has stayed in the processes before: it is counted and listed, the operator reaches it, and so do its clients."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from tests.app.handover.rig import SECRET, Server, off_loop, until
from tests.conftest import PASSWORD, PATIENCE, USER, free_port
from tests.web.test_metrics import Figures
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link, tls_context
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import TCP_PROTOCOL, AllocateOptions, TurnClient
from turnsvr.credentials import shared_secret
from turnsvr.net.tls import TlsFiles
from turnsvr.relay import refuses_dtls
from turnsvr.stun.address import Address, Transport

SESSIONS = "turnsvr_sessions"


async def connected(server: Server, transport: Transport, login: Login | None = None) -> TurnClient:
    port = server.port if transport in (Transport.UDP, Transport.TCP) else server.tls_port
    link = await open_link(transport, Address("127.0.0.1", port), tls=tls_context(insecure=True))
    return TurnClient(link, login or Login(USER, PASSWORD))


async def left(client: TurnClient) -> None:
    """Close its link, and say nothing of its allocation."""
    client.relayed = ()
    await client.close()


@pytest.mark.skipif(bool(refuses_dtls("auto")), reason=refuses_dtls("auto"))
async def test_what_stays_is_counted_listed_and_ended(tmp_path: Path, certificate: TlsFiles) -> None:
    """In two processes before this one; a user name that is revoked is refused in each of them."""
    web = free_port()
    more = f"web: {{listen: 'http://127.0.0.1:{web}'}}"

    def figures() -> Figures:
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/metrics", timeout=PATIENCE) as answer:
            return Figures(answer.read().decode())

    def now(transport: str) -> float:
        return figures().of(SESSIONS, transport=transport, family="ipv4")

    timed = Login(*shared_secret.make(SECRET, "mallory", 600, time.time()))
    with Server(tmp_path, certificate, more=more, dtls=True) as server:
        over_tls, over_dtls = [await connected(server, each, timed) for each in (Transport.TLS, Transport.DTLS)]
        for each in (over_tls, over_dtls):
            await each.allocate()
        assert (await off_loop(server.upgrade)).returncode == 0
        assert (await off_loop(server.upgrade)).returncode == 0
        over_udp = await connected(server, Transport.UDP)
        await over_udp.allocate()
        seen = await off_loop(figures)
        assert [seen.of(SESSIONS, transport=each, family="ipv4") for each in ("udp", "tls", "dtls")] == [1, 1, 1]
        assert [seen.of("turnsvr_sessions_started_total", transport=each) for each in ("tls", "dtls")] == [1, 1]
        assert seen.of("turnsvr_allocations") == 3
        assert seen.of("turnsvr_connections") == 1
        assert seen.of("turnsvr_dtls_associations") == 1
        assert seen.of("turnsvr_requests_total", method="allocate", code="200") == 3
        for each in (over_tls, over_dtls):
            await each.refresh(600)
        await until(lambda: figures().of("turnsvr_requests_total", method="refresh", code="200") == 2)
        assert server.admin.status()["sessions"]["now"] == 3
        assert server.admin.end_user(timed.username, revoke=True)["ended"] == 2
        await until(lambda: now("tls") == now("dtls") == 0)
        await until(lambda: figures().of("turnsvr_sessions_ended_total", reason="revoked") == 2)
        for each in (over_tls, over_dtls):
            with pytest.raises(ClientError, match="401"):
                await each.allocate()
            await left(each)
        await off_loop(server.gone, 2)
        seen = await off_loop(figures)  # what they have counted is not lost with them
        assert seen.of("turnsvr_sessions_ended_total", reason="revoked") == 2
        assert seen.of("turnsvr_requests_total", method="refresh", code="200") == 2
        assert now("udp") == 1
        await over_udp.close()


async def test_a_connection_finds_what_has_stayed(tmp_path: Path, certificate: TlsFiles) -> None:
    """ConnectionBind (RFC 6062) and a move (RFC 8016) over TCP reach who has the allocation; over UDP: 437."""
    more = "relay: {addresses: [127.0.0.1], tcp: true}\nstun: {mobility: true}"
    with (
        Server(tmp_path, certificate, more=more, peers="{allow: [127.0.0.1]}") as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        listener.setblocking(False)
        peer = Address(*listener.getsockname())
        control = await connected(server, Transport.TCP)
        await control.allocate(AllocateOptions(transport=TCP_PROTOCOL))
        mobile = await connected(server, Transport.TLS)
        await mobile.allocate(AllocateOptions(mobile=True))
        early = await control.connect(peer)
        for _ in range(2):
            assert (await off_loop(server.upgrade)).returncode == 0
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            accepted, _ = await loop.sock_accept(listener)
            bound = await (binder := await connected(server, Transport.TCP)).bind_connection(early)
            await loop.sock_sendall(accepted, b"to a connection that was there before")
            assert await bound.read(37) == b"to a connection that was there before"
            accepted.close()
            await control.refresh(600)
            with pytest.raises(ClientError, match="400"):  # nobody has it
                await (stranger := await connected(server, Transport.TCP)).bind_connection(early ^ 1)
        address = Address("127.0.0.1", server.port)
        elsewhere = await open_link(Transport.UDP, address)
        with pytest.raises(ClientError, match="437"):
            await mobile.move(elsewhere)
        await elsewhere.close()
        before = await mobile.move(await open_link(Transport.TCP, address))
        await before.close()
        await mobile.refresh(600)
        for each in (mobile, control, binder, stranger):
            await each.close()
        await off_loop(server.gone, 2)


async def test_records_and_log_of_what_stays_go_where_those_of_the_successor_go(
    tmp_path: Path, certificate: TlsFiles
) -> None:
    """Into the files that have the names now; sessions of all processes are named as those of one run."""
    records, log = tmp_path / "usage.jsonl", tmp_path / "server.log"
    with Server(tmp_path, certificate, more=f"usage: {{file: {records}}}\nlog: {{file: {log}}}") as server:
        moves, stays = [await connected(server, each) for each in (Transport.UDP, Transport.TLS)]
        for each in (moves, stays):
            await each.allocate()
        for _ in range(2):
            assert (await off_loop(server.upgrade)).returncode == 0
        for file in (records, log):
            file.rename(file.with_suffix(".old"))
        await off_loop(server.command, "reload")
        await stays.close()
        await off_loop(server.gone, 2)
        await moves.close()
        await until(lambda: len(records.read_text().splitlines()) == 2)
        found = list(map(json.loads, records.read_text().splitlines()))
        assert [(each["transport"], each["kind"]) for each in found] == [("tls", "end"), ("udp", "end")]
        assert len({each["id"].partition("-")[0] for each in found}) == 2
        assert len({each["session"].partition("-")[0] for each in found}) == 1
        assert log.read_text().count("session ended") == 2
        assert not records.with_suffix(".old").read_text()


async def test_what_stays_ends_when_the_settings_say_so(tmp_path: Path, certificate: TlsFiles) -> None:
    """By the limit of its own process, and the successor serves on."""
    with Server(tmp_path, certificate, more="limits: {staying: 1s}") as server:
        stays, moves = [await connected(server, each) for each in (Transport.TLS, Transport.UDP)]
        for each in (stays, moves):
            await each.allocate()
        began = time.monotonic()
        assert (await off_loop(server.upgrade)).returncode == 0
        await off_loop(server.gone, 1)
        assert time.monotonic() - began >= 1
        assert "what stayed is ended sessions=1 setting=limits.staying" in server.log
        await until(lambda: server.admin.status()["sessions"]["now"] == 1)
        await moves.refresh(600)
        await left(stays)
        await moves.close()


async def test_over_tls_a_connection_does_not_find_what_has_stayed(tmp_path: Path, certificate: TlsFiles) -> None:
    """Its handshake is the successor's, so ConnectionBind (RFC 6062) is refused there; the allocation goes on."""
    more = "relay: {addresses: [127.0.0.1], tcp: true}"
    with (
        Server(tmp_path, certificate, more=more, peers="{allow: [127.0.0.1]}") as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        control = await connected(server, Transport.TLS)
        await control.allocate(AllocateOptions(transport=TCP_PROTOCOL))
        early = await control.connect(Address(*listener.getsockname()))
        assert (await off_loop(server.upgrade)).returncode == 0
        binder = await connected(server, Transport.TLS)
        with pytest.raises(ClientError, match="400"):
            await binder.bind_connection(early)
        await control.refresh(600)
        for each in (binder, control):
            await each.close()
        await off_loop(server.gone, 1)


@pytest.mark.skipif(bool(refuses_dtls("auto")), reason=refuses_dtls("auto"))
async def test_a_listener_comes_back_once_nobody_stays_there(tmp_path: Path, certificate: TlsFiles) -> None:
    """Their sockets keep its port. Whoever would take it is told so, and everybody is served as before."""
    with Server(tmp_path, certificate, dtls=True) as server:
        stays = await connected(server, Transport.DTLS)
        await stays.allocate()
        listed = f", 'dtls://127.0.0.1:{server.tls_port}'"
        server.rewrite(listed, "")
        assert (await off_loop(server.upgrade)).returncode == 0
        server.rewrite("listen: [", f"listen: [{listed[2:]}, ")
        assert (await off_loop(server.upgrade)).returncode == 1
        assert f"port {server.tls_port}/udp is in use" in server.log
        assert "clients who have stayed in a former process" in server.log
        assert "ResourceWarning" not in server.log
        await stays.refresh(600)
        await stays.close()
        await off_loop(server.gone, 1)
        assert (await off_loop(server.upgrade)).returncode == 0
        comes = await connected(server, Transport.DTLS)
        await comes.allocate()
        await comes.close()
