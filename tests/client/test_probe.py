"""The probe against our own server, coturn, and servers that fail in every way it has advice for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.client.conftest import Target
from tests.client.coturn import Coturn, coturn
from tests.conftest import PASSWORD, USER, Serve, accepting, address_of, free_port
from turnsvr.client.probe import probe, run
from turnsvr.client.probe_report import FROM_OUTSIDE, LegReport, ProbeReport, Step, StepOutcome, render, to_json
from turnsvr.client.uri import BadUri
from turnsvr.net.tls import TlsFiles
from turnsvr.relay import refuses_dtls
from turnsvr.stun.address import Address, Transport

PATIENCE = 10.0
SHORT = 0.5

STEPS = [
    "connect",
    "Binding",
    "Allocate",
    "permission",
    "echo by indications",
    "channel",
    "echo by channels",
    "Refresh",
    "reached from outside",
    "echo by aioice",
]
OVER_TCP = [*STEPS[:-1], "relaying over TCP", "TCP from outside", STEPS[-1]]
"""Of a TCP or TLS leg."""
HERE = [StepOutcome.SKIPPED if name == FROM_OUTSIDE else StepOutcome.OK for name in STEPS]
"""On the server's own host nobody can tell whether others reach it."""


def failed(report: ProbeReport) -> Step:
    """The one step that failed first."""
    return next(step for leg in report.legs for step in leg.steps if step.outcome is StepOutcome.FAILED)


def step_of(report: ProbeReport, name: str) -> Step:
    """Of the one leg."""
    (leg,) = report.legs
    return next(step for step in leg.steps if step.name == name)


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_every_step_works(target: Target, transport: Transport) -> None:
    url = f"turn:{target.plain[transport]}?transport={transport.value}"
    report = await probe(url, USER, PASSWORD, timeout=PATIENCE)
    (leg,) = report.legs
    assert [step.name for step in leg.steps] == (OVER_TCP if transport.is_stream else STEPS)
    assert [step.outcome for step in leg.steps if step.name in STEPS] == HERE, render(report)
    if transport.is_stream:
        over_tcp = step_of(report, "relaying over TCP")
        assert over_tcp.outcome is (StepOutcome.SKIPPED if target.is_ours else StepOutcome.OK), over_tcp
    assert report.ok
    assert "cannot be told" in render(report)


@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
@pytest.mark.parametrize("relay", ["127.0.0.1", "::1"])
async def test_relaying_over_tcp_is_tried_both_ways(serve: Serve, transport: Transport, relay: str) -> None:
    application = await serve(relay={"addresses": [relay], "tcp": True}, peers={"allow": ["127.0.0.1", "::1"]})
    url = f"turn{'s' * transport.is_encrypted}:{address_of(application, transport.value)}"
    report = await probe(f"{url}?transport=tcp", USER, PASSWORD, insecure=True, timeout=PATIENCE)
    over_tcp, outside = step_of(report, "relaying over TCP"), step_of(report, "TCP from outside")
    assert over_tcp.outcome is StepOutcome.OK, render(report)
    assert over_tcp.round_trip is not None
    assert over_tcp.detail.startswith("peer seen as ")
    assert outside.outcome is StepOutcome.SKIPPED
    assert ("server's own host" if relay == "127.0.0.1" else "no IPv6 address") in outside.detail
    assert report.ok
    assert not application.server.peer_connections()
    assert not list(application.server.allocations())


async def test_whoever_relays_nothing_over_tcp_is_not_red(serve: Serve) -> None:
    application = await serve()
    report = await probe(f"turn:{address_of(application, 'tcp')}?transport=tcp", USER, PASSWORD, timeout=PATIENCE)
    step = step_of(report, "relaying over TCP")
    assert (step.outcome, "relay.tcp" in step.detail) == (StepOutcome.SKIPPED, True)
    assert step_of(report, "TCP from outside").detail == "needs relaying over TCP"
    assert report.ok


