"""Calls through an upgrade: real processes, real clients, packets counted where they arrive."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
from pathlib import Path

import pytest

from tests.app.handover.rig import Flow, Server, Serving, is_alive, off_loop, until
from tests.conftest import PATIENCE, free_port
from tests.processes import wait_for
from turnsvr import relay
from turnsvr.admin import NoServer
from turnsvr.admin.handover import PREFACE
from turnsvr.app.handover.steps import GIVER, TAKER, VARIABLE
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.net.tls import TlsFiles
from turnsvr.relay import refuses_dtls
from turnsvr.stun.address import Address, Family

LEGS = ("udp", "tcp", "tls", "dtls")
EARLY = ("asked", "frozen", "kept", "half-sent")
"""Steps of a giver that has not said its sessions yet."""


@pytest.fixture(params=[("auto", "auto"), ("portable", "auto"), ("auto", "portable")], ids="->".join)
def kinds(request: pytest.FixtureRequest) -> tuple[str, str]:
    if relay.describe().startswith("portable"):
        pytest.skip(relay.describe())
    before, after = request.param
    return before, after


async def test_no_packet_is_lost_on_any_leg(kinds: tuple[str, str], tmp_path: Path, certificate: TlsFiles) -> None:
    before, after = kinds
    dtls = "portable" not in kinds
    legs = [(leg, family) for leg in (LEGS if dtls else LEGS[:3]) for family in Family]
    with Server(tmp_path, certificate, more=f"pump: {{kind: {before}}}", dtls=dtls) as server:
        flows = [await Flow.open(server, leg, 50.0, family=family) for leg, family in legs]
        for flow in flows:
            flow.start()
        await asyncio.sleep(0.5)
        server.rewrite(f"kind: {before}", f"kind: {after}")
        done = await off_loop(server.upgrade)
        assert done.returncode == 0, done.stderr + server.log
        assert "4 sessions moved" in done.stdout
        assert f"{len(legs) - 4} sessions" in done.stdout
        await asyncio.sleep(0.5)
        for flow in flows:
            await flow.stop()
        assert [flow.lost for flow in flows] == [0] * len(legs)
        assert [flow.doubled for flow in flows] == [0] * len(legs)
        await asyncio.sleep(0.5)  # what the old process has told of is as old at the most
        listed = {each["client"]: each["traffic"] for each in server.admin.every_session()}
        for flow in flows:
            traffic = listed[str(flow.client.link.local)]
            assert traffic["from_client"]["bytes"] == traffic["to_client"]["bytes"] == 4 * flow.sent
        assert server.admin.status()["pump"].startswith("portable" if after == "portable" else "compiled")
        for flow in flows:
            await flow.client.refresh(600)
            await flow.close()
        await off_loop(wait_for, server.pids[:1], "Z")  # the old process ends with the clients of TLS and DTLS
        assert is_alive(server.pids[1])
        assert "Traceback" not in server.log


async def a_call(server: Serving, leg: str = "udp") -> tuple[TurnClient, socket.socket]:
    """A client with an allocation, and a peer that it may reach."""
    client = await Flow.client_of(server, leg)
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.setblocking(False)
    peer.bind(("127.0.0.1", 0))
    await client.bind_channel(Address(*peer.getsockname()))
    return client, peer


async def talks(client: TurnClient, peer: socket.socket, said: bytes) -> None:
    """Both ways, and the rules judge as well: each packet arrives once."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        client.send(Address(*peer.getsockname()), said)
        assert (await loop.sock_recvfrom(peer, 100))[0] == said
        peer.sendto(said, client.relayed[0])
        received = await client.receive()
        assert isinstance(received, PeerData)
        assert received.data == said
        await client.refresh(600)
    with pytest.raises(BlockingIOError):
        peer.recv(100)


async def ended(client: TurnClient, peer: socket.socket) -> None:
    peer.close()
    client.relayed = ()
    await client.close()


@pytest.mark.parametrize("step", EARLY)
async def test_calls_end_by_their_clients_where_the_server_dies_before_it_has_said_enough(
    step: str, tmp_path: Path
) -> None:
    """Before its rules nobody can go on; before its sessions a successor has the listeners."""
    with Server(tmp_path, environ={VARIABLE: f"{step}=kill"}) as server:
        client, peer = await a_call(server)
        successor = server.take_over({VARIABLE: ""})
        await off_loop(wait_for, server.pids[:1], "Z")
        if step == "half-sent":
            await until(lambda: _answers(server, successor.pid))
        else:
            assert await off_loop(successor.wait, 60) == 1
        await ended(client, peer)


