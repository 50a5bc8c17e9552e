"""Which peers are refused: every range in every spelling, by CreatePermission, ChannelBind and Send alike."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.turn.test_allocate import DUAL
from tests.turn.world import PEER, PEER_V6, REALM, World, code
from turnsvr.own import OwnHosts
from turnsvr.ranges import EVERY_PORT, NO_PORT, Ports
from turnsvr.stun.address import Address, unpack_host
from turnsvr.turn.commands import PeerRefused, Permit
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.policy import PeerPolicy, Range, RangeSet, embedded, network_range

IPAddress = IPv4Address | IPv6Address


def _words(text: str) -> list[str]:
    return text.split()


IPV4_RANGES = _words(
    """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32
    """
)
IPV6_RANGES = _words(
    """
    ::/128 ::1/128 ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32
    2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
    """
)


def canonical(host: str) -> str:
    """As an address attribute is read."""
    return unpack_host(ipaddress.ip_address(host).packed)


def spellings(host: str) -> dict[str, str]:
    """An IPv4 address in every IPv6 form that leads to it."""
    value = int(IPv4Address(host))
    forms = {
        "mapped": 0xFFFF << 32 | value,
        "compatible": value,
        "translated": 0xFFFF << 48 | value,
        "NAT64": 0x0064FF9B << 96 | value,
        "6to4": 0x2002 << 112 | value << 80,
        "Teredo server": 0x20010000 << 96 | value << 64 | 0xFFFFFFFF,
        "Teredo client": 0x20010000 << 96 | 0x08080808 << 64 | value ^ 0xFFFFFFFF,
    }
    return {form: canonical(str(IPv6Address(number))) for form, number in forms.items()}


ENDS = [canonical(str(end)) for text in IPV4_RANGES + IPV6_RANGES for end in network_range(text)]
FORMS = [form for text in IPV4_RANGES for end in network_range(text) for form in spellings(str(end)).values()]
REFUSED = sorted(set(ENDS + FORMS))
NEIGHBOURS = _words(
    """
    1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
    172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
    223.255.255.255 64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff 64:ff9b:2:: 100:0:0:1:: 2001:200:: 2001:db7:ffff:: 2001:db9::
    2003:: 3ffe:: 3fff:1000:: 5eff:: 5f01:: fbff:: 2a00::1
    """
)


@pytest.mark.parametrize("host", REFUSED)
def test_refused_by_permission_channel_and_send_alike(host: str) -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL)
    peer = Address(host, 4000)
    assert code(client.permit(peer)) == 403
    assert code(client.bind(0x4000, peer)) == 403
    assert not client.send(peer, b"x")
    assert not world.of(Permit)
    assert [event.peer for event in world.of(PeerRefused)] == [peer, peer]


def test_send_is_judged_by_itself_not_only_by_the_missing_permission() -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL)
    (allocation,) = world.server._state.allocations
    for host in REFUSED:
        allocation.permissions[host] = world.now + 300
        assert not client.send(Address(host, 4000), b"x")


@pytest.mark.parametrize("host", NEIGHBOURS)
def test_the_addresses_beside_the_ranges_are_served(host: str) -> None:
    client = World().client()
    client.allocate(DUAL)
    assert code(client.permit(Address(canonical(host), 1))) == 0


def test_the_refusal_is_told_to_the_log() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(Address("169.254.169.254", 80))
    assert world.of(PeerRefused) == [
        PeerRefused(
            1,
            "alice",
            client.five_tuple,
            Address("169.254.169.254", 80),
            "a private or special-purpose range",
            REALM,
        )
    ]


# Allowed, denied, own, relays


def ranges(*texts: str) -> RangeSet:
    return RangeSet(map(network_range, texts))


def test_an_allowed_range_is_allowed_in_its_plain_spelling_only() -> None:
    policy = PeerPolicy(allow=ranges("10.1.0.0/16"))
    assert policy.refusal("10.1.2.3") is None
    assert policy.refusal("10.2.0.0") is not None
    for host in spellings("10.1.2.3").values():
        assert policy.refusal(host) is not None


def test_allow_beats_deny() -> None:
    policy = PeerPolicy(allow=ranges("8.8.8.8/32", "10.0.0.1/32"), deny=ranges("8.0.0.0/8", "10.0.0.0/8"))
    assert policy.refusal("8.8.8.8") is None
    assert policy.refusal("10.0.0.1") is None
    assert policy.refusal("8.8.8.9") == "denied by peers.deny"


def test_a_denied_range_is_denied_in_every_spelling() -> None:
    policy = PeerPolicy(deny=ranges("8.8.8.0/24"), allow=ranges("::/128"))
    for host in ("8.8.8.8", *spellings("8.8.8.8").values()):
        assert policy.refusal(host) is not None


def test_own_addresses_are_refused_in_every_spelling() -> None:
    policy = PeerPolicy(own=OwnHosts(["5.6.7.8", "2a00::1"]))
    for host in ("5.6.7.8", "2a00::1", *spellings("5.6.7.8").values()):
        assert policy.refusal(host) is not None
    assert policy.refusal("5.6.7.9") is None
    assert policy.refusal("2a00::2") is None


@pytest.mark.parametrize("form", spellings("5.6.7.8"))
def test_the_reason_names_the_address_inside(form: str) -> None:
    for policy in (PeerPolicy(own=OwnHosts(["5.6.7.8"])), PeerPolicy(deny=ranges("5.6.7.8/32"))):
        assert policy.refusal(spellings("5.6.7.8")[form]) == "an IPv6 form of 5.6.7.8"


def test_relay_to_relay_is_granted_even_on_a_private_address() -> None:
    policy = PeerPolicy(own=OwnHosts(["10.0.0.5", "5.6.7.8"]), relays=frozenset({"10.0.0.5"}))
    assert policy.refusal("10.0.0.5") is None
    assert policy.refusal("5.6.7.8") is not None
    assert policy.refusal("10.0.0.6") is not None
    assert policy.refusal(spellings("10.0.0.5")["mapped"]) is not None


@pytest.mark.parametrize("allowed", ["10.0.0.0/8", "10.0.0.0/24", "0.0.0.0/0", "10.0.0.4/31"])
def test_a_range_opens_nothing_of_this_host(allowed: str) -> None:
    policy = PeerPolicy(allow=ranges(allowed), own=OwnHosts(["10.0.0.5", "10.0.0.128/25"]))
    assert policy.refusal("10.0.0.5") == policy.refusal("10.0.0.200") == "an address of this server"
    assert policy.refusal("10.0.0.4") is None


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", "0.0.0.0/0"])
def test_loopback_is_this_hosts_whatever_its_kernel_says(allowed: str) -> None:
    policy = PeerPolicy(allow=ranges(allowed, "::/0"))
    for host in ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"):
        assert policy.refusal(host) == "an address of this server"


def test_ports_that_are_named_are_open_on_this_host_and_no_others() -> None:
    named: dict[IPAddress, Ports] = {IPv4Address("10.0.0.5"): ((10_000, 20_000),), IPv6Address("fd00::5"): ((5, 5),)}
    policy = PeerPolicy(named=named, own=OwnHosts(["10.0.0.5", "10.0.0.6", "fd00::5"]))
    assert policy.ports("10.0.0.5") == ((10_000, 20_000),)
    for port in (10_000, 20_000):
        assert policy.refusal("10.0.0.5", port) is None
    for port in (1, 9_999, 20_001):
        assert policy.refusal("10.0.0.5", port) == "a port that peers.allow does not name"
    assert policy.refusal("10.0.0.5") is policy.refusal("fd00::5", 5) is None
    assert policy.refusal("10.0.0.6") == "an address of this server"


def test_what_stands_for_a_named_address_is_open_as_well() -> None:
    own = OwnHosts(["10.0.0.5"], {"10.0.0.5": "5.6.7.8"})
    for name in ("10.0.0.5", "5.6.7.8"):
        policy = PeerPolicy(named={IPv4Address(name): ((9, 9),)}, own=own, relays=frozenset({"5.6.7.8"}))
        assert policy.ports("10.0.0.5") == policy.ports("5.6.7.8") == ((9, 9),)
    policy = PeerPolicy(own=own, relays=frozenset({"5.6.7.8"}))
    assert policy.ports("5.6.7.8") == NO_PORT
    assert policy.refusal("5.6.7.8") is None
    assert policy.refusal("10.0.0.5") == "an address of this server"


def test_relays_meet_at_ports_that_relays_have() -> None:
    policy = PeerPolicy(own=OwnHosts(["10.0.0.5"]), relays=frozenset({"10.0.0.5"}), relay_ports=((50_000, 50_099),))
    assert policy.refusal("10.0.0.5", 50_099) is None
    assert policy.refusal("10.0.0.5", 50_100) == "a port that peers.allow does not name"


def test_ports_of_hosts_elsewhere() -> None:
    """They widen what is refused, and narrow nothing."""
    named: dict[IPAddress, Ports] = {IPv4Address(host): ((9, 9),) for host in ("10.0.0.7", "8.8.8.8", "9.9.9.9")}
    policy = PeerPolicy(named=named, deny=ranges("9.9.9.9/32"))
    assert policy.ports("10.0.0.7") == policy.ports("9.9.9.9") == ((9, 9),)
    assert policy.ports("8.8.8.8") == EVERY_PORT
    assert PeerPolicy(named=named, allow=ranges("10.0.0.0/8")).ports("10.0.0.7") == EVERY_PORT
    assert policy.refusal("10.0.0.7", 10) == "a port that peers.allow does not name"


INNER = ["10.0.0.5", "127.0.0.1", "169.254.169.254", "192.168.1.1", "224.0.0.1", "5.6.7.8", "9.9.9.9"]
"""Special, this host's, denied."""


