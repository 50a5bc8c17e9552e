"""Permissions, channels, Send indications, ChannelData and ICMP errors (RFC 8656 sections 9 to 12)."""

from __future__ import annotations

import pytest

from tests.turn.test_allocate import DUAL
from tests.turn.world import OTHER_PEER, PEER, PEER_V6, REALM, Style, World, code, names, raw
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.framing import CHANNEL_LAST, pack_channel_data
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.commands import BindChannel, Permit, Send
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.policy import PeerPolicy, RangeSet, network_range

V6 = (a.REQUESTED_ADDRESS_FAMILY, 2)
AT_PEER = (a.XOR_PEER_ADDRESS, PEER)

# CreatePermission (section 10)


def test_a_permission_lets_data_pass_for_300_seconds() -> None:
    world = World()
    client = world.client()
    client.allocate()
    assert not client.send(PEER, b"early")
    answer = client.permit(PEER)
    assert names(answer) == ["MESSAGE-INTEGRITY"]
    assert world.of(Permit) == [Permit(1, PEER.host, world.now + 300)]
    world.pass_time(299.999)
    assert client.send(PEER, b"in time")
    world.pass_time(0.001)
    assert not client.send(PEER, b"late")


def test_a_permission_is_for_an_address_and_any_port() -> None:
    client = World().client()
    client.allocate()
    client.permit(Address(PEER.host, 0))
    assert client.send(Address(PEER.host, 1), b"x")
    assert client.send(Address(PEER.host, 65535), b"x")
    assert not client.send(OTHER_PEER, b"x")


def test_several_addresses_at_once_each_once() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER, OTHER_PEER, Address(PEER.host, 9))
    assert [command.host for command in world.of(Permit)] == [PEER.host, OTHER_PEER.host]


def test_all_of_the_addresses_or_none() -> None:
    world = World()
    client = world.client()
    client.allocate()
    assert code(client.permit(PEER, Address("10.0.0.1", 1))) == 403
    assert not world.of(Permit)
    assert not client.send(PEER, b"x")


def test_permission_without_an_allocation_is_437() -> None:
    assert code(World().client().permit(PEER)) == 437


def test_permission_while_the_relay_is_being_opened_is_437() -> None:
    world = World()
    client = world.client()
    client.challenge()
    world.hold_relays = True
    client.deliver(client.sign(client.message(Method.ALLOCATE, (a.REQUESTED_TRANSPORT, 17))))
    assert code(client.permit(PEER)) == 437


def test_permission_for_another_users_allocation_is_441() -> None:
    world = World()
    client = world.client()
    client.allocate()
    assert code(world.client("bob", address=client.five_tuple.client).permit(PEER)) == 441


def test_permission_without_a_peer_is_400() -> None:
    client = World().client()
    client.allocate()
    assert code(client.permit()) == 400


@pytest.mark.parametrize("value", [b"", b"\0\3" + bytes(6), b"\0\1" + bytes(5), b"\0\2" + bytes(6), bytes(40)])
def test_permission_with_a_malformed_peer_is_400(value: bytes) -> None:
    world = World()
    client = world.client()
    client.allocate()
    message = raw(client.message(Method.CREATE_PERMISSION, AT_PEER), a.XOR_PEER_ADDRESS.number, value)
    assert code(client.transact(client.sign(message))) == 400
    assert not world.of(Permit)


def test_permission_for_the_other_family_is_443() -> None:
    client = World().client()
    client.allocate()
    assert code(client.permit(PEER_V6)) == 443
    assert code(client.permit(PEER, PEER_V6)) == 443
    assert not client.send(PEER, b"x")


def test_a_dual_allocation_has_permissions_of_both_families() -> None:
    client = World().client()
    client.allocate(DUAL)
    assert code(client.permit(PEER, PEER_V6)) == 0
    assert client.send(PEER, b"x")
    assert client.send(PEER_V6, b"x")


def test_permissions_are_bounded() -> None:
    world = World(ServerConfig(RealmConfig(REALM), permissions_per_allocation=3))
    client = world.client()
    client.allocate()
    peers = [Address(f"8.8.8.{number}", 1) for number in range(5)]
    assert code(client.permit(*peers[:4])) == 400
    assert code(client.permit(*peers[:3])) == 0
    assert code(client.permit(peers[0], peers[2])) == 0
    assert code(client.permit(peers[3])) == 508
    assert code(client.bind(0x4000, peers[3])) == 508
    assert len(world.plane.sessions[1].permissions) == 3
    world.pass_time(300)
    assert code(client.permit(peers[3], peers[4])) == 0


