"""Whether others reach a relayed address, told by a probe from elsewhere: green when they do, red with the cause."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.client.coturn import PASSWORD, USER, coturn_command, running
from tests.lab.conftest import OURS, ready, turnsvr
from tests.lab.netlab import Lab, Node, laboratory, require
from tests.lab.routers import PUBLIC_V4, PUBLIC_V6, Kind
from turnsvr.client.probe import probe
from turnsvr.client.probe_report import FROM_OUTSIDE, ProbeReport, Step, StepOutcome, render, to_json
from turnsvr.stun.address import Address

NOBODY = "7.7.7.250"
CLOSED = """
  table inet firewall {
    chain in {
      type filter hook input priority filter;
      ct state established,related accept
      udp dport 49152-65535 drop
    }
  }
"""
"""A stateful firewall that drops what comes unasked to relay ports."""
BOTH_WAYS = pytest.mark.parametrize("transport", ["udp", "tcp"])


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    """A public segment without servers."""
    require()
    with laboratory() as lab:
        yield lab


@contextmanager
def serving(lab: Lab, directory: Path, relay: Mapping[str, object], **sections: object) -> Iterator[tuple[Node, str]]:
    """Our server on a public host, whose relay section is this; {host} in it stands for the host's address."""
    with ExitStack() as stack:
        node, host = stack.enter_context(lab.host())
        listen = [f"{transport}://{host}" for transport in ("udp", "tcp")]
        relay = json.loads(json.dumps(relay).replace("{host}", host))
        stack.enter_context(turnsvr(node, directory, {"listen": listen, "relay": relay} | sections))
        yield node, host


def probed(client: Node, host: str, transport: str = "udp", name: str = FROM_OUTSIDE) -> tuple[ProbeReport, Step]:
    """The report, and what became of the step of this name."""
    url = f"turn:{host}:{OURS.port}?transport={transport}"
    report = client.run(lambda: probe(url, USER, PASSWORD, timeout=2))
    (step,) = (step for leg in report.legs for step in leg.steps if step.name == name)
    return report, step


RIGHT = {"addresses": ["{host}"]}


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.FULL_CONE, Kind.PORT_RESTRICTED, Kind.SYMMETRIC, Kind.FIREWALL])
@BOTH_WAYS
def test_a_server_that_others_reach_is_green(bare: Lab, tmp_path: Path, kind: Kind, transport: str) -> None:
    """Whatever NAT the probe is behind."""
    with serving(bare, tmp_path, RIGHT) as (_, host), bare.site(kind) as site:
        report, step = probed(site.client, host, transport)
    assert step.outcome is StepOutcome.OK, render(report)
    assert render(report).endswith("all works")
    assert to_json(report)["reached_from_outside"] is True


@BOTH_WAYS
def test_an_external_address_that_is_nobodys_is_red_with_the_cause(bare: Lab, tmp_path: Path, transport: str) -> None:
    relay = {"addresses": ["{host}"], "external": NOBODY}
    with serving(bare, tmp_path, relay) as (_, host), bare.host() as (client, _):
        report, step = probed(client, host, transport)
    assert step.outcome is StepOutcome.FAILED
    assert step.advice.startswith("correct relay.external"), render(report)
    assert f"{NOBODY} is not where the relay is, {host} is" in step.advice
    assert render(report).endswith("not everything works")
    assert to_json(report)["reached_from_outside"] is False


@pytest.mark.parametrize("kind", [Kind.PORT_RESTRICTED, Kind.SYMMETRIC])
def test_it_is_red_behind_a_nat_too(bare: Lab, tmp_path: Path, kind: Kind) -> None:
    relay = {"addresses": ["{host}"], "external": NOBODY}
    with serving(bare, tmp_path, relay) as (_, host), bare.site(kind) as site:
        report, step = probed(site.client, host)
    assert step.outcome is StepOutcome.FAILED
    assert f"{NOBODY} is not where the relay is, {host} is" in step.advice, render(report)


