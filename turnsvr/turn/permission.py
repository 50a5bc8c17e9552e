"""Permissions, and the CreatePermission method that installs them (RFC 8656 sections 9 and 10).

A permission lives for 5 minutes (turn/lifetimes.py), that of a channel for as long as the channel.
"""

from __future__ import annotations

from typing import Final

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Class, Message
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.authentication import Proof
from turnsvr.turn.commands import Permit
from turnsvr.turn.lifetimes import PERMISSION_LIFETIME
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State, allocation_for, check_peer, check_room

PERMISSIONS: Final = "limits.permissions_per_allocation"
"""The setting that bounds them."""


def create_permission(state: State, message: Message, five_tuple: FiveTuple, proof: Proof, now: float) -> Message:
    """RFC 8656 section 10.2: all of the addresses are permitted, or none."""
    allocation = allocation_for(state, five_tuple, proof)
    # "The port portion of each attribute is ignored": the first peer of each host stands for all
    hosts: dict[str, Address] = {}
    for peer in message.all(a.XOR_PEER_ADDRESS):
        hosts.setdefault(peer.host, peer)
    # "If no such attribute exists, or if any of these attributes are invalid, then a 400": reading finds the latter
    if not hosts:
        raise Reject(ErrorCode.BAD_REQUEST)
    # "unable to satisfy the request due to some capacity limit": 508, before thousands of peers are judged one by one
    check_room(len(hosts), state.config.permissions_per_allocation, PERMISSIONS)
    # "an address family that is not the same": 443; "if a value is not allowed": 403
    for peer in hosts.values():
        check_peer(state, allocation, peer)
    added = sum([host not in allocation.permissions for host in hosts])
    check_room(len(allocation.permissions) + added, state.config.permissions_per_allocation, PERMISSIONS)
    for host in hosts:
        permit(state, allocation, host, now + PERMISSION_LIFETIME)
    return message.reply(Class.SUCCESS)


def permit(state: State, allocation: Allocation, host: str, deadline: float) -> None:
    """Install a permission, or extend it: that of a channel, which lives longer, is never shortened."""
    deadline = max(deadline, allocation.permissions.get(host, deadline))
    state.allocations.permit(allocation, host, deadline)
    state.emit(Permit(allocation.number, host, deadline))
