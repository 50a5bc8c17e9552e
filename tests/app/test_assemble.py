"""What settings mean to the rooms, on a host whose addresses are arguments."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from turnsvr.app import assemble
from turnsvr.config.settings import Settings, TlsSettings
from turnsvr.credentials.chain import Chain
from turnsvr.ranges import EVERY_PORT, NO_PORT
from turnsvr.relay.api import PumpSettings, RelayAddress
from turnsvr.relay.offload.settings import OffloadSettings
from turnsvr.stun.address import Address, Family
from turnsvr.turn.config import Redirect

HOST = assemble.Host(frozenset({"127.0.0.1", "::1", "10.0.0.5", "fd00::5"}), ("10.0.0.5", "fd00::5"), cores=4)


def plan(**sections: Any) -> assemble.Plan:
    return assemble.plan(Settings.model_validate(sections), HOST, traits=Chain([]))


def test_relays_are_found_by_themselves() -> None:
    found = plan()
    assert found.pump.relay_addresses == (RelayAddress("10.0.0.5", "10.0.0.5"), RelayAddress("fd00::5", "fd00::5"))
    assert found.server.families == {Family.IPV4, Family.IPV6}


def test_behind_one_to_one_nat_clients_are_told_the_external_address() -> None:
    found = plan(relay={"addresses": ["10.0.0.5"], "external": {"10.0.0.5": "203.0.113.7"}})
    assert found.pump.relay_addresses == (RelayAddress("10.0.0.5", "203.0.113.7"),)
    assert found.server.families == {Family.IPV4}
    policy = found.server.realm.policy
    assert policy.relays == {"203.0.113.7"}
    assert policy.refusal("203.0.113.7") is None
    assert policy.ports("203.0.113.7") == NO_PORT
    assert policy.refusal("10.0.0.5") is not None


def test_an_external_address_of_one_family_leaves_the_other() -> None:
    advertised = [each.advertised for each in plan(relay={"external": "203.0.113.7"}).pump.relay_addresses]
    assert advertised == ["203.0.113.7", "fd00::5"]


def test_this_host_is_opened_by_addresses_and_not_by_ranges() -> None:
    policy = plan(peers={"allow": ["127.0.0.0/8", "10.0.0.0/24", "fd00::5", "[::1]:9"]}).server.realm.policy
    assert policy.ports("127.0.0.1") == policy.ports("10.0.0.5") == NO_PORT
    assert policy.ports("fd00::5") == policy.ports("10.0.0.6") == EVERY_PORT
    assert policy.ports("::1") == ((9, 9),)


@pytest.mark.parametrize("named", ["10.0.0.5:10000-20000", "203.0.113.7:10000-20000"])
def test_a_service_behind_one_to_one_nat_has_two_names(named: str) -> None:
    found = plan(relay={"external": {"10.0.0.5": "203.0.113.7"}, "ports": "50000-50099"}, peers={"allow": named})
    policy = found.server.realm.policy
    assert policy.ports("10.0.0.5") == policy.ports("203.0.113.7") == ((10_000, 20_000),)
    assert policy.refusal("203.0.113.7", 50_000) is None, "there are relays"
    assert policy.refusal("203.0.113.7", 49_999) is not None


def test_ports_that_are_named_more_than_once_add_up() -> None:
    policy = plan(peers={"allow": ["10.0.0.5:1-5", "10.0.0.5:6", "10.0.0.5:4-5", "10.0.0.5:9"]}).server.realm.policy
    assert policy.ports("10.0.0.5") == ((1, 6), (9, 9))


def test_routes_make_addresses_this_hosts() -> None:
    host = assemble.Host(HOST.own | {"8.8.4.0/24"}, HOST.relay)
    settings = Settings.model_validate({"peers": {"allow": "8.8.4.0/24"}})
    policy = assemble.plan(settings, host, traits=Chain([])).server.realm.policy
    assert policy.refusal("8.8.4.4") == "an address of this server"


def test_denied_ranges_are_refused() -> None:
    policy = plan(peers={"deny": ["8.8.8.0/24"]}).server.realm.policy
    assert policy.refusal("8.8.8.8") == "denied by peers.deny"
    assert policy.refusal("8.8.4.4") is None


def test_stun_alone_relays_nothing() -> None:
    found = plan(stun_only=True)
    assert found.server.stun_only
    assert found.pump.relay_addresses == ()


def test_defaults_are_those_of_the_settings() -> None:
    found = plan()
    assert (found.server.allocations, found.server.realm.allocations_per_user) == (10_000, 12)
    assert (found.server.max_lifetime, found.server.channel_last) == (3600, 0x7FFF)
    assert found.server.software is not None
    assert found.server.software.startswith("turnsvr ")
    assert found.pump.ports == (49_152, 65_535)
    assert found.pump.bandwidth == PumpSettings().bandwidth == 0
    assert found.pump.threads == 4
    assert (found.streams.connections, found.streams.idle_timeout, found.streams.buffer) == (10_000, 30.0, 262_144)


@pytest.mark.parametrize(
    ("sections", "read", "value"),
    [
        ({"stun": {"software": False}}, lambda found: found.server.software, None),
        ({"stun": {"channels": "0x4000-0x4FFF"}}, lambda found: found.server.channel_last, 0x4FFF),
        ({"limits": {"bandwidth_per_allocation": "8 Mbit/s"}}, lambda found: found.pump.bandwidth, 1_000_000.0),
        ({"limits": {"lifetime": "10m"}}, lambda found: found.server.max_lifetime, 600),
        ({"limits": {"allocations": 5}}, lambda found: (found.server.allocations, found.pump.max_sessions), (5, 5)),
        ({"limits": {"stream_buffer": "64 KiB"}}, lambda found: found.streams.buffer, 65_536),
        ({"pump": {"busy_poll": 20}}, lambda found: found.pump.busy_poll, 20e-6),
        ({"pump": {"offload": "off"}}, lambda found: found.offload, None),
        ({"pump": {"offload": "auto"}}, lambda found: found.offload, OffloadSettings("auto")),
        (
            {"pump": {"offload": "xdp", "interfaces": ["eth0"]}},
            lambda found: found.offload,
            OffloadSettings("xdp", ("eth0",)),
        ),
        ({"pump": {"threads": 2, "gso": False}}, lambda found: (found.pump.threads, found.pump.gso), (2, False)),
        ({"credentials": {"nonce_lifetime": "5m"}}, lambda found: found.server.nonce_lifetime, 300.0),
        (
            {"redirect": {"to": "203.0.113.8:3479", "when": "always"}},
            lambda found: found.server.redirect,
            Redirect((Address("203.0.113.8", 3479),), always=True),
        ),
    ],
)
def test_a_setting_reaches_its_room(sections: dict[str, Any], read: Any, value: object) -> None:
    assert read(plan(**sections)) == value


def test_tls_versions() -> None:
    tls = TlsSettings(certificate=Path("a.pem"), key=Path("b.pem"), minimum_version="1.3")
    assert assemble.tls_files(tls).minimum_version is ssl.TLSVersion.TLSv1_3
