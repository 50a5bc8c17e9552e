"""coturn's own discovery programs against our server, in every kind of network."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.conftest import need
from tests.lab.conftest import BOTH_SERVERS, OURS, Server
from tests.lab.netlab import Lab, Site
from tests.lab.routers import Kind

TRUTH = {
    Kind.OPEN: ("Endpoint Independent Mapping", "Endpoint Independent Filtering"),
    Kind.FULL_CONE: ("Endpoint Independent Mapping", "Endpoint Independent Filtering"),
    Kind.RESTRICTED: ("Endpoint Independent Mapping", "Address Dependent Filtering"),
    Kind.PORT_RESTRICTED: ("Endpoint Independent Mapping", "Address and Port Dependent Filtering"),
    Kind.SYMMETRIC: ("Address and Port Dependent Mapping", "Address and Port Dependent Filtering"),
    Kind.ADDRESS_DEPENDENT: ("Address Dependent Mapping", "Address and Port Dependent Filtering"),
    Kind.FIREWALL: ("Endpoint Independent Mapping", "Address and Port Dependent Filtering"),
    Kind.UDP_BLOCKED: (),
}
"""What turnutils_natdiscovery says; it does not tell an open network from a full cone."""

QUIRK = (Kind.ADDRESS_DEPENDENT, OURS)
"""Where turnutils_natdiscovery errs: for test III it takes OTHER-ADDRESS from the answer to test II, which is the
first address again (RFC 5780 section 6.1, table 1) unless the server is coturn."""

_PATIENCE = 60
_HANG_SECONDS = 2
"""turnutils_stunclient waits without end for an answer that a NAT filters."""


@BOTH_SERVERS
def test_turnutils_natdiscovery_is_right_in_every_kind(lab: Lab, server: Server) -> None:
    """With coturn's own server as well, so that a wrong answer would show whose fault it is."""
    program = need("turnutils_natdiscovery")

    def look(site: Site) -> tuple[str, ...]:
        printed = site.client.output(program, "-m", "-f", "-p", str(server.port), lab.servers_v4[0], patience=_PATIENCE)
        return tuple(re.findall(r"NAT with (.*)!", printed))

    truth = {kind: said for kind, said in TRUTH.items() if (kind, server) != QUIRK}
    with ExitStack() as stack, ThreadPoolExecutor(len(truth)) as threads:
        sites = [stack.enter_context(lab.site(kind)) for kind in truth]
        found = dict(zip(truth, threads.map(look, sites), strict=True))
    assert found == truth


def test_turnutils_natdiscovery_is_right_behind_two_nats(lab: Lab) -> None:
    program = need("turnutils_natdiscovery")
    with lab.site(Kind.FULL_CONE, behind=Kind.PORT_RESTRICTED) as site:
        printed = site.client.output(program, "-m", "-f", "-p", str(OURS.port), lab.servers_v4[0], patience=_PATIENCE)
    assert tuple(re.findall(r"NAT with (.*)!", printed)) == TRUTH[Kind.PORT_RESTRICTED]


@pytest.mark.parametrize("kind", [kind for kind in TRUTH if kind is not Kind.UDP_BLOCKED], ids=lambda kind: kind.value)
def test_turnutils_stunclient_sees_the_mapped_address_and_our_other_one(lab: Lab, kind: Kind) -> None:
    program = need("turnutils_stunclient")
    with lab.site(kind) as site:
        printed = site.client.output(program, "-p", str(OURS.port), lab.servers_v4[0], patience=_HANG_SECONDS)
    assert f"UDP reflexive addr: {site.public}:" in printed
    assert f"Response origin: : {lab.servers_v4[0]}:{OURS.port}" in printed
    assert f"Other addr: : {lab.servers_v4[1]}:{OURS.alternate_port}" in printed


def test_turnutils_natdiscovery_tells_hairpinning(lab: Lab) -> None:
    program = need("turnutils_natdiscovery")
    with lab.site(Kind.PORT_RESTRICTED, hairpin=True) as hairpins, lab.site(Kind.PORT_RESTRICTED) as plain:
        printed = [
            site.client.output(program, "-H", "-p", str(OURS.port), lab.servers_v4[0], patience=_PATIENCE)
            for site in (hairpins, plain)
        ]
    assert ["successful hairpinning" in each for each in printed] == [True, False]


def test_turnutils_natdiscovery_pads_and_times(lab: Lab) -> None:
    """PADDING goes both ways in fragments; RESPONSE-PORT finds a mapping alive after one second and dead after four."""
    program = need("turnutils_natdiscovery")
    with lab.site(Kind.PORT_RESTRICTED) as site:
        udp_timeouts = ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream")
        site.routers[0].sysctl(**{f"net__netfilter__{name}": 2 for name in udp_timeouts})
        server = ("-p", str(OURS.port), lab.servers_v4[0])
        padded = site.client.output(program, "-m", "-P", *server, patience=_PATIENCE)
        alive, dead = (site.client.output(program, "-t", "-T", wait, *server, patience=_PATIENCE) for wait in "14")
    assert "NAT with Endpoint Independent Mapping!" in padded
    assert ["RFC 5780 response 2" in each for each in (alive, dead)] == [True, False]
