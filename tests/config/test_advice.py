"""What is said about a valid file that is unsafe or cannot work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.config.advice import Advice, advise
from turnsvr.config.hostfacts import CertificateFacts
from turnsvr.config.settings import Settings
from turnsvr.own import OwnHosts

NOW = 1_800_000_000.0
DAY = 86_400
GOOD = CertificateFacts(not_before=NOW - DAY, not_after=NOW + 60 * DAY)
TLS = {"certificate": "c", "key": "k"}


def make(**values: object) -> Settings:
    return Settings.model_validate({"credentials": {"secret": "north of the wall"}, **values})


def warnings(found: list[Advice], severity: str = "warning") -> list[tuple[str, str]]:
    return [(item.setting, item.text) for item in found if item.severity == severity]


def one(found: list[Advice], severity: str = "warning") -> tuple[str, str]:
    (item,) = warnings(found, severity)
    return item


def test_the_default_needs_no_advice() -> None:
    assert advise(make(), NOW, host_addresses=(), lowest_port=1024) == []


def test_a_port_range_smaller_than_the_limit() -> None:
    setting, text = one(advise(make(relay={"ports": "50000-50099"}), NOW))
    assert setting == "relay.ports"
    assert text == "has 100 ports, fewer than limits.allocations (10000)"
    assert not advise(make(relay={"ports": "50000-50099"}, limits={"allocations": 100}), NOW)


def test_ports_count_once_for_each_relay_address_of_a_family() -> None:
    relay = {"ports": "50000-50099", "addresses": ["8.8.4.4", "8.8.8.8", "2600::1"]}
    assert not warnings(advise(make(relay=relay, limits={"allocations": 200}), NOW))
    assert warnings(advise(make(relay=relay, limits={"allocations": 201}), NOW))


def test_privileged_relay_ports() -> None:
    assert one(advise(make(relay={"ports": "1000-65535"}), NOW))[0] == "relay.ports"


@pytest.mark.parametrize(
    ("certificate", "setting", "text"),
    [
        (CertificateFacts("cannot read c: Permission denied", "tls.certificate"), "tls.certificate", "cannot read c"),
        (CertificateFacts("cannot read k: Permission denied", "tls.key"), "tls.key", "cannot read k"),
        (CertificateFacts(not_before=0, not_after=NOW), "tls.certificate", "expired on 2027-01-15"),
        (
            CertificateFacts(not_before=0, not_after=NOW + 3.5 * DAY),
            "tls.certificate",
            "expires on 2027-01-18, in 3 days",
        ),
        (
            CertificateFacts(not_before=NOW + DAY, not_after=NOW + 90 * DAY),
            "tls.certificate",
            "is not valid before 2027",
        ),
        (
            CertificateFacts(not_before=0, not_after=NOW + 90 * DAY, key_matches=False),
            "tls.key",
            "does not belong to the certificate",
        ),
        (
            CertificateFacts(not_before=0, not_after=NOW + 90 * DAY, has_names=False),
            "tls.certificate",
            "has no subject alternative name",
        ),
    ],
)
def test_certificates(certificate: CertificateFacts, setting: str, text: str) -> None:
    found_setting, found_text = one(advise(make(tls=TLS), NOW, certificate=certificate))
    assert found_setting == setting
    assert found_text.startswith(text)


@pytest.mark.parametrize(("days", "count"), [(13.9, 1), (14.1, 0)])
def test_a_certificate_is_mentioned_two_weeks_before_it_expires(days: float, count: int) -> None:
    certificate = CertificateFacts(not_before=0, not_after=NOW + days * DAY)
    assert len(advise(make(tls=TLS), NOW, certificate=certificate)) == count


def test_a_certificate_that_no_listener_uses() -> None:
    assert one(advise(make(tls=TLS, listen="udp://*"), NOW, certificate=GOOD))[0] == "tls"


@pytest.mark.parametrize(
    ("external", "setting"),
    [
        ("10.0.0.5", "relay.external"),
        ("203.0.113.7", "relay.external"),
        ({"10.0.0.5": "192.168.1.1"}, "relay.external.10.0.0.5"),
        ("fd00::1", "relay.external"),
        ("127.0.0.1", "relay.external"),
        ("100.64.0.1", "relay.external"),
    ],
)
def test_an_external_address_that_is_private(external: object, setting: str) -> None:
    assert one(advise(make(relay={"external": external}), NOW))[0] == setting


def test_a_public_external_address() -> None:
    assert not advise(make(relay={"external": ["8.8.8.8", "2600::1"]}), NOW)


def test_a_private_relay_address_without_external_is_worth_a_look() -> None:
    assert one(advise(make(relay={"addresses": "10.0.0.5"}), NOW), "note")[0] == "relay.addresses[0]"
    assert not advise(make(relay={"addresses": "10.0.0.5", "external": "8.8.8.8"}), NOW)


def test_addresses_that_the_host_has_not() -> None:
    settings = make(
        listen=["udp://8.8.8.8", "udp://*"],
        relay={"addresses": ["8.8.8.8", "8.8.4.4"]},
        nat_discovery={"primary": "8.8.8.8", "alternate": "8.8.4.4"},
    )
    found = advise(settings, NOW, host_addresses={"8.8.4.4"})
    text = "8.8.8.8 is not an address of this host"
    assert warnings(found, "error") == [("listen[0]", text), ("nat_discovery", text)], "the server does not start"
    assert warnings(found) == [("relay.addresses[0]", text)]
    assert not advise(settings, NOW, host_addresses=None)


def test_ports_that_need_a_privilege() -> None:
    settings = make(listen=["udp://*:443", "udp://*:3478", "tcp://127.0.0.1:0"])
    assert one(advise(settings, NOW, lowest_port=1024))[0] == "listen[0]"
    assert not advise(settings, NOW, lowest_port=0)


@pytest.mark.parametrize(
    ("users", "text"),
    [
        ({"wonderland": "wonderland"}, "the password is the user name"),
        ({"alice": "short"}, "the password is shorter than 8 characters"),
    ],
)
def test_weak_passwords(users: dict[str, str], text: str) -> None:
    assert one(advise(make(credentials={"users": users}), NOW))[1] == text


def test_keys_are_no_weak_passwords() -> None:
    assert not advise(make(credentials={"users": {"alice": "0x" + "ab" * 16}}), NOW)


def test_a_short_secret_is_named_by_its_place() -> None:
    setting, text = one(advise(make(credentials={"secrets": ["north of the wall", "hush-hush"]}), NOW))
    assert setting == "credentials.secrets[1]"
    assert "hush" not in text


def test_a_file_with_secrets_that_everybody_reads() -> None:
    assert one(advise(make(), NOW, file_is_public=True))[0] == "credentials"
    assert not advise(make(credentials={}, stun_only=True), NOW, file_is_public=True)


STORE = "postgresql://turnsvr:password@db.example.org/turnsvr"
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "section",
    [
        {"credentials": {"store": STORE}},
        {"credentials": {"hook": {"url": "https://app.example.org", "secret": SECRET}}},
        {"credentials": {"store": "sqlite:/db"}, "admin": {"listen": "http://127.0.0.1:5766", "token": SECRET}},
        {"credentials": {"store": "sqlite:/db"}, "status": {"redis": "redis://:password@127.0.0.1"}},
    ],
)
def test_a_file_with_secrets_for_others_that_everybody_reads(section: dict[str, object]) -> None:
    assert one(advise(make(**section), NOW, file_is_public=True))[0] == "credentials"
    assert not advise(make(**section), NOW)


def test_a_public_file_that_names_no_secret() -> None:
    assert not advise(make(credentials={"store": "sqlite:/db"}), NOW, file_is_public=True)


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ({"credentials": {"hook": {"url": "http://app.example.org", "secret": SECRET}}}, "credentials.hook.url"),
        ({"credentials": {"tokens": {"url": "http://203.0.113.7/jwks"}}}, "credentials.tokens.url"),
        ({"admin": {"listen": "http://*:5766", "token": SECRET}}, "admin.listen"),
    ],
)
def test_secrets_that_others_can_read_on_the_way(section: dict[str, object], setting: str) -> None:
    assert one(advise(make(**section), NOW))[0] == setting


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_plain_http_on_this_host_needs_no_advice(host: str) -> None:
    hook = {"url": f"http://{host}:9000/", "secret": SECRET}
    assert not advise(make(credentials={"hook": hook, "tokens": {"url": f"http://{host}/jwks"}}), NOW)


def test_credentials_that_stun_only_does_not_use() -> None:
    assert one(advise(make(stun_only=True), NOW), "note")[0] == "credentials"


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        ("0.0.0.0/0", "opens every IPv4 address"),
        ("::/0", "opens every IPv6 address"),
        ("127.0.0.1", "opens the host itself"),
        ("::1", "opens the host itself"),
        ("169.254.169.254", "opens link-local addresses, among them 169.254.169.254"),
        ("fe80::/10", "opens link-local addresses"),
        ("fd00:ec2::254", "opens link-local addresses"),
        ("239.0.0.1", "opens multicast groups"),
    ],
)
def test_dangerous_peers(allowed: str, text: str) -> None:
    setting, found = one(advise(make(peers={"allow": ["8.8.8.8", allowed]}), NOW))
    assert setting == "peers.allow[1]"
    assert text in found


@pytest.mark.parametrize("allowed", ["10.1.0.0/16", "192.168.0.7", "172.31.255.255", "fd12::/48"])
def test_private_peers_are_worth_a_look(allowed: str) -> None:
    assert one(advise(make(peers={"allow": allowed}), NOW), "note")[0] == "peers.allow[0]"
    assert not warnings(advise(make(peers={"allow": allowed}), NOW))


OWN = OwnHosts(["10.0.0.5", "10.9.0.0/16"], {"10.0.0.5": "8.8.4.4"})


@pytest.mark.parametrize(
    ("allowed", "severity", "texts"),
    [
        (
            "10.0.0.5:10000-20000",
            "note",
            ["opens UDP ports 10000-20000 of this host, also as 8.8.4.4,", "no other port"],
        ),
        ("8.8.4.4:10000", "note", ["opens UDP port 10000 of this host, also as 10.0.0.5,"]),
        ("127.0.0.1:9", "note", ["opens UDP port 9 of the host itself (loopback)"]),
        ("10.0.0.5", "warning", ["opens this host, also as 8.8.4.4, with every UDP port", "10.0.0.5:10000-20000"]),
        ("10.9.1.1", "warning", ["opens this host with every UDP port"]),
        ("::1", "warning", ["opens the host itself (loopback) with every UDP port", "[::1]:10000-20000"]),
        ("10.0.0.0/24", "note", ["opens private addresses", "on this host it opens nothing, though it has addresses"]),
        ("127.0.0.0/8", "note", ["on this host it opens nothing, though it has addresses"]),
        ("0.0.0.0/0", "warning", ["opens every IPv4 address", "on this host it opens nothing, though"]),
        ("8.8.0.0/16", "note", ["on this host it opens nothing, though"]),
        ("192.168.0.7", "note", ["opens private addresses", "on this host it opens nothing"]),
        ("192.168.0.7:80", "note", ["192.168.0.7:80 opens private addresses"]),
        ("9.9.9.9", "note", ["9.9.9.9: on this host it opens nothing"]),
    ],
)
def test_each_entry_says_what_it_opens_on_this_host(allowed: str, severity: str, texts: list[str]) -> None:
    (found,) = advise(make(peers={"allow": [allowed]}), NOW, own=OWN)
    assert (found.severity, found.setting) == (severity, "peers.allow[0]")
    for text in texts:
        assert text in found.text


def test_with_relaying_over_tcp_an_entry_opens_tcp_as_well() -> None:
    admin = {"listen": "http://127.0.0.1:5766", "token": "0123456789abcdef0123456789abcdef"}

    def said(allowed: str) -> list[str]:
        settings = make(peers={"allow": allowed}, relay={"tcp": True}, listen=["tcp://*:3478"], admin=admin)
        return [each.text for each in advise(settings, NOW, own=OWN) if each.setting.startswith("peers")]

    assert said("10.0.0.5:80") == [
        "10.0.0.5:80 opens UDP and TCP port 80 of this host, also as 8.8.4.4, to everyone with a credential, and no "
        "other port"
    ]
    assert "with every UDP and TCP port" in said("10.0.0.5")[0]
    assert said("127.0.0.1:5000-6000")[1] == "127.0.0.1:5000-6000 opens this server's own listener at port 5766"
    assert said("127.0.0.1:3478")[1] == "127.0.0.1:3478 opens this server's own listener at port 3478"


def test_a_service_that_has_ports_of_ours() -> None:
    found = warnings(advise(make(peers={"allow": "10.0.0.5:3000-50000"}), NOW, own=OWN))
    assert [text for _, text in found] == [
        "10.0.0.5:3000-50000 opens this server's own listener at port 3478",
        "10.0.0.5:3000-50000 and relay.ports (49152-65535) overlap, so that relays take ports of the service",
    ]


def test_some_ports_undo_no_refusal() -> None:
    assert not warnings(advise(make(peers={"allow": "8.8.8.8:53", "deny": "8.8.8.8"}), NOW))


def test_a_refusal_that_an_allowance_undoes() -> None:
    peers = {"allow": "8.8.8.0/24", "deny": ["8.8.8.8", "8.8.0.0/16"]}
    assert one(advise(make(peers=peers), NOW)) == ("peers.deny[0]", "8.8.8.8 has no effect, since peers.allow wins")


REALM = {"origins": ["https://a.example"], "credentials": {"secret": "south of the wall"}}


def test_a_realm_needs_no_advice() -> None:
    assert advise(make(realms={"a": REALM}), NOW) == []


@pytest.mark.parametrize(
    ("realm", "setting", "text"),
    [
        ({"origins": []}, "", "is chosen by nothing; add origins or listen"),
        ({"credentials": {}}, ".credentials", "are missing, so no client can relay in this realm"),
        ({"credentials": {"secret": "short"}}, ".credentials.secrets[0]", "is shorter than 16 characters"),
        ({"credentials": {"users": {"bob": "bob"}}}, ".credentials.users.bob", "the password is the user name"),
        (
            {"credentials": {"secret": "north of the wall"}},
            ".credentials.secrets[0]",
            "is one of the realm turnsvr, too",
        ),
        ({"peers": {"allow": "127.0.0.1"}}, ".peers.allow[0]", "127.0.0.1 opens the host itself"),
        (
            {"peers": {"allow": "8.0.0.0/8", "deny": "8.8.8.8"}},
            ".peers.deny[0]",
            "8.8.8.8 has no effect, since realms.a.peers.allow wins",
        ),
        ({"peers": {"deny": "9.9.9.9"}}, ".peers.deny[0]", "9.9.9.9 has no effect, since peers.allow wins"),
    ],
)
def test_realms(realm: dict[str, object], setting: str, text: str) -> None:
    found = one(advise(make(peers={"allow": "9.0.0.0/8"}, realms={"a": {**REALM, **realm}}), NOW))
    assert found[0] == f"realms.a{setting}"
    assert found[1].startswith(text)


def test_what_a_store_may_add_to_a_realm_is_not_missed() -> None:
    credentials = {"secret": "north of the wall", "store": "sqlite:/var/lib/turnsvr.sqlite"}
    assert advise(make(credentials=credentials, realms={"a": {}}), NOW) == []


def test_a_realm_that_may_hold_more_than_the_server() -> None:
    setting, _ = one(advise(make(realms={"a": {**REALM, "limits": {"allocations": 10_001}}}), NOW), "note")
    assert setting == "realms.a.limits.allocations"


def test_a_reflector() -> None:
    assert one(advise(make(limits={"answers_per_address": 0}), NOW))[0] == "limits.answers_per_address"


def test_limits_that_limit_nothing() -> None:
    found = advise(make(limits={"allocations": 5, "connections": 5}), NOW)
    assert [setting for setting, _ in warnings(found, "note")] == [
        "limits.allocations_per_user",
        "limits.connections_per_address",
    ]


def test_a_redirection_to_itself() -> None:
    settings = make(listen="udp://8.8.8.8", redirect={"to": ["8.8.4.4", "8.8.8.8"]})
    assert one(advise(settings, NOW)) == ("redirect.to[1]", "8.8.8.8:3478 is this server itself")


def test_nat_discovery_with_one_address() -> None:
    assert one(advise(make(nat_discovery={"primary": "8.8.8.8"}), NOW), "note")[0] == "nat_discovery.alternate"


def test_advice_reads_as_a_line() -> None:
    assert str(Advice("note", "relay.ports", "is odd")) == "note: relay.ports: is odd"


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20).filter(lambda text: "0x" not in text))
def test_no_advice_repeats_a_secret(secret: str, password: str) -> None:
    marked, hidden = f"§{secret}§", f"§{password}§"
    settings = make(credentials={"secret": marked, "users": {"alice": hidden}})
    text = "\n".join(map(str, advise(settings, NOW, file_is_public=True)))
    assert marked not in text
    assert hidden not in text


@pytest.mark.parametrize(
    ("relays", "relay", "given"),
    [
        (("10.0.0.5",), {}, "10.0.0.5"),
        (("10.0.0.5", "2600::1"), {}, "10.0.0.5"),
        (("10.0.0.5", "fd00::5"), {}, "10.0.0.5 and fd00::5"),
        (("fd00::5",), {}, "fd00::5"),
        (("100.64.0.9",), {}, "100.64.0.9"),
        (("8.8.8.8", "fd00::5"), {}, None),
        (("203.0.113.5",), {}, None),
        (("127.0.0.1",), {}, None),
        (("10.0.0.5",), {"external": "8.8.8.8"}, None),
        (("10.0.0.5",), {"external": "auto"}, None),
        (("10.0.0.5",), {"external": "turn.example.org"}, None),
    ],
)
def test_private_relays_alone_are_told_in_plain_words(
    relays: tuple[str, ...], relay: dict[str, str], given: str | None
) -> None:
    found = warnings(advise(make(relay=relay), NOW, relays=relays), "note")
    if given is None:
        assert found == []
    else:
        ((setting, text),) = found
        assert setting == "relay.external"
        assert text.startswith(f"clients elsewhere will be given {given}, which is private")


def test_stun_servers_that_nobody_asks_are_mentioned() -> None:
    relay = {"external_stun": "stun:stun.example.org"}
    assert one(advise(make(relay=relay), NOW), "note")[0] == "relay.external_stun"
    assert not advise(make(relay={**relay, "external": "auto"}), NOW)


def test_what_is_offloaded_passes_by_the_firewall() -> None:
    setting, text = one(advise(make(pump={"offload": "auto"}), NOW), "note")
    assert setting == "pump.offload"
    assert "nftables" in text
    assert one(advise(make(pump={"interfaces": ["eth0"]}), NOW))[0] == "pump.interfaces"
