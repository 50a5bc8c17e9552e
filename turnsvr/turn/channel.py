"""Channels: binding and rebinding them with ChannelBind, and ChannelData from clients (RFC 8656 section 12)."""

from __future__ import annotations

from turnsvr.stun import attributes as a
from turnsvr.stun.address import FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.framing import CHANNEL_FIRST, unpack_channel_data
from turnsvr.stun.message import Class, Message
from turnsvr.turn.authentication import Proof
from turnsvr.turn.commands import BindChannel
from turnsvr.turn.lifetimes import CHANNEL_LIFETIME
from turnsvr.turn.permission import PERMISSIONS, permit
from turnsvr.turn.reject import Reject
from turnsvr.turn.send import relay
from turnsvr.turn.state import State, allocation_for, check_peer, check_room


def channel_bind(state: State, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Message:
    """RFC 8656 section 12.2, but that the permission lives as long as the channel, not for 5 minutes.

    coturn does so, and there are clients that refresh their channels alone.
    """
    allocation = allocation_for(state, five_tuple, proof)
    # RFC 6062 has no channels: data go over connections
    if allocation.tcp:
        raise Reject(ErrorCode.BAD_REQUEST)
    number, peer = message.get(a.CHANNEL_NUMBER), message.get(a.XOR_PEER_ADDRESS)
    # "The request contains both a CHANNEL-NUMBER and an XOR-PEER-ADDRESS attribute", else 400
    if number is None or peer is None or peer.port == 0:
        raise Reject(ErrorCode.BAD_REQUEST)
    # "The channel number is in the range", that of RFC 5766 unless the operator narrows it
    if not CHANNEL_FIRST <= number <= state.config.channel_last:
        raise Reject(ErrorCode.BAD_REQUEST)
    # "The channel number is not currently bound to a different transport address (same transport address is OK)"
    if allocation.channel(number, now) not in (None, peer):
        raise Reject(ErrorCode.BAD_REQUEST)
    # "The transport address is not currently bound to a different channel number"
    if allocation.channel_of(peer, now) not in (None, number):
        raise Reject(ErrorCode.BAD_REQUEST)
    # "an address family that is not the same": 443; "if a value is not allowed": 403
    check_peer(state, allocation, peer, peer.port)
    # "unable to fulfill the request due to some capacity limit": 508
    channels = len(allocation.channels) + (number not in allocation.channels)
    check_room(channels, state.config.channels_per_allocation, "limits.channels_per_allocation")
    permissions = len(allocation.permissions) + (peer.host not in allocation.permissions)
    check_room(permissions, state.config.permissions_per_allocation, PERMISSIONS)
    # "The server also installs or refreshes a permission for the IP address in the XOR-PEER-ADDRESS attribute"
    deadline = now + CHANNEL_LIFETIME
    state.allocations.bind(allocation, number, peer, deadline)
    permit(state, allocation, peer.host, deadline)
    state.emit(BindChannel(allocation.number, number, peer, deadline))
    return message.reply(Class.SUCCESS)


def channel_data(state: State, data: bytes, five_tuple: FiveTuple, now: float) -> None:
    """Section 12.6: relay to the peer that the channel is bound to; "If no channel is bound", silence."""
    number, payload = unpack_channel_data(data)
    allocation = state.allocations.of(five_tuple)
    if allocation is None:
        return
    peer = allocation.channel(number, now)
    if peer is not None:
        relay(state, allocation, peer, payload, False, now)