@BOTH_WAYS
def test_relay_ports_that_a_firewall_closes_are_red_with_the_cause(bare: Lab, tmp_path: Path, transport: str) -> None:
    with serving(bare, tmp_path, RIGHT) as (node, host), bare.host() as (client, _):
        node.nft(CLOSED)
        report, step = probed(client, host, transport)
    assert step.outcome is StepOutcome.FAILED
    assert step.advice.startswith("open UDP to relay.ports"), render(report)
    assert "relay.external" in step.advice
    earlier = [step for step in report.legs[0].steps if step.name.startswith("echo by")]
    assert {step.outcome for step in earlier} == {StepOutcome.OK}, "between relayed addresses all looks well"


def test_both_causes_at_once_name_both(bare: Lab, tmp_path: Path) -> None:
    """A firewall in front that drops everything either way lets nobody tell which."""
    drop_out = "table inet out { chain o { type filter hook output priority filter; udp sport 49152-65535 drop; }; }"
    relay = {"addresses": ["{host}"], "external": NOBODY}
    with serving(bare, tmp_path, relay) as (node, host), bare.host() as (client, _):
        node.nft(CLOSED + drop_out)
        report, step = probed(client, host)
    assert step.outcome is StepOutcome.FAILED
    assert "two usual causes" in step.advice, render(report)


def test_an_answer_that_does_not_come_back_is_red(bare: Lab, tmp_path: Path) -> None:
    drop_out = "table inet out { chain o { type filter hook output priority filter; udp sport 49152-65535 drop; }; }"
    with serving(bare, tmp_path, RIGHT) as (node, host), bare.host() as (client, _):
        node.nft(drop_out)
        report, step = probed(client, host)
    assert step.outcome is StepOutcome.FAILED
    assert "on its way back" in step.detail, render(report)


def test_one_to_one_nat_with_the_right_external_address_is_green(bare: Lab, tmp_path: Path) -> None:
    with bare.one_to_one() as cloud, bare.host() as (client, _):
        settings = {
            "listen": [f"udp://{cloud.address}", f"tcp://{cloud.address}"],
            "relay": {"addresses": [cloud.address], "external": cloud.public},
        }
        with turnsvr(cloud.client, tmp_path, settings):
            report, step = probed(client, cloud.public)
    assert step.outcome is StepOutcome.OK, render(report)


def test_one_to_one_nat_without_an_external_address_is_red(bare: Lab, tmp_path: Path) -> None:
    """Clients are told 10.x."""
    with bare.one_to_one() as cloud, bare.host() as (client, _):
        settings = {
            "listen": [f"udp://{cloud.address}", f"tcp://{cloud.address}"],
            "relay": {"addresses": [cloud.address]},
        }
        with turnsvr(cloud.client, tmp_path, settings):
            report, step = probed(client, cloud.public)
    assert step.outcome is StepOutcome.FAILED
    assert f"{cloud.address} is not where the relay is, {cloud.public} is" in step.advice, render(report)


@contextmanager
def private_network(lab: Lab, tmp_path: Path, **sections: object) -> Iterator[tuple[Node, str]]:
    """Server and client at private addresses of one network: the client, and the server's address."""
    with lab.one_to_one() as site:
        router, address = site.routers[0], site.address.rpartition(".")[0] + ".1"
        listen = [f"udp://{address}", f"tcp://{address}"]
        relay = {"addresses": [address], **sections.pop("relay", {})}  # type: ignore[dict-item]
        with turnsvr(router, tmp_path, {"listen": listen, "relay": relay} | sections):
            yield site.client, address


def test_a_private_address_that_is_refused_is_explained(bare: Lab, tmp_path: Path) -> None:
    with private_network(bare, tmp_path) as (client, host):
        report, step = probed(client, host)
    assert step.outcome is StepOutcome.SKIPPED
    assert "403" in step.detail
    assert "peers: {allow:" in step.detail
    assert "cannot be told" in render(report)
    assert "all works" not in render(report)
    assert report.ok
    assert to_json(report)["reached_from_outside"] is None