def test_permissions_end_with_their_allocation() -> None:
    client = World().client()
    client.allocate()
    client.permit(PEER)
    client.refresh((a.LIFETIME, 0))
    client.allocate()
    assert not client.send(PEER, b"x")


def test_permissions_of_one_allocation_are_nothing_to_another() -> None:
    world = World()
    first, second = world.client(), world.client()
    first.allocate()
    second.allocate()
    first.permit(PEER)
    assert not second.send(PEER, b"x")


# ChannelBind (section 12.2)


BOTH_PEERS = pytest.mark.parametrize("peer", [PEER, PEER_V6])


def passes(world: World, peer: Address) -> bool:
    """Whether the data plane would relay between the first allocation and this peer now."""
    return world.plane.covers(1, peer, world.now)


@BOTH_PEERS
def test_a_channel_lasts_600_seconds_and_so_does_its_permission(peer: Address) -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL, (a.LIFETIME, 3600))
    answer = client.bind(0x4000, peer)
    assert names(answer) == ["MESSAGE-INTEGRITY"]
    assert world.of(BindChannel) == [BindChannel(1, 0x4000, peer, world.now + 600)]
    assert world.of(Permit) == [Permit(1, peer.host, world.now + 600)]
    world.pass_time(599.999)
    assert client.channel_data(0x4000, b"data")
    assert client.send(peer, b"data")
    assert passes(world, peer)
    world.pass_time(0.001)
    assert not client.channel_data(0x4000, b"no channel")
    assert not client.send(peer, b"no permission")
    assert not passes(world, peer)


@BOTH_PEERS
@pytest.mark.parametrize("transport", Transport)
def test_a_client_that_refreshes_its_channels_alone_is_relayed_for(peer: Address, transport: Transport) -> None:
    """As those do that refresh a channel every 500 s and never a permission."""
    world = World()
    client = world.client(transport=transport)
    client.allocate(DUAL, (a.LIFETIME, 3600))
    for _ in range(6):
        assert code(client.bind(0x4000, peer)) == 0
        for _ in range(10):
            world.pass_time(50)
            assert client.channel_data(0x4000, b"data")
            assert passes(world, peer)


@BOTH_PEERS
def test_create_permission_never_shortens_what_a_channel_permits(peer: Address) -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL, (a.LIFETIME, 3600))
    client.bind(0x4000, peer)
    world.clear()
    world.pass_time(100)
    client.permit(peer)
    assert world.of(Permit) == [Permit(1, peer.host, world.now + 500)]
    world.pass_time(499.999)
    assert client.channel_data(0x4000, b"data")
    assert passes(world, peer)
    client.permit(peer)
    world.pass_time(299.999)
    assert client.send(peer, b"longer than the channel")
    assert not client.channel_data(0x4000, b"no channel")


@BOTH_PEERS
def test_a_channel_lengthens_the_permission_that_there_is_and_no_other(peer: Address) -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL, (a.LIFETIME, 3600))
    client.permit(peer, OTHER_PEER)
    world.pass_time(200)
    client.bind(0x4000, peer)
    world.pass_time(100)
    assert not passes(world, OTHER_PEER)
    world.pass_time(499.999)
    assert client.channel_data(0x4000, b"data")
    assert client.send(peer._replace(port=peer.port + 1), b"any port")
    assert passes(world, peer)
    world.pass_time(0.001)
    assert not client.channel_data(0x4000, b"no channel")
    assert not passes(world, peer)


def test_two_channels_to_one_host_permit_for_as_long_as_the_later_one() -> None:
    world = World()
    client = world.client()
    client.allocate((a.LIFETIME, 3600))
    client.bind(0x4000, PEER)
    world.pass_time(400)
    client.bind(0x4001, Address(PEER.host, PEER.port + 1))
    world.pass_time(599.999)
    assert client.channel_data(0x4001, b"data")
    assert not client.channel_data(0x4000, b"expired")
    world.pass_time(0.001)
    assert not client.send(PEER, b"no permission")


