"""How many TCP connections to peers there may be, and how often one is asked for (RFC 6062 leaves both to the server).

Without the second bound a user could look for open ports everywhere from the server's address.
"""

from __future__ import annotations

from typing import Final

from turnsvr.limits import client_of
from turnsvr.stun.errors import ErrorCode
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.peerconnections import Stage
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State

CONNECTIONS: Final = "limits.peer_connections"
OF_USER: Final = "limits.peer_connections_per_user"
OF_ALLOCATION: Final = "limits.peer_connections_per_allocation"
CONNECTING: Final = "limits.peer_connects_per_allocation"
UNBOUND: Final = "limits.peer_attempts_per_allocation"
USER_RATE: Final = "limits.peer_connect_rate_per_user"
ADDRESS_RATE: Final = "limits.peer_connect_rate_per_address"
"""The settings that bound them."""


def full(state: State, allocation: Allocation, stage: Stage) -> str | None:
    """The setting that leaves no room for one more connection in this stage, or None."""
    config, connections = state.config, state.connections
    if len(connections) >= config.peer_connections:
        return CONNECTIONS
    if connections.count_owner(allocation.owner) >= config.peer_connections_per_user:
        return OF_USER
    if connections.count(allocation.number) >= config.peer_connections_per_allocation:
        return OF_ALLOCATION
    if stage is Stage.CONNECTING:
        most, setting = config.peer_connects_per_allocation, CONNECTING
    else:
        most, setting = config.peer_attempts_per_allocation, UNBOUND
    return setting if connections.count(allocation.number, stage) >= most else None


def has_its_share(state: State, allocation: Allocation, host: str) -> bool:
    """Whether connections of this host hold half of the places for those that no client's connection has yet.

    So one permitted peer keeps no other from connecting.
    """
    half = (state.config.peer_attempts_per_allocation + 1) // 2
    return state.connections.count_host(allocation.number, Stage.UNBOUND, host) >= half


def check_connect(state: State, allocation: Allocation, now: float) -> None:
    """508 where there is no room for another Connect request, or this one comes too soon; to be called last: it counts.

    One that is refused spends nothing of any rate.
    """
    limit = full(state, allocation, Stage.CONNECTING)
    if limit is not None:
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY, limit=limit)
    address = client_of(allocation.five_tuple.client.packed)
    if state.connect_rates_of_addresses.exhausted(address, now):
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY, limit=ADDRESS_RATE)
    if not state.connect_rates.allow(allocation.owner, now):
        raise Reject(ErrorCode.INSUFFICIENT_CAPACITY, limit=USER_RATE)
    state.connect_rates_of_addresses.allow(address, now)
