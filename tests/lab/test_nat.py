"""`turnsvr nat` in every kind of network, against our own server and against coturn."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.conftest import BOTH_SERVERS, COTURN, QUICK, Server, turnsvr
from tests.lab.netlab import Lab, Site
from tests.lab.routers import LOSSY, NO_FRAGMENTS, Kind
from turnsvr.client import nat
from turnsvr.client.nat import NatOptions
from turnsvr.client.nat_model import FamilyReport, Fragments
from turnsvr.client.nat_rules import ANY_BEHAVIOUR, Behaviour, Classic
from turnsvr.client.nat_sockets import Tempo
from turnsvr.client.transaction import Timers

EI, AD, APD = Behaviour

TRUTH = {
    Kind.OPEN: (Classic.OPEN_INTERNET, EI, EI),
    Kind.FULL_CONE: (Classic.FULL_CONE, EI, EI),
    Kind.RESTRICTED: (Classic.RESTRICTED_CONE, EI, AD),
    Kind.PORT_RESTRICTED: (Classic.PORT_RESTRICTED_CONE, EI, APD),
    Kind.SYMMETRIC: (Classic.SYMMETRIC, APD, APD),
    Kind.ADDRESS_DEPENDENT: (Classic.SYMMETRIC, AD, APD),
    Kind.FIREWALL: (Classic.SYMMETRIC_FIREWALL, EI, APD),
}


def discover(site: Site, *servers: str, options: NatOptions = QUICK) -> FamilyReport:
    report = site.client.run(lambda: nat.discover(servers, options))
    (family,) = report.families
    return family


@contextmanager
def plain_server(lab: Lab, directory: Path) -> Iterator[str]:
    """A STUN-only server of ours on a host with one address."""
    directory.mkdir()
    with lab.host() as (node, address):
        settings = {"listen": [f"udp://{address}", f"tcp://{address}"], "stun_only": True}
        with turnsvr(node, directory, settings):
            yield address


@BOTH_SERVERS
@pytest.mark.parametrize("kind", TRUTH, ids=lambda kind: kind.value)
def test_every_kind_is_told_right(lab: Lab, server: Server, kind: Kind) -> None:
    with lab.site(kind) as site:
        found = discover(site, server.uri(lab.servers_v4[0]))
    assert (found.classic, found.mapping.only, found.filtering.only) == (
        frozenset({TRUTH[kind][0]}),
        *TRUTH[kind][1:],
    ), found
    assert found.natted == (kind not in (Kind.OPEN, Kind.FIREWALL))
    assert found.mapped is not None
    assert found.mapped.host == site.public
    assert found.port_preservation.value == (kind not in (Kind.SYMMETRIC, Kind.ADDRESS_DEPENDENT))
    assert found.fragments.value is Fragments.BOTH_WAYS
    assert found.tcp.value is not None
    assert found.gateway.value is False
    assert found.hairpinning.value is (False if found.natted else None)


@BOTH_SERVERS
def test_udp_blocked_is_told_from_a_server_that_is_down(lab: Lab, server: Server) -> None:
    with lab.site(Kind.UDP_BLOCKED) as site:
        blocked = discover(site, server.uri(lab.servers_v4[0]))
        down = discover(site, "stun:7.7.7.99")
    assert blocked.classic == down.classic == frozenset({Classic.BLOCKED})
    assert (blocked.reached, down.reached) == (True, False)
    assert blocked.tcp.value is not None
    assert "down" in down.udp.note
    assert "down" not in blocked.udp.note


def test_tls_is_tried_where_its_port_is_known(lab: Lab) -> None:
    with lab.site(Kind.UDP_BLOCKED) as site:
        ours, coturn = discover(site, f"stun:{lab.servers_v4[0]}"), discover(site, COTURN.uri(lab.servers_v4[0]))
    assert ours.tls.value is not None
    assert "not known" in coturn.tls.note


@BOTH_SERVERS
@pytest.mark.parametrize(
    ("inner", "outer", "truth"),
    [
        (Kind.FULL_CONE, Kind.PORT_RESTRICTED, Classic.PORT_RESTRICTED_CONE),
        (Kind.SYMMETRIC, Kind.FULL_CONE, Classic.SYMMETRIC),
        (Kind.RESTRICTED, Kind.FULL_CONE, Classic.RESTRICTED_CONE),
    ],
    ids=lambda kind: kind.value,
)
def test_two_nats_in_a_row_are_as_strict_as_the_stricter(
    lab: Lab, server: Server, inner: Kind, outer: Kind, truth: Classic
) -> None:
    with lab.site(inner, behind=outer) as site:
        found = discover(site, server.uri(lab.servers_v4[0]))
    assert found.classic == {truth}, found


@pytest.mark.parametrize("kind", [Kind.FULL_CONE, Kind.RESTRICTED, Kind.PORT_RESTRICTED], ids=lambda kind: kind.value)
def test_hairpinning_is_found(lab: Lab, kind: Kind) -> None:
    with lab.site(kind, hairpin=True) as site:
        found = discover(site, COTURN.uri(lab.servers_v4[0]))
    assert found.hairpinning.value is True
    assert "mapped address" in found.hairpinning.note
    assert found.classic == {TRUTH[kind][0]}


@BOTH_SERVERS
@pytest.mark.parametrize(
    "kind", [Kind.FULL_CONE, Kind.RESTRICTED, Kind.PORT_RESTRICTED, Kind.SYMMETRIC], ids=lambda kind: kind.value
)
def test_a_third_of_all_packets_lost_changes_nothing(lab: Lab, server: Server, kind: Kind) -> None:
    patient = NatOptions(tempo=Tempo(Timers(rto=0.1), least_rto=0.03, pace=0.01), stream_patience=2)
    with lab.site(kind, extra=LOSSY) as site:
        found = discover(site, server.uri(lab.servers_v4[0]), options=patient)
    assert found.classic == {TRUTH[kind][0]}, found
    assert found.answered < found.sent


def test_fragments_that_are_dropped_are_noticed(lab: Lab) -> None:
    with lab.site(Kind.PORT_RESTRICTED, extra=NO_FRAGMENTS) as site:
        found = discover(site, COTURN.uri(lab.servers_v4[0]))
    assert found.fragments.value is Fragments.LOST
    assert found.classic == {Classic.PORT_RESTRICTED_CONE}


@BOTH_SERVERS
def test_the_lifetime_of_a_mapping_is_measured(lab: Lab, server: Server) -> None:
    options = replace(QUICK, longest_lifetime=4, lifetime_precision=0.5, lifetime_width=4)
    with lab.site(Kind.PORT_RESTRICTED) as site:
        site.routers[0].sysctl(
            net__netfilter__nf_conntrack_udp_timeout=2, net__netfilter__nf_conntrack_udp_timeout_stream=2
        )
        found = discover(site, server.uri(lab.servers_v4[0]), options=options).lifetime.value
    assert found is not None
    assert found.less_than is not None
    assert found.at_least <= 2.2
    assert 1.8 <= found.less_than <= found.at_least + 0.5 + 0.01


@BOTH_SERVERS
def test_ipv6_behind_a_firewall(lab: Lab, server: Server) -> None:
    with lab.site(Kind.FULL_CONE) as site:
        found = discover(site, server.uri(lab.servers_v6[0]))
    assert found.classic == {Classic.SYMMETRIC_FIREWALL}, found
    assert found.local == found.mapped


def test_two_servers_without_a_second_address_tell_the_mapping(lab: Lab, tmp_path: Path) -> None:
    with plain_server(lab, tmp_path / "one") as one, plain_server(lab, tmp_path / "other") as other:
        for kind, mapping in ((Kind.PORT_RESTRICTED, {EI}), (Kind.SYMMETRIC, {AD, APD})):
            with lab.site(kind) as site:
                alone = discover(site, f"stun:{one}")
                both = discover(site, f"stun:{one}", f"stun:{other}")
            assert alone.mapping.behaviours == alone.filtering.behaviours == ANY_BEHAVIOUR
            assert "second server" in alone.mapping.note
            assert both.mapping.behaviours == mapping
            assert both.filtering.behaviours == ANY_BEHAVIOUR


def test_both_families_stand_side_by_side_in_the_json(lab: Lab) -> None:
    with (
        lab.site(Kind.PORT_RESTRICTED) as site,
        site.client.hosts({"stun.test": (lab.servers_v4[0], lab.servers_v6[0])}),
    ):
        printed = site.client.output(sys.executable, "-m", "turnsvr", "nat", "--json", "stun:stun.test", patience=120)
    families = json.loads(printed[printed.index("{") :])["families"]  # behind what standard error says of the wait
    assert families["ipv4"]["classic"] == ["Port-Restricted Cone"]
    assert families["ipv6"]["classic"] == ["Symmetric UDP Firewall"]
    assert families["ipv4"]["mapping"]["value"] == "endpoint-independent"
