"""One budget of answers to strangers, for the pump and the rules, and what an address saves up of it."""

from __future__ import annotations

import asyncio

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink, new_request
from turnsvr.client.transaction import Timers
from turnsvr.client.turn import TurnClient
from turnsvr.limits import ANSWERS_SAVED
from turnsvr.relay import PumpKind
from turnsvr.stun import attributes as a
from turnsvr.stun.message import Method

AT_ONCE = 300


async def test_hundreds_of_clients_of_one_address_may_come_at_once(serve: Serve, pump_kind: PumpKind) -> None:
    application = await serve(pump={"kind": pump_kind}, limits={"allocations_per_user": AT_ONCE})
    server = address_of(application, "udp")
    never = Timers(rto=PATIENCE, rc=1, rm=1)
    clients = [TurnClient(await DatagramLink.open(server), Login(USER, PASSWORD), timers=never) for _ in range(AT_ONCE)]
    answers = await asyncio.gather(*(client.allocate() for client in clients))
    assert len(answers) == AT_ONCE
    assert {answer.sent for answer in answers} == {1}
    for client in clients:
        await client.close()


async def test_all_kinds_of_answer_spend_one_budget(serve: Serve, pump_kind: PumpKind) -> None:
    rate = 0.4
    application = await serve(pump={"kind": pump_kind}, limits={"answers_per_address": f"{rate * 60:g}/min"})
    link = await DatagramLink.open(address_of(application, "udp"))
    answered = 0

    def count(frame: bytes, source: object) -> None:
        nonlocal answered
        answered += 1

    link.handler = count
    for _ in range(5):
        for request in (
            new_request(Method.BINDING),
            new_request(Method.BINDING).add(a.SOFTWARE, "by the rules"),
            new_request(Method.ALLOCATE),
            new_request(Method.REFRESH),
        ):
            link.send(request.encode())
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)
    assert answered in (round(rate * ANSWERS_SAVED), round(rate * ANSWERS_SAVED) + 1)
    await link.close()
