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
from turnsvr.turn.policy import PeerPolicy
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State, allocation_for, check_peer, check_room, refuse_peer

_PAST: Final = 0.0
"""A deadline that no clock is before."""

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
    # No allocation may ever have so many: a request that "SHOULD NOT" be repeated "without modification" (RFC 8489
    # section 14.8), found before thousands of peers are judged one by one
    if len(hosts) > state.config.permissions_per_allocation:
        raise Reject(ErrorCode.BAD_REQUEST, limit=PERMISSIONS)
    # "an address family that is not the same": 443; "if a value is not allowed": 403
    for peer in hosts.values():
        check_peer(state, allocation, peer)
    # "unable to satisfy the request due to some capacity limit": 508, for room comes back when permissions end
    added = sum([host not in allocation.permissions for host in hosts])
    check_room(len(allocation.permissions) + added, state.config.permissions_per_allocation, PERMISSIONS)
    for host in hosts:
        permit(state, allocation, host, now + PERMISSION_LIFETIME)
    return message.reply(Class.SUCCESS)


def permit(state: State, allocation: Allocation, host: str, deadline: float) -> None:
    """Install a permission, or extend it: that of a channel, which lives longer, is never shortened.

    The data plane hears of those for datagrams; connections of peers are judged here (connectionattempt.py).
    """
    deadline = max(deadline, allocation.permissions.get(host, deadline))
    state.allocations.permit(allocation, host, deadline)
    if not allocation.tcp:
        ports = state.config.rules_of(allocation.realm).policy.ports(host)
        state.emit(Permit(allocation.number, host, deadline, ports))


def judge_anew(state: State, allocation: Allocation, before: PeerPolicy | None, now: PeerPolicy) -> None:
    """End permissions for peers that are refused from now on, and have the others cover the ports that are open now.

    before: the policy until now; None where there was none.
    """
    for host, deadline in list(allocation.permissions.items()):
        if now.refusal(host):
            state.allocations.drop_permission(allocation, host)
            if not allocation.tcp:
                state.emit(Permit(allocation.number, host, _PAST))
        elif allocation.tcp:
            continue
        elif before is None or now.ports(host) != before.ports(host):
            state.emit(Permit(allocation.number, host, deadline, now.ports(host)))


def peer_fenced(state: State, allocation: int, peer: Address) -> None:
    """The data plane has let a packet for this peer go nowhere, since the permission does not cover its port."""
    found = state.allocations.get(allocation)
    rules = state.config.find(found.realm) if found is not None else None
    if found is not None and rules is not None:
        reason = rules.policy.refusal(peer.host, peer.port)
        refuse_peer(state, found, peer, reason or "a port of this server where nothing is relayed")