def test_the_permission_of_a_channel_goes_with_its_family() -> None:
    world = World()
    client = world.client()
    client.allocate(DUAL, (a.LIFETIME, 3600))
    client.bind(0x4000, PEER)
    client.bind(0x4001, PEER_V6)
    client.refresh((a.LIFETIME, 0), V6)
    assert not passes(world, PEER_V6)
    assert code(client.permit(PEER_V6)) == 443
    world.pass_time(540)
    assert client.channel_data(0x4000, b"data")


def test_binding_again_refreshes_channel_and_permission() -> None:
    world = World()
    client = world.client()
    client.allocate((a.LIFETIME, 3600))
    client.bind(0x4000, PEER)
    world.pass_time(500)
    assert code(client.bind(0x4000, PEER)) == 0
    world.pass_time(599)
    assert client.channel_data(0x4000, b"data")


def test_data_refreshes_nothing() -> None:
    world = World()
    client = world.client()
    client.allocate((a.LIFETIME, 3600))
    client.bind(0x4000, PEER)
    client.permit(OTHER_PEER)
    world.pass_time(299)
    assert client.send(OTHER_PEER, b"data")
    world.pass_time(1)
    assert not client.send(OTHER_PEER, b"data")
    world.pass_time(299)
    assert client.channel_data(0x4000, b"data")
    world.pass_time(1)
    assert not client.channel_data(0x4000, b"data")


@pytest.mark.parametrize("number", [0x4000, 0x4FFF, 0x5000, 0x7FFF])
def test_the_numbers_of_rfc_5766_are_accepted(number: int) -> None:
    client = World().client()
    client.allocate()
    assert code(client.bind(number, PEER)) == 0
    assert client.channel_data(number, b"x")


@pytest.mark.parametrize("number", [0, 0x3FFF, 0x8000, 0xFFFF])
def test_a_number_out_of_range_is_400(number: int) -> None:
    client = World().client()
    client.allocate()
    assert code(client.bind(number, PEER)) == 400


@pytest.mark.parametrize(("number", "expected"), [(0x4FFF, 0), (0x5000, 400)])
def test_the_range_of_rfc_8656_by_setting(number: int, expected: int) -> None:
    client = World(ServerConfig(RealmConfig(REALM), channel_last=CHANNEL_LAST)).client()
    client.allocate()
    assert code(client.bind(number, PEER)) == expected


@pytest.mark.parametrize("pairs", [[], [AT_PEER], [(a.CHANNEL_NUMBER, 0x4000)]])
def test_a_bind_without_number_or_peer_is_400(pairs: list[tuple[a.Attribute[object], object]]) -> None:
    client = World().client()
    client.allocate()
    assert code(client.request(Method.CHANNEL_BIND, *pairs)) == 400


def test_a_bind_to_port_zero_is_400() -> None:
    client = World().client()
    client.allocate()
    assert code(client.bind(0x4000, Address(PEER.host, 0))) == 400


def test_a_number_that_is_bound_elsewhere_is_400() -> None:
    client = World().client()
    client.allocate()
    client.bind(0x4000, PEER)
    assert code(client.bind(0x4000, OTHER_PEER)) == 400
    assert code(client.bind(0x4000, Address(PEER.host, PEER.port + 1))) == 400


def test_a_peer_that_is_bound_elsewhere_is_400() -> None:
    client = World().client()
    client.allocate()
    client.bind(0x4000, PEER)
    assert code(client.bind(0x4001, PEER)) == 400
    assert code(client.bind(0x4001, Address(PEER.host, PEER.port + 1))) == 0


def test_an_expired_binding_frees_number_and_peer() -> None:
    world = World()
    client = world.client()
    client.allocate((a.LIFETIME, 3600))
    client.bind(0x4000, PEER)
    world.pass_time(599.999)
    assert code(client.bind(0x4000, OTHER_PEER)) == code(client.bind(0x4001, PEER)) == 400
    world.pass_time(0.001)
    assert code(client.bind(0x4000, OTHER_PEER)) == code(client.bind(0x4001, PEER)) == 0
    assert client.channel_data(0x4000, b"x")[0].peer == OTHER_PEER
    assert client.channel_data(0x4001, b"x")[0].peer == PEER


def test_bind_without_an_allocation_is_437() -> None:
    assert code(World().client().bind(0x4000, PEER)) == 437


def test_bind_in_another_users_allocation_is_441() -> None:
    world = World()
    client = world.client()
    client.allocate()
    assert code(world.client("bob", address=client.five_tuple.client).bind(0x4000, PEER)) == 441


