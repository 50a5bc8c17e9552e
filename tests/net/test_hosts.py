"""What this host is reached by."""

from __future__ import annotations

import ipaddress
import os

import pytest

from turnsvr.net import hosts

LOOPBACK = {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("own", "routed", "chosen"),
    [
        pytest.param({"10.0.0.5", "192.168.1.7"}, ["192.168.1.7"], ("192.168.1.7",), id="where the default route is"),
        pytest.param({"10.0.0.5", "8.8.4.4"}, [], ("8.8.4.4",), id="global before private"),
        pytest.param({"10.0.0.5"}, ["203.0.113.99"], ("10.0.0.5",), id="a routed address that is not ours"),
        pytest.param({"fd00::2", "10.0.0.5"}, [], ("10.0.0.5", "fd00::2"), id="one a family, IPv4 first"),
        pytest.param({"fe80::1", "10.0.0.5"}, [], ("10.0.0.5",), id="no link-local"),
        pytest.param({"fe80::1", "169.254.3.4"}, [], ("127.0.0.1", "::1"), id="loopback when there is nothing else"),
        pytest.param({"2a00::1"}, ["2a00::1"], ("2a00::1",), id="IPv6 only"),
    ],
)
def test_relay_addresses_that_nobody_named(own: set[str], routed: list[str], chosen: tuple[str, ...]) -> None:
    assert hosts.choose_relay_addresses(own | LOOPBACK, routed) == chosen


def test_this_host_has_loopback_and_no_zones() -> None:
    own = hosts.own_addresses()
    assert own >= LOOPBACK
    assert all("%" not in host and host == str(ipaddress.ip_address(host)) for host in own)


def test_this_host_relays_from_addresses_of_its_own() -> None:
    chosen = hosts.default_relay_addresses()
    assert chosen
    assert set(chosen) <= hosts.own_addresses()


def test_cores_are_those_that_we_may_use() -> None:
    assert 1 <= hosts.usable_cores() <= (os.cpu_count() or 1)