async def test_a_bound_of_connections_to_peers_is_red(serve: Serve) -> None:
    limits = {"peer_attempts_per_allocation": 1, "peer_connections": 1}
    application = await serve(relay={"addresses": ["127.0.0.1"], "tcp": True}, limits=limits)
    report = await probe(f"turn:{address_of(application, 'tcp')}?transport=tcp", USER, PASSWORD, timeout=SHORT)
    step = failed(report)
    assert (step.name, report.ok) == ("relaying over TCP", False)
    assert any(each in step.detail for each in ("does not come through", "ConnectionAttempt", "508"))


@pytest.mark.skipif(bool(refuses_dtls("auto")), reason=refuses_dtls("auto"))
async def test_a_dtls_leg_is_tried_as_one_over_udp(serve: Serve) -> None:
    application = await serve(listen=["dtls://127.0.0.1:0"])
    url = f"turns:{address_of(application, 'dtls')}?transport=udp"
    report = await probe(url, USER, PASSWORD, insecure=True, timeout=PATIENCE)
    (leg,) = report.legs
    assert (leg.transport, [step.name for step in leg.steps]) == (Transport.DTLS, STEPS)
    assert "DTLSv1.2" in leg.steps[0].detail
    assert report.ok, render(report)
    step = failed(await probe(url, USER, PASSWORD, timeout=PATIENCE))
    assert (step.name, "--insecure" in step.advice) == ("connect", True)


@pytest.mark.parametrize(("relay", "aioice"), [("127.0.0.1", StepOutcome.OK), ("::1", StepOutcome.SKIPPED)])
async def test_every_step_works_over_ipv6(serve: Serve, relay: str, aioice: StepOutcome) -> None:
    """Also where the server has no IPv4 relay, which is what aioice would ask for."""
    application = await serve(listen=["udp://[::1]:0"], relay={"addresses": [relay]}, peers={"allow": [relay]})
    report = await probe(f"turn:{address_of(application, 'udp')}?transport=udp", USER, PASSWORD, timeout=PATIENCE)
    *ours, second = (step.outcome for step in report.legs[0].steps)
    assert ours == HERE[:-1], render(report)
    assert second is aioice
    assert report.ok


async def test_an_external_address_that_is_nobodys_is_red_on_the_servers_own_host_too(serve: Serve) -> None:
    application = await serve(relay={"addresses": ["127.0.0.1"], "external": "192.0.2.77"})
    report = await probe(f"turn:{address_of(application, 'udp')}?transport=udp", USER, PASSWORD, timeout=SHORT)
    step = failed(report)
    assert (step.name, report.ok) == (FROM_OUTSIDE, False)
    assert "correct relay.external" in step.advice
    assert "192.0.2.77" in step.advice


async def test_a_server_that_relays_nothing_is_named(serve: Serve) -> None:
    application = await serve(stun_only=True)
    step = failed(await probe(f"turn:{address_of(application, 'udp')}?transport=udp", USER, PASSWORD, timeout=PATIENCE))
    assert step.name == "Allocate"
    assert step.advice


async def test_a_url_without_a_transport_stands_for_several_legs(running_coturn: Coturn) -> None:
    report = await probe(f"turn:{running_coturn.plain}", USER, PASSWORD, timeout=PATIENCE)
    assert [leg.transport for leg in report.legs] == [Transport.UDP, Transport.TCP]
    assert report.ok
    assert "turns:127.0.0.1:PORT" in report.notes[0]


async def test_tls_works_with_a_certificate_made_for_the_run_only_when_told(target: Target) -> None:
    url = f"turns:{target.plain[Transport.TLS]}"
    assert (await probe(url, USER, PASSWORD, insecure=True, timeout=PATIENCE)).ok
    step = failed(await probe(url, USER, PASSWORD, timeout=PATIENCE))
    assert (step.name, "not trusted" in step.detail) == ("connect", True)
    assert "--insecure" in step.advice


async def test_a_stun_server_needs_no_credentials(target: Target) -> None:
    report = await probe(f"stun:{target.plain[Transport.UDP]}", None, None, timeout=PATIENCE)
    assert [step.name for step in report.legs[0].steps] == ["connect", "Binding"]
    assert report.legs[0].works


async def test_wrong_credentials_are_named(target: Target) -> None:
    url = f"turn:{target.plain[Transport.UDP]}?transport=udp"
    report = await probe(url, USER, "wrong", timeout=PATIENCE)
    step = failed(report)
    assert (step.name, step.detail[:3]) == ("Allocate", "401")
    assert "password is wrong" in step.advice
    assert not report.ok


