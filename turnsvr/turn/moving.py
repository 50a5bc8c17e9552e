"""The rules move to another process: what one gives, and what the other takes. snapshot.py has the values.

The giver goes on with the clients that stay. Each counts the other's allocations, so that no bound is passed by a move.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from turnsvr.plane import OpenRelay
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.commands import BindChannel, ExpectClient, Permit
from turnsvr.turn.responses import Responses
from turnsvr.turn.snapshot import (
    Document,
    Unreadable,
    check_names,
    families_of,
    read_allocation,
    read_bool,
    read_bytes,
    read_five_tuple,
    read_float,
    read_int,
    read_list,
    read_row,
    read_str,
    write_allocation,
    write_bytes,
    write_five_tuple,
)
from turnsvr.turn.state import State
from turnsvr.turn.tickets import Tickets

NUMBERS_APART: Final = 1 << 20
"""Allocations that a giver may still make after a move, for connections that it keeps, under numbers of its own."""


def write_rules(state: State, responses: Responses, now: float) -> Document:
    """All but the allocations."""
    return {
        "next_number": state.next_number,
        "draining": state.draining,
        "redirected": state.redirected,
        "secret": write_bytes(responses.secret),
        "answers": [[method, code, count] for (method, code), count in sorted(responses.counts.items())],
        "reservations": [
            [write_bytes(token), *owner, deadline] for token, owner, deadline in state.reservations.held()
        ],
        "finished": [
            [write_five_tuple(five_tuple), write_bytes(transaction), write_bytes(answer), until]
            for five_tuple, transaction, answer, until in state.allocations.answers_kept(now)
        ],
    }


def read_rules(state: State, responses: Responses, document: Document) -> None:
    """Go on from there. Raises Unreadable."""
    check_names(document, "next_number draining redirected secret answers reservations finished")
    state.next_number = read_int(document["next_number"], "next_number") + NUMBERS_APART
    state.draining = read_bool(document["draining"], "draining")
    state.redirected = read_int(document["redirected"], "redirected")
    secret = read_bytes(document["secret"], "secret")
    responses.restore(secret)
    state.tickets = Tickets(secret)
    for each in read_list(document["answers"], "answers"):
        method, code, count = read_row(each, 3, "answers")
        responses.counts[read_int(method, "answers"), read_int(code, "answers")] += read_int(count, "answers")
    for each in read_list(document["reservations"], "reservations"):
        token, realm, user, deadline = read_row(each, 4, "reservations")
        owner = read_str(realm, "reservations"), read_str(user, "reservations")
        state.reservations.add(read_bytes(token, "token"), owner, read_float(deadline, "reservations"))
    for each in read_list(document["finished"], "finished"):
        client, transaction, answer, until = read_row(each, 4, "finished")
        state.allocations.keep_answer(
            read_five_tuple(client),
            read_bytes(transaction, "finished"),
            read_bytes(answer, "finished"),
            read_float(until, "finished"),
        )


def write_one(state: State, allocation: Allocation) -> Document:
    """An allocation that has its relay."""
    return write_allocation(allocation, state.rates.paid_until(allocation.owner))


class Adopted:
    """An allocation that was taken, and what a pump is to be told of it, in this order."""

    __slots__ = ("allocation", "channels", "permissions", "relay")

    def __init__(
        self, allocation: Allocation, relay: OpenRelay, permissions: list[Permit], channels: list[BindChannel]
    ) -> None:
        self.allocation: Final = allocation
        self.relay: Final = relay
        self.permissions: Final = permissions
        self.channels: Final = channels


def adopt(state: State, document: Document) -> Adopted | Allocation:
    """Take an allocation; one whose realm is not served here is not taken, and is returned as it was.

    Permissions for peers that are refused here are left out. Raises Unreadable.
    """
    allocation, rate = read_allocation(document)
    announced, allocation.announced = allocation.announced, None
    if announced is not None and (state.allocations.of(announced) is not None or announced == allocation.five_tuple):
        raise Unreadable("a client is announced where another one is")
    if state.allocations.get(allocation.number) is not None or state.allocations.of(allocation.five_tuple) is not None:
        raise Unreadable("two allocations of one number or one client")
    state.rates.restore(allocation.owner, rate)
    realm = state.config.find(allocation.realm)
    if realm is None:
        return allocation
    for host in [host for host in allocation.permissions if realm.policy.refusal(host)]:
        del allocation.permissions[host]
    state.allocations.adopt(allocation)
    if announced is not None:
        state.allocations.announce(allocation, announced)
        state.emit(ExpectClient(announced))
    number = allocation.number
    return Adopted(
        allocation,
        OpenRelay(number, allocation.five_tuple, families_of(allocation), max(allocation.expires.values())),
        [Permit(number, host, deadline, realm.policy.ports(host)) for host, deadline in allocation.permissions.items()],
        [BindChannel(number, channel, bound.peer, bound.deadline) for channel, bound in allocation.channels.items()],
    )


def forget(state: State, numbers: Iterable[int], *, counted: bool) -> None:
    """Let go of allocations without an event; counted: another process serves them from here on."""
    for number in numbers:
        allocation = state.allocations.get(number)
        if allocation is not None:
            state.allocations.remove(allocation)
            if counted:
                state.allocations.count_elsewhere(number, allocation.owner)
