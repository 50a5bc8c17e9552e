"""NAT discovery on loopback, where there is no NAT: servers that tell little, nothing, or lies; the words for it."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.conftest import Serve, address_of, free_port
from turnsvr.client import nat
from turnsvr.client.link import DatagramLink
from turnsvr.client.nat import NatOptions, discover
from turnsvr.client.nat_model import FamilyReport, Finding, Fragments, Lifetime, NatReport, Possible
from turnsvr.client.nat_report import advise, render, to_json
from turnsvr.client.nat_rules import ANY_BEHAVIOUR, Behaviour, Classic
from turnsvr.client.nat_sockets import Tempo
from turnsvr.client.resolver import resolve
from turnsvr.client.transaction import Timers
from turnsvr.client.uri import BadUri
from turnsvr.stun.address import Address, Family
from turnsvr.stun.attributes import (
    CHANGE_REQUEST,
    ERROR_CODE,
    MAPPED_ADDRESS,
    OTHER_ADDRESS,
    XOR_MAPPED_ADDRESS,
    Error,
)
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Class, Message

EI, AD, APD = Behaviour
QUICK = NatOptions(tempo=Tempo(Timers(rto=0.1, rc=4, rm=4), least_rto=0.02, pace=0.001), stream_patience=1)
HERE = Address("127.0.0.1", 0)

Answer = Callable[[Message, Address], Message | None]


async def scripted(answer: Answer) -> DatagramLink:
    """A UDP server on loopback that answers each Binding request as it is told."""
    server = await DatagramLink.open(local=HERE)

    def receive(frame: bytes, source: Address) -> None:
        response = answer(Message.parse(frame), source)
        if response is not None:
            server.send(response.encode(), source)

    server.handler = receive
    return server


def success(request: Message, source: Address) -> Message:
    return request.reply(Class.SUCCESS).add(XOR_MAPPED_ADDRESS, source)


async def ask(server: DatagramLink) -> FamilyReport:
    try:
        report = await discover([f"stun:{server.local}"], QUICK, random=random.Random(1))
    finally:
        await server.close()
    (family,) = report.families
    return family


async def test_a_plain_server_of_ours_tells_what_it_can(serve: Serve) -> None:
    server = address_of(await serve(), "udp")
    report = await discover([f"stun:{server}"], QUICK)
    (found,) = report.families
    assert found.natted is False
    assert found.local == found.mapped
    assert found.mapping.only is EI
    assert found.filtering.behaviours == ANY_BEHAVIOUR
    assert found.classic == {Classic.OPEN_INTERNET, Classic.SYMMETRIC_FIREWALL}
    assert "no second address" in found.filtering.note
    assert "there is no NAT" in found.hairpinning.note
    assert found.fragments.value is None, "loopback's MTU is too large"


async def test_a_server_that_ignores_change_request_proves_nothing() -> None:
    """As the most used public servers do."""
    found = await ask(await scripted(success))
    assert found.filtering.behaviours == ANY_BEHAVIOUR
    assert "ignores CHANGE-REQUEST" in found.filtering.note


async def test_another_address_that_nobody_answers_at_proves_nothing() -> None:
    """As of a server that takes a container's address for its second one: its silence is no filter."""
    nowhere = Address("127.0.0.9", free_port())

    def answer(request: Message, source: Address) -> Message | None:
        return None if CHANGE_REQUEST in request else success(request, source).add(OTHER_ADDRESS, nowhere)

    found = await ask(await scripted(answer))
    assert found.filtering.behaviours == ANY_BEHAVIOUR
    assert f"nothing answers at {nowhere}" in found.filtering.note


async def test_a_gateway_that_rewrites_addresses_is_noticed() -> None:
    """It changes the plain MAPPED-ADDRESS and cannot see the XORed one."""

    def answer(request: Message, source: Address) -> Message:
        return success(request, Address("203.0.113.7", 1)).add(MAPPED_ADDRESS, source)

    found = await ask(await scripted(answer))
    assert found.gateway.value is True
    assert any("ALG" in line for line in advise(found))