async def test_a_refused_peer_is_named(tmp_path: Path, certificate: TlsFiles) -> None:
    with coturn(tmp_path, certificate, "--denied-peer-ip=127.0.0.1") as running:
        step = failed(await probe(f"turn:{running.plain}?transport=udp", USER, PASSWORD, timeout=PATIENCE))
    assert (step.name, step.detail[:3]) == ("permission", "403")
    assert "peers.allow" in step.advice


async def test_a_full_quota_is_named(serve: Serve) -> None:
    application = await serve(limits={"allocations_per_user": 1})
    step = failed(await probe(f"turn:{address_of(application, 'udp')}?transport=udp", USER, PASSWORD, timeout=PATIENCE))
    assert (step.name, step.detail[:3]) == ("Allocate", "486")
    assert "allocations_per_user" in step.advice


async def test_silence_is_told_from_a_closed_port() -> None:
    loop = asyncio.get_running_loop()
    silent, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    port = silent.get_extra_info("sockname")[1]
    step = failed(await probe(f"stun:127.0.0.1:{port}", None, None, timeout=SHORT))
    assert (step.name, "no answer" in step.detail) == ("Binding", True)
    assert "blocked" in step.advice
    silent.close()
    await asyncio.sleep(0)
    report = await probe(f"stun:127.0.0.1:{free_port()}", None, None, timeout=SHORT)
    assert "nothing listens on this UDP port" in failed(report).advice
    assert [leg.works for leg in report.legs] == [False, False]


async def test_a_tcp_server_without_tls_is_named(serve: Serve) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"SSH-2.0-what\r\n")

    async with accepting(speak) as port:
        step = failed(await probe(f"stuns:127.0.0.1:{port}", None, None, timeout=SHORT))
    assert step.name == "connect"
    assert "TLS" in step.advice


async def test_a_name_without_an_address_is_a_problem_of_its_own() -> None:
    report = await probe("stun:no-such-host.invalid", None, None, timeout=SHORT)
    assert "no address" in report.problem
    assert not report.ok
    assert report.problem in render(report)


async def test_what_is_no_server_is_bad_usage() -> None:
    with pytest.raises(BadUri):
        await probe("example.org", USER, PASSWORD)
    with pytest.raises(ValueError, match="user name"):
        await probe("turn:example.org", None, None)


def test_run_prints_and_says_by_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nonsense", USER, PASSWORD) == 2
    assert "write turn:host" in capsys.readouterr().out
    assert run(f"stun:127.0.0.1:{free_port()}", None, None, timeout=SHORT, json=True) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    assert printed["legs"][0]["steps"][1]["outcome"] == "failed"


def test_a_report_as_a_table() -> None:
    server = Address("192.0.2.1", 3478)
    works = LegReport(Transport.UDP, server, (Step("connect", StepOutcome.OK), Step("Binding", StepOutcome.OK, 0.0123)))
    broken = LegReport(
        Transport.TCP,
        server,
        (Step("connect", StepOutcome.FAILED, None, "refused", "start it"), Step("Binding", StepOutcome.SKIPPED)),
    )
    report = ProbeReport("stun:192.0.2.1", (works, broken))
    assert render(report).split("\n") == [
        "stun:192.0.2.1",
        "           udp 192.0.2.1:3478  tcp 192.0.2.1:3478",
        "  connect  ok                  FAILED",
        "  Binding  12.3 ms             -",
        "tcp 192.0.2.1:3478: connect: refused",
        "    start it",
        "not everything works",
    ]
    assert to_json(report)["legs"][0]["steps"][1]["round_trip_ms"] == 12.3


def test_a_leg_that_this_host_cannot_try_does_not_count_against_the_server() -> None:
    works = LegReport(Transport.UDP, Address("192.0.2.1", 3478), (Step("connect", StepOutcome.OK),))
    elsewhere = LegReport(Transport.UDP, Address("2001:db8::1", 3478), (Step("connect", StepOutcome.SKIPPED),))
    assert ProbeReport("stun:example.org", (works, elsewhere)).ok
    assert not ProbeReport("stun:example.org", (elsewhere,)).ok