async def test_calls_go_on_where_one_server_after_another_dies_later(tmp_path: Path) -> None:
    steps = [step for step in GIVER if step not in EARLY]
    with Server(tmp_path, environ={VARIABLE: f"{steps[0]}=kill"}) as server:
        client, peer = await a_call(server)
        for step, following in zip(steps, [*steps[1:], ""], strict=True):
            before = server.serves()
            successor = server.take_over({VARIABLE: f"{following}=kill" if following else ""})
            await off_loop(wait_for, [before], "Z")
            await until(lambda: _answers(server, successor.pid))  # noqa: B023 - awaited here
            await talks(client, peer, step.encode())
            assert is_alive(successor.pid)
        await ended(client, peer)


async def test_calls_go_on_where_the_successor_dies_at_any_step(tmp_path: Path, certificate: TlsFiles) -> None:
    """Those of clients that would have moved, and those of DTLS clients that have a socket of their own by then."""
    dtls = not refuses_dtls("auto")
    with Server(tmp_path, certificate, dtls=dtls) as server:
        calls = [await a_call(server, leg) for leg in ("udp", *(["dtls"] if dtls else []))]
        for step in TAKER:
            successor = server.take_over({VARIABLE: f"{step}=kill"})
            assert await off_loop(successor.wait, 60) == -signal.SIGKILL
            if step == "serves":  # the server has heard that it serves: it ended with all that it had
                break
            await until(lambda: _answers(server, server.pids[0]))
            for client, peer in calls:
                await talks(client, peer, step.encode())
        for client, peer in calls:
            await ended(client, peer)


@pytest.mark.parametrize("step", ["begun", "may-serve"])
async def test_a_successor_that_hangs_is_not_waited_for(step: str, tmp_path: Path) -> None:
    """After it may serve it is ended, for nobody else can know that it will not."""
    with Server(tmp_path) as server:
        client, peer = await a_call(server)
        successor = server.take_over({VARIABLE: f"{step}=stop"})
        await off_loop(wait_for, [successor.pid], "T")
        if step == "begun":
            client.send(Address(*peer.getsockname()), b"relayed meanwhile")
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_recvfrom(peer, 100)
            os.kill(successor.pid, signal.SIGKILL)
        await off_loop(successor.wait, 60)
        await talks(client, peer, b"after")
        assert server.serves() == server.pids[0]
        await ended(client, peer)


def _answers(server: Server, pid: int) -> bool:
    try:
        return server.serves() == pid
    except NoServer:
        return False