@pytest.mark.parametrize(("relay", "outcome"), [({}, StepOutcome.OK), ({"external": NOBODY}, StepOutcome.FAILED)])
def test_a_private_address_that_is_allowed_tells(
    bare: Lab, tmp_path: Path, relay: dict[str, object], outcome: StepOutcome
) -> None:
    with private_network(bare, tmp_path, relay=relay, peers={"allow": ["10.0.0.0/8"]}) as (client, host):
        report, step = probed(client, host)
    assert step.outcome is outcome, render(report)
    if outcome is StepOutcome.FAILED:
        assert f"{NOBODY} is not where the relay is, {host} is" in step.advice


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ipv6_is_told_as_well(bare: Lab, tmp_path: Path, transport: str) -> None:
    with bare.host() as (node, host_v4), bare.host() as (client, _):
        host = host_v4.replace(f"{PUBLIC_V4}.", f"{PUBLIC_V6}::")
        settings = {
            "listen": [f"tcp://{host_v4}", f"udp://[{host}]", f"tcp://[{host}]"],
            "relay": {"addresses": [host]},
        }
        with turnsvr(node, tmp_path, settings):
            report, step = probed(client, f"[{host}]", transport)
            assert step.outcome is StepOutcome.OK, render(report)
            node.nft(CLOSED)
            report, step = probed(client, f"[{host}]", transport)
            assert step.outcome is StepOutcome.FAILED, render(report)
            assert step.advice.startswith("open UDP to relay.ports")


def test_a_network_without_udp_cannot_tell(bare: Lab, tmp_path: Path) -> None:
    with serving(bare, tmp_path, RIGHT) as (_, host), bare.site(Kind.UDP_BLOCKED) as site:
        report, step = probed(site.client, host, "tcp")
    assert step.outcome is StepOutcome.SKIPPED
    assert "lets UDP out" in step.detail, render(report)
    assert report.ok


@pytest.mark.parametrize("external", [None, NOBODY])
def test_coturn_is_judged_alike(bare: Lab, tmp_path: Path, external: str | None) -> None:
    with bare.host() as (node, host), bare.host() as (client, _):
        options = ["-L", host, "-E", host, "-p", str(OURS.port), "--no-tls"]
        options += ["--external-ip", f"{external}/{host}"] if external else []
        command = node.inside(*coturn_command(tmp_path, *options))
        with running(command, tmp_path / "coturn.log", ready(node, Address(host, OURS.port))):
            report, step = probed(client, host)
    if external is None:
        assert step.outcome is StepOutcome.OK, render(report)
    else:
        assert step.outcome is StepOutcome.FAILED, render(report)
        assert "external-ip" in step.advice


def test_on_the_servers_own_host_nobody_can_tell(bare: Lab, tmp_path: Path) -> None:
    with serving(bare, tmp_path, RIGHT) as (node, host):
        report, step = probed(node, host)
    assert step.outcome is StepOutcome.SKIPPED
    assert "another machine" in step.detail, render(report)
    assert report.ok


TCP = {"addresses": ["{host}"], "tcp": True}


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.PORT_RESTRICTED])
def test_relaying_over_tcp_is_tried_from_elsewhere_both_ways(bare: Lab, tmp_path: Path, kind: Kind) -> None:
    """A peer that connects, from behind a NAT as well; and one that is connected to, which a NAT keeps from it."""
    with serving(bare, tmp_path, TCP) as (_, host), bare.site(kind) as site:
        report, step = probed(site.client, host, "tcp", "TCP from outside")
    assert step.outcome is StepOutcome.OK, render(report)
    arrived, made = step.detail.split("; ")
    assert arrived.startswith("from ")
    assert made.startswith("and to " if kind is Kind.OPEN else "not to "), step.detail
    assert report.ok


@pytest.mark.parametrize(("also_within", "name"), [(False, "TCP from outside"), (True, "relaying over TCP")])
def test_relay_ports_that_a_firewall_closes_to_tcp_are_red(
    bare: Lab, tmp_path: Path, also_within: bool, name: str
) -> None:
    rules = CLOSED.replace("udp dport", "tcp dport" if also_within else 'iifname != "lo" tcp dport')
    with serving(bare, tmp_path, TCP) as (node, host), bare.host() as (client, _):
        node.nft(rules)
        report, step = probed(client, host, "tcp", name)
    assert step.outcome is StepOutcome.FAILED, render(report)
    assert step.advice.startswith("open TCP to relay.ports")
    assert not report.ok
