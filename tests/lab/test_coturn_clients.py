"""coturn's own discovery programs against our server, in every kind of network."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.conftest import need
from tests.lab.conftest import BOTH_SERVERS, OURS, Server
from tests.lab.netlab import Kind, Lab, Site

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

_PATIENCE = 60


@BOTH_SERVERS
def test_turnutils_natdiscovery_is_right_in_every_kind(lab: Lab, server: Server) -> None:
    """With coturn's own server as well, so that a wrong answer would show whose fault it is."""
    program = need("turnutils_natdiscovery")

    def look(site: Site) -> tuple[str, ...]:
        printed = site.client.output(program, "-m", "-f", "-p", str(server.port), lab.servers_v4[0], patience=_PATIENCE)
        return tuple(re.findall(r"NAT with (.*)!", printed))

    with ExitStack() as stack, ThreadPoolExecutor(len(TRUTH)) as threads:
        sites = [stack.enter_context(lab.site(kind)) for kind in TRUTH]
        found = dict(zip(TRUTH, threads.map(look, sites), strict=True))
    assert found == TRUTH


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.PORT_RESTRICTED, Kind.SYMMETRIC], ids=lambda kind: kind.value)
def test_turnutils_stunclient_sees_the_mapped_address_and_our_other_one(lab: Lab, kind: Kind) -> None:
    program = need("turnutils_stunclient")
    with lab.site(kind) as site:
        printed = site.client.output(program, "-p", str(OURS.port), lab.servers_v4[0], patience=_PATIENCE)
    assert f"UDP reflexive addr: {site.public}:" in printed
    assert f"Response origin: : {lab.servers_v4[0]}:{OURS.port}" in printed
    assert f"Other addr: : {lab.servers_v4[1]}:{OURS.alternate_port}" in printed


def test_turnutils_natdiscovery_finds_hairpinning_and_passes_padding(lab: Lab) -> None:
    program = need("turnutils_natdiscovery")
    with lab.site(Kind.PORT_RESTRICTED, hairpin=True) as hairpins, lab.site(Kind.PORT_RESTRICTED) as plain:
        options = ("-H", "-p", str(OURS.port), lab.servers_v4[0])
        with_hairpin = hairpins.client.output(program, *options, patience=_PATIENCE)
        without = plain.client.output(program, *options, patience=_PATIENCE)
        padded = plain.client.output(program, "-m", "-P", *options[1:], patience=_PATIENCE)
    assert "Hairpinning" in with_hairpin
    print(with_hairpin, without, padded)
    assert "Endpoint Independent Mapping" in padded