def test_bind_to_the_other_family_is_443() -> None:
    client = World().client()
    client.allocate(V6)
    assert code(client.bind(0x4000, PEER)) == 443
    assert code(client.bind(0x4000, PEER_V6)) == 0


def test_channels_are_bounded_and_508_beyond() -> None:
    world = World(ServerConfig(RealmConfig(REALM), channels_per_allocation=2))
    client = world.client()
    client.allocate()
    codes = [code(client.bind(0x4000 + number, Address(PEER.host, number + 1))) for number in range(3)]
    assert codes == [0, 0, 508]
    assert code(client.bind(0x4001, Address(PEER.host, 2))) == 0
    assert len(world.plane.sessions[1].channels) == 2


# Send indications (section 11.2) and ChannelData (section 12.6)


@pytest.mark.parametrize("data", [b"", b"x", bytes(1500), bytes(65_000)])
@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TLS])
def test_data_arrives_as_it_was(data: bytes, transport: Transport) -> None:
    client = World().client(transport=transport)
    client.allocate()
    client.bind(0x4000, PEER)
    sent = client.send(PEER, data) + client.channel_data(0x4000, data)
    assert [(command.peer, command.data) for command in sent] == [(PEER, data)] * 2


def test_dont_fragment_is_passed_on() -> None:
    client = World().client()
    client.allocate()
    client.permit(PEER)
    assert [client.send(PEER, b"x", *pairs)[0].dont_fragment for pairs in ([], [(a.DONT_FRAGMENT, True)])] == [
        False,
        True,
    ]


def test_a_send_without_data_or_peer_is_dropped() -> None:
    client = World().client()
    client.allocate()
    client.permit(PEER)
    for pair in (AT_PEER, (a.DATA, b"x")):
        assert not client.deliver(client.message(Method.SEND, pair, message_class=Class.INDICATION).encode())
    assert not client.world.plane.relayed


def test_a_send_with_an_unknown_required_attribute_is_dropped() -> None:
    client = World().client()
    client.allocate()
    client.permit(PEER)
    for number, relayed in ((0x7FFF, 0), (0x8FFF, 1)):
        message = client.message(Method.SEND, AT_PEER, (a.DATA, b"x"), message_class=Class.INDICATION)
        assert not client.deliver(raw(message, number, b"1234").encode())
        assert len(client.world.plane.relayed) == relayed


def test_a_send_to_port_zero_is_dropped() -> None:
    client = World().client()
    client.allocate()
    client.permit(PEER)
    assert not client.send(Address(PEER.host, 0), b"x")


def test_a_send_of_rfc_3489_kind_is_dropped() -> None:
    client = World(ServerConfig(RealmConfig(REALM), rfc3489=True)).client()
    client.allocate()
    client.permit(PEER)
    message = Message(Method.SEND, Class.INDICATION, bytes(16)).add(a.XOR_PEER_ADDRESS, PEER).add(a.DATA, b"x")
    assert not client.deliver(message.encode())
    assert not client.world.plane.relayed


@pytest.mark.parametrize("message_class", [Class.REQUEST, Class.SUCCESS, Class.ERROR])
def test_send_is_an_indication_and_nothing_else(message_class: Class) -> None:
    client = World().client()
    client.allocate()
    client.permit(PEER)
    assert not client.deliver(
        client.message(Method.SEND, AT_PEER, (a.DATA, b"x"), message_class=message_class).encode()
    )
    assert not client.world.plane.relayed


def test_data_without_an_allocation_is_dropped() -> None:
    client = World().client()
    assert not client.send(PEER, b"x")
    assert not client.channel_data(0x4000, b"x")


def test_an_unbound_channel_is_dropped() -> None:
    client = World().client()
    client.allocate()
    client.bind(0x4000, PEER)
    assert not client.channel_data(0x4001, b"x")


@pytest.mark.parametrize("cut", range(9))
def test_channel_data_shorter_than_it_claims_is_dropped(cut: int) -> None:
    client = World().client()
    client.allocate()
    client.bind(0x4000, PEER)
    assert not client.deliver(pack_channel_data(0x4000, b"12345", padded=False)[:cut])
    assert not client.world.plane.relayed


def test_padding_of_channel_data_is_not_relayed() -> None:
    client = World().client()
    client.allocate()
    client.bind(0x4000, PEER)
    assert not client.deliver(pack_channel_data(0x4000, b"12345", padded=True))
    assert client.world.plane.relayed[0].data == b"12345"


