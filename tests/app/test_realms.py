"""Realms of the settings and of a store's tables together."""

from __future__ import annotations

from typing import Any

import pytest

from turnsvr.app import assemble
from turnsvr.config.ranges import AddressRange
from turnsvr.config.settings import Settings
from turnsvr.credentials.chain import Chain
from turnsvr.stores.api import EVERY_REALM, RealmTable, Tables
from turnsvr.stun.address import Address
from turnsvr.turn.config import Listener, RealmConfig, ServerConfig

HOST = assemble.Host(frozenset({"127.0.0.1", "10.0.0.5", "203.0.113.7"}), ("10.0.0.5",))
SHOP = "shop.example"
REALM = "example.org"


def server(tables: Tables | None = None, **sections: Any) -> ServerConfig:
    settings = Settings.model_validate({"realm": REALM, **sections})
    return assemble.plan(settings, HOST, traits=Chain([]), tables=tables or Tables()).server


def ranges(*texts: str) -> tuple[AddressRange, ...]:
    return tuple(map(AddressRange.parse, texts))


def limits(realm: RealmConfig) -> tuple[int, int, float | None]:
    return realm.allocations, realm.allocations_per_user, realm.bandwidth


def test_without_realms_there_is_the_default_one() -> None:
    found = server()
    assert found.realm.name == REALM
    assert limits(found.realm) == (0, 12, None)
    assert (found.realms, found.origins, found.listeners) == ({}, {}, {})


def test_a_realm_of_the_settings_has_bounds_of_its_own_or_the_general_ones() -> None:
    bounds = {"allocations": 100, "allocations_per_user": 3, "bandwidth_per_allocation": "8 Mbit/s"}
    general = {"allocations_per_user": 5, "bandwidth_per_allocation": "4 Mbit/s"}
    found = server(limits=general, realms={SHOP: {"limits": bounds}, "game.example": {}})
    assert limits(found.realms[SHOP]) == (100, 3, 1_000_000.0)
    assert limits(found.realms["game.example"]) == limits(found.realm) == (0, 5, None)


@pytest.mark.parametrize("name", [REALM, SHOP])
@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (RealmTable(max_bps=1000, total_quota=10, user_quota=2), (10, 2, 1000.0)),
        (RealmTable(max_bps=0, total_quota=0, user_quota=0), (0, 0, 0.0)),
        (RealmTable(user_quota=4), (0, 4, None)),
    ],
)
def test_what_a_table_limits_comes_first(name: str, table: RealmTable, expected: tuple[int, int, float | None]) -> None:
    found = server(Tables({name: table}), realms={SHOP: {}}).find(name)
    assert found is not None
    assert limits(found) == expected


def test_a_table_without_limits_leaves_those_of_the_settings() -> None:
    found = server(Tables({SHOP: RealmTable(secrets=("s",))}), realms={SHOP: {"limits": {"allocations": 7}}})
    assert limits(found.realms[SHOP]) == (7, 12, None)


def test_a_realm_of_the_tables_alone_is_served() -> None:
    tables = Tables(
        {"db.example": RealmTable(total_quota=5), REALM: RealmTable(), EVERY_REALM: RealmTable()},
        {"https://a.example": "only-by-origin.example"},
    )
    found = server(tables)
    assert set(found.realms) == {"db.example", "only-by-origin.example"}
    assert limits(found.realms["db.example"]) == (5, 12, None)


def test_origins_of_both_in_their_normal_form_and_the_settings_first() -> None:
    tables = Tables(origins={"HTTPS://A.example:443/": "db.example", "https://b.example": "db.example"})
    found = server(tables, realms={SHOP: {"origins": ["https://a.example/", "http://C.example"]}})
    assert found.origins == {
        "https://a.example": SHOP,
        "https://b.example": "db.example",
        "http://c.example": SHOP,
    }


def test_an_origin_may_lead_to_the_default_realm_or_nowhere() -> None:
    found = server(Tables(origins={"https://a.example": REALM, "https://b.example": EVERY_REALM}))
    assert found.origins == {"https://a.example": REALM}
    assert not found.realms


def test_listeners_by_kind_and_address() -> None:
    found = server(
        listen=["udp://*:3480", "tcp://192.0.2.1:3480"],
        realms={SHOP: {"listen": "udp://*:3480"}, "game.example": {"listen": "tcp://192.0.2.1:3480"}},
    )
    assert found.listeners == {
        Listener(False, Address("::", 3480)): SHOP,
        Listener(False, Address("0.0.0.0", 3480)): SHOP,
        Listener(True, Address("192.0.2.1", 3480)): "game.example",
    }


def test_peers_of_all_and_of_each_realm_add_up() -> None:
    tables = Tables(
        {
            SHOP: RealmTable(allowed=ranges("10.3.0.0/16"), denied=ranges("9.3.0.0/16")),
            EVERY_REALM: RealmTable(allowed=ranges("10.4.0.0/16"), denied=ranges("9.4.0.0/16")),
        }
    )
    found = server(
        tables,
        peers={"allow": "10.1.0.0/16", "deny": "9.1.0.0/16"},
        realms={SHOP: {"peers": {"allow": "10.2.0.0/16", "deny": "9.2.0.0/16"}}, "game.example": {}},
    )

    def allowed(realm: RealmConfig, first: int) -> set[int]:
        return {second for second in range(1, 6) if realm.policy.refusal(f"{first}.{second}.0.1") is None}

    assert allowed(found.realms[SHOP], 10) == {1, 2, 3, 4}
    assert allowed(found.realms[SHOP], 9) == {5}
    for other in (found.realm, found.realms["game.example"]):
        assert allowed(other, 10) == {1, 4}
        assert allowed(other, 9) == {2, 3, 5}


def test_own_addresses_stay_refused_in_every_realm() -> None:
    everything = ranges("0.0.0.0/0")
    tables = Tables({REALM: RealmTable(allowed=everything), EVERY_REALM: RealmTable(allowed=everything)})
    found = server(tables, realms={SHOP: {"peers": {"allow": "0.0.0.0/0"}}})
    for realm in (found.realm, found.realms[SHOP]):
        assert realm.policy.refusal("127.0.0.1") == realm.policy.refusal("203.0.113.7") == "an address of this server"
        assert realm.policy.refusal("10.0.0.5") is None, "relays meet at the relay's address"
        assert realm.policy.refusal("10.0.0.6") is None


def test_a_realm_names_services_of_this_host_for_itself() -> None:
    found = server(peers={"allow": "10.0.0.5:7"}, realms={SHOP: {"peers": {"allow": "10.0.0.5:8-9"}}, "other": {}})
    assert found.realms[SHOP].policy.ports("10.0.0.5") == ((7, 9),)
    for realm in (found.realm, found.realms["other"]):
        assert realm.policy.ports("10.0.0.5") == ((7, 7),)


def test_what_the_operator_allows_to_all_is_open_in_every_realm() -> None:
    found = server(peers={"allow": "127.0.0.1"}, realms={SHOP: {"peers": {"allow": "10.2.0.0/16"}}})
    for realm in (found.realm, found.realms[SHOP]):
        assert realm.policy.refusal("127.0.0.1") is None
        assert realm.policy.refusal("203.0.113.7") == "an address of this server"


def test_realms_without_ranges_of_their_own_share_one_policy() -> None:
    found = server(realms={"a": {}, "b": {}, "c": {"peers": {"deny": "9.9.9.9"}}})
    assert found.realms["a"].policy is found.realms["b"].policy is found.realm.policy
    assert found.realms["c"].policy is not found.realm.policy