def nat64(host: str, length: int) -> str:
    """An IPv4 address under the prefix that networks choose from, by RFC 6052 section 2.2."""
    packed = IPv4Address(host).packed
    whole = bytearray(IPv6Address("64:ff9b:1::").packed)
    places = [at for at in range(length // 8, 16) if at != 8 or length == 96][:4]
    for at, byte in zip(places, packed, strict=True):
        whole[at] = byte
    return str(IPv6Address(bytes(whole)))


@pytest.mark.parametrize("inner", INNER)
def test_what_is_inside_is_judged_also_where_the_form_is_allowed(inner: str) -> None:
    policy = PeerPolicy(
        allow=ranges("::/0"), deny=ranges("9.9.9.0/24"), own=OwnHosts(["5.6.7.8"]), relays=frozenset({"5.6.7.8"})
    )
    forms = [*spellings(inner).values(), *(nat64(inner, length) for length in (48, 56, 64, 96))]
    forms += [f"2a00::{prefix}:5efe:{inner}" for prefix in ("0", "200")]
    for host in forms:
        assert policy.refusal(canonical(host)) is not None, host


def test_what_is_inside_and_public_is_allowed_where_the_form_is() -> None:
    policy = PeerPolicy(allow=ranges("64:ff9b::/96", "64:ff9b:1::/48"))
    for host in (spellings("8.8.8.8")["NAT64"], *(nat64("8.8.8.8", length) for length in (48, 56, 64, 96))):
        assert policy.refusal(canonical(host)) is None
    assert policy.refusal(canonical(spellings("8.8.8.8")["6to4"])) is not None


def test_a_private_address_inside_is_allowed_where_both_are() -> None:
    both = PeerPolicy(allow=ranges("64:ff9b::/96", "10.1.0.0/16"), named={IPv4Address("10.2.0.1"): ((9, 9),)})
    assert both.refusal(canonical(spellings("10.1.2.3")["NAT64"])) is None
    assert both.ports(canonical(spellings("10.2.0.1")["NAT64"])) == ((9, 9),)
    assert both.refusal(canonical(spellings("10.3.0.1")["NAT64"])) == "an IPv6 form of 10.3.0.1"


def test_a_translator_is_not_fooled_by_what_follows_the_address() -> None:
    """It reads 10.0.0.5 at bits 48 to 87, whatever there is behind."""
    whole = int(IPv6Address(nat64("10.0.0.5", 48))) | 0x08080808
    assert PeerPolicy(allow=ranges("64:ff9b:1::/48")).refusal(str(IPv6Address(whole))) is not None


# Ports, in requests


MEDIA = OwnHosts(["10.0.0.5"], {"10.0.0.5": "5.6.7.8"})


def media(ports: Ports) -> ServerConfig:
    """A media server on the relay's host."""
    named: dict[IPAddress, Ports] = {IPv4Address("10.0.0.5"): ports} if ports else {}
    policy = PeerPolicy(named=named, own=MEDIA, relays=frozenset({"5.6.7.8"}), relay_ports=((50_000, 50_099),))
    return ServerConfig(RealmConfig(REALM, policy=policy))


@pytest.mark.parametrize("host", ["10.0.0.5", "5.6.7.8"])
def test_a_media_server_on_this_host_is_reached_at_its_ports(host: str) -> None:
    world = World(media(((10_000, 20_000),)))
    client = world.client()
    client.allocate()
    assert code(client.permit(Address(host, 22))) == 0, "a permission is for the host"
    assert [(each.host, each.ports) for each in world.of(Permit)] == [(host, ((10_000, 20_000),))]
    assert code(client.bind(0x4000, Address(host, 10_000))) == 0
    assert code(client.bind(0x4001, Address(host, 9_999))) == 403
    (refused,) = world.of(PeerRefused)
    assert (refused.peer, refused.reason) == (Address(host, 9_999), "a port that peers.allow does not name")


def test_channels_between_relays_need_no_name() -> None:
    world = World(media(()))
    client = world.client()
    client.allocate()
    assert code(client.bind(0x4000, Address("5.6.7.8", 50_001))) == 0
    assert code(client.bind(0x4001, Address("5.6.7.8", 22))) == 403
    assert [(each.host, each.ports) for each in world.of(Permit)] == [("5.6.7.8", NO_PORT)]


def test_other_ports_hold_for_permissions_that_there_are() -> None:
    world = World(media(((10_000, 20_000),)))
    client = world.client()
    client.allocate()
    client.permit(Address("5.6.7.8", 1), PEER)
    world.clear()
    world.server.reconfigure(media(((7, 7),)), world.now)
    world.carry_out()
    assert [(each.host, each.ports, each.deadline) for each in world.of(Permit)] == [
        ("5.6.7.8", ((7, 7),), world.now + 300)
    ]
    world.clear()
    world.server.reconfigure(media(()), world.now)
    world.carry_out()
    assert [(each.host, each.ports) for each in world.of(Permit)] == [("5.6.7.8", NO_PORT)]


def test_what_the_plane_lets_go_nowhere_is_told() -> None:
    world = World(media(((10_000, 20_000),)))
    client = world.client()
    client.allocate()
    client.permit(Address("5.6.7.8", 1))
    world.server.peer_fenced(1, Address("5.6.7.8", 22))
    world.server.peer_fenced(2, Address("5.6.7.8", 22))
    world.server.peer_fenced(1, Address("5.6.7.8", 50_001))
    world.carry_out()
    assert [(each.peer.port, each.reason) for each in world.of(PeerRefused)] == [
        (22, "a port that peers.allow does not name"),
        (50_001, "a port of this server where nothing is relayed"),
    ]


def test_an_allowed_range_reaches_the_requests() -> None:
    world = World(ServerConfig(RealmConfig(REALM, policy=PeerPolicy(allow=ranges("10.1.0.0/16")))))
    client = world.client()
    client.allocate(DUAL)
    peer = Address("10.1.2.3", 1)
    assert code(client.permit(peer)) == code(client.bind(0x4000, peer)) == 0
    assert client.send(peer, b"x")
    assert code(client.permit(Address(spellings("10.1.2.3")["mapped"], 1))) == 403
    assert code(client.permit(PEER, PEER_V6)) == 0


def test_what_is_no_address_is_refused() -> None:
    assert PeerPolicy().refusal("localhost") == "not an IP address"
    assert PeerPolicy().refusal("") == "not an IP address"


def test_ranges_that_end_on_no_prefix_compare_as_numbers() -> None:
    """A comparison word by word or byte by byte would get these wrong."""
    low, high = IPv6Address("2a00::ffff:ffff:ffff:fff0"), IPv6Address("2a00:0:0:1::f")
    policy = PeerPolicy(deny=RangeSet([(low, high)]))
    for inside in (low, low + 1, IPv6Address("2a00:0:0:1::"), IPv6Address("2a00:0:0:1::5"), high):
        assert policy.refusal(str(inside)) is not None
    for outside in (low - 1, high + 1, IPv6Address("2a00:0:0:1:8::5"), IPv6Address("2a00::5")):
        assert policy.refusal(str(outside)) is None


def test_adjoining_and_nested_ranges_are_one() -> None:
    low = IPv4Address("8.0.0.0")
    both = RangeSet([(low + one, low + other) for one, other in ((10, 20), (0, 9), (3, 4), (30, 30))])
    assert [number for number in range(40) if low + number in both] == [*range(21), 30]


@pytest.mark.parametrize("edge", ["0.0.0.0", "255.255.255.255", "::", "f" * 4 + ":ffff" * 7])
def test_ranges_at_the_edges_of_all_addresses(edge: str) -> None:
    address = ipaddress.ip_address(edge)
    assert address in RangeSet([(address, address)])
    assert address not in RangeSet([])


def addresses(first: IPAddress, span: int) -> st.SearchStrategy[IPAddress]:
    return st.integers(0, span).map(lambda number: first + number)


SMALL_V4 = addresses(IPv4Address("8.8.8.0"), 300)
SMALL_V6 = addresses(IPv6Address("2a00::ff:ffff:ffff:ff00"), 300)
ANY_V4 = addresses(IPv4Address(0), 2**32 - 1)
ANY_V6 = addresses(IPv6Address(0), 2**128 - 1)


@st.composite
def range_lists(draw: st.DrawFn) -> list[Range]:
    ranges: list[Range] = []
    for ends in (SMALL_V4, SMALL_V6, ANY_V6):
        for one, other in draw(st.lists(st.tuples(ends, ends), max_size=6)):
            ranges.append((one, other) if int(one) <= int(other) else (other, one))
    return ranges


@given(range_lists(), st.lists(SMALL_V4 | SMALL_V6 | ANY_V6, max_size=20))
def test_a_range_set_holds_what_its_ranges_hold(some: list[Range], others: list[IPAddress]) -> None:
    range_set = RangeSet(some)
    for address in [*others, *(end for pair in some for end in pair)]:
        naive = any(
            first.version == address.version and int(first) <= int(address) <= int(last) for first, last in some
        )
        assert (address in range_set) == naive


@given(st.integers(2, 2**32 - 1).map(IPv4Address))
def test_every_spelling_is_recognized(address: IPv4Address) -> None:
    for form, host in spellings(str(address)).items():
        assert address in embedded(ipaddress.ip_address(host)), form


@given(ANY_V4 | ANY_V6)
def test_what_the_standard_library_calls_special_is_refused(address: IPAddress) -> None:
    special = not address.is_global or address.is_multicast or address.is_link_local
    assert not special or PeerPolicy().refusal(canonical(str(address))) is not None