async def test_a_program_that_does_not_serve_changes_nothing(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        client, peer = await a_call(server)
        done = await off_loop(server.upgrade, "--exec", "/bin/false")
        assert done.returncode == 1
        assert done.stderr == (
            "turnsvr: the successor has gone; the new process has ended with status 1; this server serves as before\n"
        )
        server.rewrite("realm: example.org", "realm:")
        done = await off_loop(server.upgrade)
        assert done.returncode == 1
        assert "realm: has no text" in server.log
        await talks(client, peer, b"as before")
        await ended(client, peer)


async def test_who_is_not_understood_is_told_so(tmp_path: Path) -> None:
    answers: list[tuple[object, str]] = [
        ({"kind": "ask", "reads": [2, 3], "version": "9.0", "pid": 1}, "turnsvr 9.0 reads version 2, 3, not 1"),
        ({"kind": "ask", "reads": [1]}, "pid is no whole number"),
        ({"kind": "question"}, "a successor that does not ask"),
        ([], "message is no object"),
    ]
    with Server(tmp_path) as server:
        client, peer = await a_call(server)

        def ask(said: object) -> dict[str, object]:
            text = json.dumps(said).encode()
            with socket.socket(socket.AF_UNIX) as successor:
                successor.settimeout(PATIENCE)
                successor.connect(str(tmp_path / "admin.sock"))
                successor.sendall(PREFACE + len(text).to_bytes(4, "big") + bytes(2) + text)
                answer = b""
                while part := successor.recv(4096):
                    answer += part
            found: dict[str, object] = json.loads(answer[6:])
            return found

        for said, reason in answers:
            assert await off_loop(ask, said) == {"kind": "refused", "reason": reason}
            await talks(client, peer, b"as before")
            assert f'not handed over reason="{reason}"' in server.log
        await ended(client, peer)


async def test_the_end_of_the_successor_is_the_end_of_both(tmp_path: Path, certificate: TlsFiles) -> None:
    with Server(tmp_path, certificate) as server:
        flow = await Flow.open(server, "tls")
        assert (await off_loop(server.upgrade)).returncode == 0
        assert all(map(is_alive, server.pids))
        os.kill(server.pids[1], signal.SIGTERM)
        await off_loop(wait_for, server.pids, "Z")
        assert server.log.count('reason="server stopped"') == 1
        flow.client.relayed = ()
        await flow.close()


async def test_whoever_stays_and_whoever_has_moved_reach_each_other(tmp_path: Path, certificate: TlsFiles) -> None:
    """Relay to relay, though no port of this host is open to clients."""
    with Server(tmp_path, certificate, peers="{}") as server:
        stays, moved = await Flow.client_of(server, "tls"), await Flow.client_of(server, "udp")
        await stays.bind_channel(moved.relayed[0])
        await moved.bind_channel(stays.relayed[0])
        assert (await off_loop(server.upgrade)).returncode == 0
        later = await Flow.client_of(server, "udp")
        await stays.bind_channel(later.relayed[0])
        await later.bind_channel(stays.relayed[0])
        for one, other in ((stays, moved), (moved, stays), (stays, later), (later, stays)):
            one.send(other.relayed[0], b"data")
            received = await asyncio.wait_for(other.receive(), PATIENCE)
            assert isinstance(received, PeerData)
            assert (received.peer, received.data) == (one.relayed[0], b"data")
        for each in (stays, moved, later):
            await each.close()


async def test_many_in_a_row_lose_nothing_and_counters_add_up(tmp_path: Path, certificate: TlsFiles) -> None:
    """Every leg, both directions, other threads each time; sessions stay in several processes."""
    if relay.describe().startswith("portable"):
        pytest.skip(relay.describe())
    with Server(tmp_path, certificate, more="pump: {threads: 1}", dtls=True) as server:
        flows = [await Flow.open(server, leg, 25.0, family=family) for leg in LEGS for family in Family]
        for flow in flows:
            flow.start()
        for before, after in ((1, 3), (3, 2), (2, 1), (1, 1)):
            server.rewrite(f"threads: {before}", f"threads: {after}")
            assert (await off_loop(server.upgrade)).returncode == 0
            leg = ("tls", "dtls")[before % 2]
            flows.append(flow := await Flow.open(server, leg, 25.0))
            flow.start()
        for flow in flows:
            await flow.stop()
        assert [(flow.lost, flow.doubled) for flow in flows] == [(0, 0)] * len(flows)
        await asyncio.sleep(1.0)  # what the old processes have told of is as old at the most
        listed = {each["client"]: each["traffic"] for each in server.admin.every_session()}
        for flow in flows:
            traffic = listed[str(flow.client.link.local)]
            assert traffic["from_client"]["packets"] == traffic["to_client"]["packets"] == flow.sent
        status = server.admin.status()
        assert status["relayed"]["from_client"]["packets"] == sum(flow.sent for flow in flows)
        assert sum(status["sessions"]["started"].values()) == status["sessions"]["now"] == len(flows)
        for flow in flows:
            await flow.close()
        await off_loop(server.gone, 4)
        await until(lambda: server.admin.status()["sessions"]["now"] == 0)
        assert sum(server.admin.status()["sessions"]["ended"].values()) == len(flows)


async def test_a_realm_that_is_gone_ends_its_sessions(tmp_path: Path, certificate: TlsFiles) -> None:
    """Those that would move, and those that have stayed."""
    with Server(tmp_path, certificate) as server:
        client, peer = await a_call(server)
        stays, its_peer = await a_call(server, "tls")
        server.rewrite("realm: example.org", "realm: other.example")
        done = await off_loop(server.upgrade)
        assert done.returncode == 0
        await until(lambda: server.admin.status()["sessions"]["now"] == 0)
        assert server.log.count('reason="ended by the operator" realm=example.org') == 2
        await ended(client, peer)
        await ended(stays, its_peer)


async def test_twice_in_a_row_and_figures_go_on(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        client, peer = await a_call(server)
        for at in range(3):
            await talks(client, peer, b"before %d" % at)
            assert (await off_loop(server.upgrade)).returncode == 0
        await off_loop(wait_for, server.pids[:3], "Z")
        status = server.admin.status()
        assert status["sessions"] == {
            "now": 1,
            "started": {"udp": 1, "tcp": 0, "tls": 0, "dtls": 0},
            "ended": status["sessions"]["ended"],
        }
        [session] = server.admin.every_session()
        assert session["traffic"]["from_client"]["packets"] == 3
        peer.close()
        await client.close()
        await until(lambda: "session ended" in server.log)
        assert "packets_from_client=3 packets_to_client=3" in server.log


@pytest.mark.parametrize("how", ["command", "signal"])
async def test_a_reload_takes_what_only_a_restart_changes(how: str, tmp_path: Path) -> None:
    """Listeners, threads, the kind of pump; the old listener serves those whose sessions came in there."""
    with Server(tmp_path, more="pump: {kind: portable}") as server:
        client, peer = await a_call(server)
        before, other = server.port, free_port()
        server.rewrite("kind: portable", "kind: auto, threads: 2")
        server.rewrite(f"udp://127.0.0.1:{before}", f"udp://127.0.0.1:{other}")
        if how == "command":
            said = await off_loop(server.command, "reload")
            assert "serves now, and has taken listen, pump.kind, pump.threads" in said
        else:
            server.process.signal(signal.SIGHUP)
            await until(lambda: "handed over" in server.log)
        await off_loop(wait_for, server.pids[:1], "Z")
        await until(lambda: _answers(server, 0) or server.serves() != server.pids[0])
        server.pids.append(server.serves())
        assert server.process.wait_notified(f"MAINPID={server.pids[1]}")
        await talks(client, peer, b"by the old listener")
        server.port = other
        another, its_peer = await a_call(server)
        await talks(another, its_peer, b"by the new one")
        await ended(client, peer)
        await ended(another, its_peer)


async def test_where_nobody_follows_a_reload_leaves_what_needs_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, environ={"NOTIFY_SOCKET": ""}, is_followed=False) as server:
        server.rewrite("realm:", "pump: {threads: 2}\nrealm:")
        said = await off_loop(server.command, "reload")
        assert said.splitlines()[1:] == [
            "what needs a restart has stayed as it was: pump.threads",
            "turnsvr upgrade takes it, and cuts no call",
        ]
        assert (await off_loop(server.upgrade)).returncode == 0


async def test_the_successor_lists_counts_and_ends_what_has_stayed(tmp_path: Path, certificate: TlsFiles) -> None:
    """Also after another upgrade, for two processes before it."""
    with Server(tmp_path, certificate, more="limits: {allocations_per_user: 3}") as server:
        first = await Flow.open(server, "tls")
        first.start()
        assert (await off_loop(server.upgrade)).returncode == 0
        second = await Flow.open(server, "tls")
        assert (await off_loop(server.upgrade)).returncode == 0
        assert all(map(is_alive, server.pids))
        third = await Flow.client_of(server, "udp")
        with pytest.raises(ClientError, match="486"):
            await Flow.client_of(server, "udp")
        await first.stop()
        assert (first.lost, first.doubled) == (0, 0)
        await asyncio.sleep(1.0)  # lists are half a second old at the most
        listed = {each["client"]: each for each in server.admin.every_session()}
        assert set(listed) == {str(each.link.local) for each in (first.client, second.client, third)}
        relayed = listed[str(first.client.link.local)]["traffic"]
        assert relayed["from_client"]["packets"] == relayed["to_client"]["packets"] == first.sent
        status = server.admin.status()
        assert status["sessions"]["now"] == 3
        assert status["relayed"]["from_client"]["packets"] >= first.sent
        server.admin.end(listed[str(first.client.link.local)]["id"])
        await until(lambda: len(list(server.admin.every_session())) == 2)
        first.client.relayed = ()
        await first.close()
        await off_loop(wait_for, server.pids[:1], "Z")
        await until(lambda: server.admin.status()["sessions"]["now"] == 2)
        assert server.admin.status()["relayed"]["from_client"]["packets"] >= first.sent
        await (await Flow.client_of(server, "udp")).close()
        await second.close()
        await off_loop(wait_for, server.pids[:2], "Z")
        await third.close()


@pytest.mark.parametrize("realm", ["example.org", "other.example"])
async def test_a_successor_that_gives_up_ends_no_session_in_the_log(realm: str, tmp_path: Path) -> None:
    """Not even those that it would not go on with."""
    with Server(tmp_path) as server, socket.socket() as taken:
        client, peer = await a_call(server)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"http://127.0.0.1:{taken.getsockname()[1]}"
        server.rewrite("realm:", f"admin: {{listen: [{where}], token: {secrets.token_hex(20)}}}\nrealm:")
        server.rewrite("realm: example.org", f"realm: {realm}")
        done = await off_loop(server.upgrade)
        assert done.returncode == 1
        assert "admin.listen" in server.log
        assert "session ended" not in server.log
        await talks(client, peer, b"as before")
        await ended(client, peer)


async def test_a_server_that_drains_goes_on_draining(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        client, peer = await a_call(server)
        server.admin.drain()
        assert (await off_loop(server.upgrade)).returncode == 0
        assert server.admin.status()["draining"]
        with pytest.raises(ClientError, match="508"):
            await a_call(server)
        peer.close()
        await client.close()
        await off_loop(wait_for, server.pids, "Z")