def test_a_peer_that_the_policy_refuses_by_now_gets_nothing() -> None:
    """A narrower policy holds for permissions that were there before it."""
    world = World()
    client = world.client()
    client.allocate()
    client.bind(0x4000, PEER)
    world.server.reconfigure(ServerConfig(RealmConfig(REALM, policy=denying(PEER.host))), world.now)
    ended = Permit(1, PEER.host, 0.0)
    assert world.server.commands() == [ended]
    assert not client.send(PEER, b"x")
    assert not client.channel_data(0x4000, b"x")
    assert code(client.permit(PEER)) == 403


def denying(host: str) -> PeerPolicy:
    return PeerPolicy(deny=RangeSet([network_range(host)]))


# ICMP (section 11.5)

TELL_ICMP = ServerConfig(RealmConfig(REALM), icmp_indications=True)


@pytest.mark.parametrize(("peer", "icmp_type"), [(PEER, 3), (PEER, 11), (PEER_V6, 1), (PEER_V6, 2), (PEER_V6, 3)])
@pytest.mark.parametrize("transport", Transport)
def test_nothing_of_an_icmp_error_reaches_a_client_by_default(
    peer: Address, icmp_type: int, transport: Transport
) -> None:
    world = World()
    client = world.client(transport=transport)
    client.allocate(DUAL)
    client.bind(0x4000, peer)
    world.clear()
    world.server.peer_error(1, peer, icmp_type, 0, bytes(4), world.now)
    world.carry_out()
    assert not world.commands


def test_icmp_indications_follow_a_reload() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    told = []
    for icmp_indications in (True, False, True):
        config = ServerConfig(RealmConfig(REALM), icmp_indications=icmp_indications)
        world.server.reconfigure(config, world.now)
        world.server.peer_error(1, PEER, 3, 3, bytes(4), world.now)
        world.carry_out()
        told.append(len(client.mailbox()))
    assert told == [1, 0, 1]


@pytest.mark.parametrize(
    ("peer", "icmp_type", "icmp_code", "data"),
    [(PEER, 3, 3, bytes(4)), (PEER, 3, 4, b"\0\0\x05\x14"), (PEER, 11, 0, bytes(4)), (PEER_V6, 2, 0, b"\0\0\x05\0")],
)
def test_an_icmp_error_is_a_data_indication(peer: Address, icmp_type: int, icmp_code: int, data: bytes) -> None:
    world = World(TELL_ICMP)
    client = world.client(style=Style.SHA256)
    client.allocate(DUAL)
    client.permit(peer)
    world.server.peer_error(1, peer, icmp_type, icmp_code, data, world.now)
    world.carry_out()
    (indication,) = map(Message.parse, client.mailbox())
    assert (indication.method, indication.message_class) == (Method.DATA, Class.INDICATION)
    assert names_of(indication) == ["XOR-PEER-ADDRESS", "ICMP"]
    assert indication.get(a.XOR_PEER_ADDRESS) == peer
    assert indication.get(a.ICMP) == a.Icmp(icmp_type, icmp_code, data)


def names_of(message: Message) -> list[str]:
    return [a.ATTRIBUTES[number].name for number in message.numbers()]


@pytest.mark.parametrize(
    ("peer", "icmp_type"), [(PEER, 0), (PEER, 5), (PEER, 1), (PEER, 255), (PEER_V6, 4), (PEER_V6, 128)]
)
def test_other_icmp_types_are_not_told(peer: Address, icmp_type: int) -> None:
    world = World(TELL_ICMP)
    client = world.client()
    client.allocate(DUAL)
    client.permit(peer)
    world.server.peer_error(1, peer, icmp_type, 0, bytes(4), world.now)
    world.carry_out()
    assert not client.mailbox()


def test_an_icmp_error_needs_a_live_permission_and_allocation() -> None:
    world = World(TELL_ICMP)
    client = world.client()
    client.allocate()
    world.clear()
    world.server.peer_error(1, PEER, 3, 3, bytes(4), world.now)
    world.server.peer_error(2, PEER, 3, 3, bytes(4), world.now)
    world.carry_out()
    assert not world.of(Send)
    client.permit(PEER)
    world.pass_time(400)
    client.permit(PEER)
    world.clear()
    world.now += 200
    world.server.peer_error(1, PEER, 3, 3, bytes(4), world.now)
    world.carry_out()
    assert not world.of(Send)