async def test_a_server_that_answers_errors_or_nonsense_is_said_to() -> None:
    error = Error.of(ErrorCode.SERVER_ERROR)
    refusing = await ask(await scripted(lambda request, source: request.reply(Class.ERROR).add(ERROR_CODE, error)))
    assert (refusing.udp.value, refusing.udp.note) == (None, "500 Server Error")
    empty = await ask(await scripted(lambda request, source: request.reply(Class.SUCCESS)))
    assert "without XOR-MAPPED-ADDRESS" in empty.udp.note


async def test_progress_runs_from_nothing_to_all(serve: Serve) -> None:
    heard: list[tuple[str, float]] = []
    server = address_of(await serve(), "udp")
    options = replace(QUICK, longest_lifetime=0.3, lifetime_precision=0.2, lifetime_width=2)
    report = await discover([f"stun:{server}"], options, progress=lambda *each: heard.append(each))
    assert heard == sorted(heard, key=lambda each: (nat.STAGES.index(each[0]), each[1]))
    assert {stage for stage, _ in heard} >= {"connectivity", "behaviour"}
    assert heard[-1] == ("done", 1.0)
    assert report.families[0].lifetime.value is None
    assert "RESPONSE-PORT" in report.families[0].lifetime.note


@pytest.mark.parametrize(
    "servers", [["example.org"], ["turn:example.org"], ["stuns:example.org"], ["stun:127.0.0.1", "nonsense"]]
)
async def test_what_is_no_stun_server_is_bad_usage(servers: list[str]) -> None:
    with pytest.raises(BadUri):
        await discover(servers, QUICK)


async def test_three_servers_are_too_many() -> None:
    with pytest.raises(ValueError, match="two"):
        await discover(["stun:a", "stun:b", "stun:c"], QUICK)


async def test_a_name_without_an_address_is_a_problem_of_its_own() -> None:
    report = await discover(["stun:no-such-host.invalid"], QUICK)
    assert "no address found" in report.problem
    assert report.problem in render(report)


def test_run_prints_and_says_by_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert nat.run(["nonsense"], json=True) == 2
    assert "stun:host" in json.loads(capsys.readouterr().out)["error"]
    assert nat.run([f"stun:127.0.0.1:{free_port()}"], options=QUICK, json=True, show_progress=True) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["families"]["ipv4"]["classic"] == ["Blocked"]
    assert "connectivity" in printed.err


KNOWN = FamilyReport(
    Family.IPV4,
    Address("192.0.2.1", 3478),
    Finding(True),
    tcp=Finding(0.02),
    tls=Finding(None, "no connection to port 5349 (no answer)"),
    local=Address("192.168.1.2", 40000),
    mapped=Address("203.0.113.7", 40000),
    other=Address("192.0.2.2", 3479),
    round_trip=0.0123,
    mapping=Possible(frozenset({EI})),
    filtering=Possible(frozenset({AD, APD}), "test III was lost"),
    classic=frozenset({Classic.RESTRICTED_CONE, Classic.PORT_RESTRICTED_CONE}),
    hairpinning=Finding(False),
    port_preservation=Finding(True, "8 of 8 ports kept"),
    port_parity=Finding(True),
    fragments=Finding(Fragments.LOST),
    lifetime=Finding(Lifetime(15, 18)),
    gateway=Finding(False),
    sent=12,
    answered=11,
)


