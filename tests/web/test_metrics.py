"""/metrics: what it counts and when, that its labels are few, and what promtool says of it."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of, need
from tests.monitoring.everything import all_metrics
from tests.web.conftest import Site, StartWeb
from turnsvr.app.figures import MAX_REALMS, OTHER, SessionCounter
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link, tls_context
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import AllocateOptions, TurnClient
from turnsvr.relay import refuses_dtls
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.message import Method
from turnsvr.turn.commands import AllocationEnded, AllocationStarted, AuthenticationFailed, EndReason, RequestRefused
from turnsvr.web.health import MAX_READINGS, MAX_READINGS_OF_ONE, Readings
from turnsvr.web.refusal import Refused

USERS: dict[str, Any] = {"credentials": {"users": {USER: PASSWORD}}}
PATH = FiveTuple(Transport.UDP, Address("198.51.100.7", 4000), Address("192.0.2.1", 3478))


class Figures:
    """What /metrics said once."""

    def __init__(self, text: str) -> None:
        self._samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def of(self, name: str, **labels: str) -> float:
        return self._samples[name, tuple(sorted(labels.items()))]

    def values(self, label: str) -> set[str]:
        """Every value that a label has anywhere."""
        return {value for _, labels in self._samples for name, value in labels if name == label}


async def figures(site: Site) -> Figures:
    return Figures((await site.get("/metrics")).text)


@asynccontextmanager
async def client_of(
    site: Site, transport: Transport = Transport.UDP, password: str = PASSWORD
) -> AsyncIterator[TurnClient]:
    tls = tls_context(insecure=True) if transport.is_encrypted else None
    link = await open_link(transport, address_of(site.application, transport.value), tls=tls)
    client = TurnClient(link, Login(USER, password))
    try:
        yield client
    finally:
        await client.close()


async def test_promtool_has_no_complaint(serve: Serve, tmp_path: Path) -> None:
    text = await all_metrics(serve, tmp_path)
    command = [need("promtool"), "check", "metrics"]
    result = await asyncio.to_thread(subprocess.run, command, input=text, text=True, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP, Transport.TLS])
@pytest.mark.parametrize(
    ("options", "family"),
    [
        (AllocateOptions(), "ipv4"),
        (AllocateOptions(family=Family.IPV6), "ipv6"),
        (AllocateOptions(additional_family=Family.IPV6), "both"),
    ],
)
async def test_sessions_now_and_in_all(
    start_web: StartWeb, transport: Transport, options: AllocateOptions, family: str
) -> None:
    if transport is Transport.DTLS and (reason := refuses_dtls("auto")):
        pytest.skip(reason)
    listen = [f"{transport.value}://127.0.0.1:0"]
    site = await start_web(sections={**USERS, "listen": listen, "relay": {"addresses": ["127.0.0.1", "::1"]}})
    labels = {"transport": transport.value, "family": family}
    before = await figures(site)
    assert before.of("turnsvr_sessions", **labels) == 0
    assert before.of("turnsvr_sessions_started_total", transport=transport.value) == 0
    async with client_of(site, transport) as client:
        await client.allocate(options)
        during = await figures(site)
        assert during.of("turnsvr_sessions", **labels) == 1
        assert during.of("turnsvr_realm_sessions", realm="example.org") == 1
        assert during.of("turnsvr_allocation_duration_seconds_count") == 1
        assert 0 < during.of("turnsvr_allocation_duration_seconds_sum") < PATIENCE
        assert during.of("turnsvr_session_duration_seconds_count") == 0
        await client.refresh(0)
    after = await figures(site)
    assert after.of("turnsvr_sessions", **labels) == 0
    assert after.of("turnsvr_sessions_started_total", transport=transport.value) == 1
    assert after.of("turnsvr_sessions_ended_total", reason="refreshed_to_zero") == 1
    assert after.of("turnsvr_session_duration_seconds_count") == 1


async def test_traffic_counts_while_it_passes(start_web: StartWeb) -> None:
    site = await start_web(sections=USERS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        async with client_of(site) as client:
            await client.allocate()
            channel = await client.bind_channel(Address(*peer.getsockname()))
            client.send_channel(channel, b"x" * 100)
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 200), PATIENCE)
            peer.sendto(b"y" * 40, client.relayed[0])
            await asyncio.wait_for(client.receive(), PATIENCE)
            client.send(Address("127.0.0.9", 9), b"to nobody who is permitted")
            await client.binding()
            found = await figures(site)
    for direction, octets in (("from_client", 100), ("to_client", 40)):
        assert found.of("turnsvr_relayed_packets_total", direction=direction) == 1
        assert found.of("turnsvr_relayed_bytes_total", direction=direction) == octets
    assert found.of("turnsvr_dropped_packets_total", reason="no_permission") == 1
    assert found.of("turnsvr_pump_receive_batches_total") <= found.of("turnsvr_received_packets_total")
    assert 0 < found.of("turnsvr_pump_sends_total") <= found.of("turnsvr_pump_segments_total")
    assert found.of("turnsvr_realm_relayed_bytes_total", realm="example.org", direction="to_client") == 0
    after = await figures(site)
    assert after.of("turnsvr_realm_sessions", realm="example.org") == 0
    assert after.of("turnsvr_realm_relayed_bytes_total", realm="example.org", direction="to_client") == 40


async def test_requests_by_method_and_outcome(start_web: StartWeb) -> None:
    site = await start_web(sections=USERS)
    assert (await figures(site)).of("turnsvr_requests_total", method="allocate", code="508") == 0
    async with client_of(site) as client:
        await client.allocate()
        await client.binding()
        with suppress(TransactionFailed):
            await client.permit(Address("192.168.1.1", 22))
    async with client_of(site, password="a wrong one") as wrong:
        with suppress(TransactionFailed):
            await wrong.allocate()
    found = await figures(site)
    for method, code, count in (
        ("allocate", "200", 1),
        ("binding", "200", 1),
        ("create_permission", "403", 1),
        ("channel_bind", "200", 0),
    ):
        assert found.of("turnsvr_requests_total", method=method, code=code) == count
    assert found.of("turnsvr_requests_total", method="allocate", code="401") >= 3
    challenges = found.of("turnsvr_challenges_total")
    assert challenges == (2 if site.application.pump.name == "compiled" else 0)
    assert found.of("turnsvr_authentication_failures_total", reason="wrong_password") >= 1
    assert found.of("turnsvr_authentication_failures_total", reason="unknown_user") == 0
    assert found.of("turnsvr_peers_refused_total") == 1


async def test_a_lost_database_shows(start_web: StartWeb, tmp_path: Path) -> None:
    (tmp_path / "no database").mkdir()
    store = {"url": f"sqlite:{tmp_path / 'no%20database'}", "timeout": "1s"}
    site = await start_web(sections={"credentials": {"store": store}})
    async with client_of(site) as client:
        with pytest.raises(TransactionFailed, match="500"):
            await client.allocate()
    found = await figures(site)
    assert found.of("turnsvr_requests_total", method="allocate", code="500") == 1
    assert found.of("turnsvr_credential_source_up", source="credential_store") == 0
    assert found.of("turnsvr_credential_query_errors_total", source="credential_store") >= 1
    assert found.of("turnsvr_queue_length", queue="credential_lookups") == 0
    assert found.of("turnsvr_queue_length", queue="pump") == 0
    assert found.of("turnsvr_ready") == 0
    answer = await site.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready", "problems": ["store unavailable"]}
    assert (await site.get("/healthz")).status_code == 200


async def test_draining_is_not_ready(start_web: StartWeb) -> None:
    site = await start_web(sections=USERS)
    found = await figures(site)
    assert (found.of("turnsvr_ready"), found.of("turnsvr_draining")) == (1, 0)
    assert found.of("turnsvr_allocation_limit") == 10_000
    async with client_of(site) as client:
        await client.allocate()
        site.application.drain()
        found = await figures(site)
    assert (found.of("turnsvr_ready"), found.of("turnsvr_draining")) == (0, 1)


# Bounds


def started(number: int, realm: str) -> AllocationStarted:
    return AllocationStarted(number, f"user{number}", PATH, (Address("192.0.2.1", 50_000),), 600, realm, took=0.001)


def ended(number: int, realm: str) -> AllocationEnded:
    relayed = (Address("192.0.2.1", 50_000),)
    return AllocationEnded(number, f"user{number}", PATH, relayed, 10.0, EndReason.EXPIRED, realm)


def test_realms_past_the_first_fifty_are_one() -> None:
    counted = SessionCounter()
    for number in range(60):
        counted.started(started(number, f"realm{number}"))
    realms = counted.value.realms
    assert len(realms) == MAX_REALMS + 1
    assert (realms["realm0"].now, realms[OTHER].now) == (1, 10)
    for number in range(60):
        counted.ended(ended(number, f"realm{number}"), Counters(1, 10, 2, 20))
    assert (realms["realm0"].now, realms[OTHER].now, realms[OTHER].started) == (0, 0, 10)
    assert (realms[OTHER].bytes_from_client, realms[OTHER].bytes_to_client) == (100, 200)


def test_nothing_stays_of_a_session_but_numbers() -> None:
    counted = SessionCounter()
    counted.started(started(1, "r"))
    counted.ended(ended(1, "r"), Counters())
    assert counted._ways == {}
    assert counted.value.now["udp", "ipv4"] == 0


def test_a_reason_that_nobody_knows_is_other() -> None:
    counted = SessionCounter()
    for number in range(20):
        counted.authentication_failed(AuthenticationFailed(PATH, "x", f"reason {number}", "r"))
    assert counted.value.failures[OTHER] == 20
    assert not any("reason" in reason for reason in counted.value.failures)


def test_peers_that_a_bound_refuses_count_in_the_process_that_goes_on() -> None:
    counted, successor = SessionCounter(), SessionCounter()
    for method in (Method.CONNECTION_ATTEMPT, Method.CONNECT, Method.CONNECTION_ATTEMPT, Method.ALLOCATE):
        counted.request_refused(RequestRefused(PATH, method, "alice", 508, "limits.peer_connections", "r"))
    assert counted.value.attempts_refused == 2
    written = counted.write()
    counted.request_refused(
        RequestRefused(PATH, Method.CONNECTION_ATTEMPT, "alice", 508, "limits.peer_connections", "r")
    )
    successor.read(written)
    counted.forget(written)
    assert (counted.value.attempts_refused, successor.value.attempts_refused) == (1, 2)
    successor.read({name: value for name, value in written.items() if name != "attempts_refused"})
    assert successor.value.attempts_refused == 2, "an older process tells nothing of them"


async def test_nothing_that_clients_send_becomes_a_label(start_web: StartWeb) -> None:
    site = await start_web(sections={"credentials": {"secret": "north of the wall"}})
    numbers = itertools.count()
    before = await figures(site)
    for _ in range(5):
        link = await open_link(Transport.UDP, address_of(site.application, "udp"))
        client = TurnClient(link, Login(f"stranger{next(numbers)}", "x"))
        with suppress(TransactionFailed):
            await client.allocate()
        await client.close()
    after = await figures(site)
    for label in ("reason", "realm", "transport", "family", "method", "queue"):
        assert after.values(label) == before.values(label)
    assert "stranger" not in (await site.get("/metrics")).text


def test_readings_under_way_are_few_and_of_one_client_fewer() -> None:
    """A /64 is one client, and so is an IPv4 address however a socket writes it."""
    readings = Readings()
    with ExitStack() as stack:
        for client in ["192.0.2.1", "::ffff:192.0.2.1", *["192.0.2.1"] * (MAX_READINGS_OF_ONE - 2)]:
            stack.enter_context(readings.one_of(client))
        with pytest.raises(Refused) as refused, readings.one_of("192.0.2.1"):
            pass
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        for number in range(MAX_READINGS - MAX_READINGS_OF_ONE):
            stack.enter_context(readings.one_of(f"2001:db8::{number}"))
        with pytest.raises(Refused), readings.one_of("192.0.2.2"):
            pass
    with readings.one_of("192.0.2.1"):
        pass


async def test_a_crowd_of_readers_is_served_or_told_to_come_back_and_leaves_nothing_behind(start_web: StartWeb) -> None:
    site = await start_web()
    answers = await asyncio.gather(*(site.get("/metrics") for _ in range(40)))
    assert {each.status_code for each in answers} <= {200, 503}
    assert 200 in {each.status_code for each in answers}
    assert (await site.get("/metrics")).status_code == 200