def test_a_report_in_words() -> None:
    text = render(NatReport(("stun:192.0.2.1",), (KNOWN,), advise(KNOWN)))
    for line in (
        "  UDP                yes, 12.3 ms",
        "  TLS                cannot be told",
        "  NAT                yes",
        "  type               Restricted Cone or Port-Restricted Cone",
        "  mapping            endpoint-independent",
        "  filtering          address-dependent or address-and-port-dependent",
        "  hairpinning        no",
        "  fragments          lost in one direction at least",
        "  mapping lifetime   between 15 and 18 s",
        "IPv4 filtering: test III was lost",
        "IPv4: 1 of 12 packets were not answered",
        "Direct calls to most networks work; to a symmetric NAT you may need TURN.",
        "Mappings die soon: send something at least every 15 s to keep a path open.",
    ):
        assert line in text.split("\n")


def test_two_families_stand_side_by_side() -> None:
    six = FamilyReport(Family.IPV6, Address("2001:db8::1", 3478), Finding(False, "no answer to a request sent 7 times"))
    text = render(NatReport(("stun:stun.example.org",), (KNOWN, six)))
    heading, udp = (line for line in text.split("\n") if line.startswith(("        ", "  UDP")))
    assert heading.split() == ["IPv4", "IPv6"]
    assert udp.split() == ["UDP", "yes,", "12.3", "ms", "no"]
    assert heading.index("IPv6") == udp.index("no")


def test_a_report_as_json() -> None:
    values = json.loads(json.dumps(to_json(NatReport(("stun:192.0.2.1",), (KNOWN,)))))["families"]["ipv4"]
    assert values["filtering"] == {
        "value": None,
        "possible": ["address-dependent", "address-and-port-dependent"],
        "note": "test III was lost",
    }
    assert values["mapping_lifetime"]["value"] == {"at_least": 15, "less_than": 18}
    assert values["tls_seconds"] == {"value": None, "note": "no connection to port 5349 (no answer)"}
    assert values["hairpinning"]["value"] is False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classic": frozenset({Classic.OPEN_INTERNET})}, "every network"),
        ({"classic": frozenset({Classic.FULL_CONE})}, "every network"),
        ({"classic": frozenset({Classic.RESTRICTED_CONE})}, "symmetric NATs among them"),
        ({"classic": frozenset({Classic.PORT_RESTRICTED_CONE})}, "to a symmetric NAT you need TURN"),
        ({"classic": frozenset({Classic.SYMMETRIC_FIREWALL})}, "to a symmetric NAT you need TURN"),
        ({"classic": frozenset({Classic.SYMMETRIC})}, "port-restricted and symmetric NATs"),
        ({"classic": frozenset(Classic) - {Classic.BLOCKED}, "mapping": Possible()}, "Too little is known"),
        ({"udp": Finding(False), "tcp": Finding(0.1)}, "TURN over TCP"),
        ({"udp": Finding(False), "tcp": Finding(None), "tls": Finding(0.1)}, "TURN over TLS"),
        ({"udp": Finding(False), "tcp": Finding(None)}, "it is down"),
    ],
)
def test_every_finding_has_its_advice(change: dict[str, object], words: str) -> None:
    assert words in advise(replace(KNOWN, **change))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("progress", [None, False])
def test_a_host_that_does_not_answer_ends_soon_and_says_what_is_going_on(
    capsys: pytest.CaptureFixture[str], progress: bool | None
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"stun:127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert nat.run([server], options=NatOptions(patience=0.5, stream_patience=0.5), show_progress=progress) == 1
        assert time.monotonic() - began < 4
    said = capsys.readouterr()
    assert "no answer within 0.5 s" in said.out
    assert (f"asking {server}" in said.err) is (progress is None)


def test_nobody_waits_longer_than_ten_seconds_for_a_first_answer() -> None:
    assert NatOptions().patience < 10
    assert NatOptions().stream_patience < 10


async def test_a_name_service_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: [None] * (not ended.wait(10)))
    with pytest.raises(OSError, match="name service"):
        await resolve("example.org", 0.05)
    ended.set()


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 70 + ".example.org", "a..b"])
async def test_a_name_that_cannot_be_is_an_error_of_the_system(name: str) -> None:
    with pytest.raises(OSError, match=r"."):
        await resolve(name, 10)
