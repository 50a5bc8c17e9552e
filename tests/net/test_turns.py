"""Steps that strangers have the loop compute: few in one turn, and one source after the other."""

from __future__ import annotations

import asyncio
from functools import partial

from tests.conftest import PATIENCE, Serve, address_of
from tests.net.test_handshakes import hello
from tests.net.test_streams import binding, connect, hang_up, insecure, read_message, until
from tests.net.test_streams import serve as serve  # noqa: PLC0414 - with each pump
from turnsvr.net.turns import Turns
from turnsvr.stun.message import Class


async def turn_of_the_loop() -> None:
    await asyncio.sleep(0)


async def test_few_steps_in_one_turn() -> None:
    turns = Turns(asyncio.get_running_loop(), at_once=2)
    taken: list[object] = []
    for number in range(5):
        turns.ask(b"one", partial(taken.append, number))
    assert taken == []
    for after in ([0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        await turn_of_the_loop()
        assert taken == after


async def test_sources_take_turns() -> None:
    turns = Turns(asyncio.get_running_loop(), at_once=1)
    taken: list[object] = []
    for number in range(100):
        turns.ask(b"many", partial(taken.append, f"many {number}"))
    turns.ask(b"few", partial(taken.append, "few"))
    turns.ask(b"other", partial(taken.append, "other"))
    for _ in range(4):
        await turn_of_the_loop()
    assert taken == ["many 0", "few", "other", "many 1"]


async def test_what_is_asked_for_as_the_first_passes_all_others_and_has_every_second_step() -> None:
    turns = Turns(asyncio.get_running_loop(), at_once=1)
    taken: list[object] = []
    for number in range(50):
        turns.ask(bytes([number]), partial(taken.append, number))
    for number in range(3):
        turns.ask(b"probes", partial(taken.append, f"probe {number}"), first=True)
    turns.ask(b"another", partial(taken.append, "another"), first=True).cancel()
    turns.ask(b"a third", partial(taken.append, "a third"), first=True)
    for _ in range(9):
        await turn_of_the_loop()
    assert taken == ["probe 0", 0, "a third", 1, "probe 1", 2, "probe 2", 3, 4]


async def test_what_comes_first_takes_all_steps_where_nothing_else_waits() -> None:
    turns = Turns(asyncio.get_running_loop(), at_once=2)
    taken: list[object] = []
    for number in range(4):
        turns.ask(b"probes", partial(taken.append, number), first=True)
    await turn_of_the_loop()
    turns.ask(b"another", partial(taken.append, "another"))
    await turn_of_the_loop()
    assert taken == [0, 1, "another", 2]


async def test_who_asks_in_his_own_step_gets_no_more_of_the_next_turn_than_there_is() -> None:
    turns = Turns(asyncio.get_running_loop(), at_once=1)
    taken: list[object] = []

    def ask_for_two() -> None:
        for number in range(2):
            turns.ask(b"one", partial(taken.append, number))

    turns.ask(b"one", ask_for_two)
    await turn_of_the_loop()
    assert taken == []
    await turn_of_the_loop()
    assert taken == [0]


async def test_what_is_cancelled_takes_no_turn() -> None:
    turns = Turns(asyncio.get_running_loop(), at_once=1)
    taken: list[object] = []
    steps = [turns.ask(b"one", partial(taken.append, number)) for number in range(50)]
    for step in steps[:-1]:
        step.cancel()
    await turn_of_the_loop()
    assert taken == [49]


async def test_a_step_that_asks_again_or_fails_stops_nobody() -> None:
    turns = Turns(asyncio.get_running_loop(), at_once=1)
    taken: list[object] = []
    loop = asyncio.get_running_loop()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def fail() -> None:
        raise ValueError

    turns.ask(b"one", lambda: turns.ask(b"one", partial(taken.append, "again")))
    turns.ask(b"two", fail)
    turns.ask(b"three", partial(taken.append, "three"))
    for _ in range(4):
        await turn_of_the_loop()
    loop.set_exception_handler(None)
    assert taken == ["three", "again"]
    assert len(failures) == 1


async def test_hands_are_shaken_with_others_while_one_source_has_hundreds_at_once(serve: Serve) -> None:
    application = await serve(limits={"connections_per_address": 200})
    flood = [await connect(address_of(application, "tls")) for _ in range(190)]
    await until(lambda: application.connections == 190)
    for _, writer in flood:
        writer.write(hello())
    stranger = asyncio.open_connection(*address_of(application, "tls"), ssl=insecure(), local_addr=("127.8.0.1", 0))
    streams = await asyncio.wait_for(stranger, PATIENCE)
    streams[1].write(binding())
    assert (await read_message(streams[0])).message_class is Class.SUCCESS
    await hang_up(streams)
    for each in flood:
        await hang_up(each)
    await until(lambda: application.connections == 0)


async def test_a_connection_that_ends_before_its_turn_leaves_nothing(serve: Serve) -> None:
    application = await serve()
    flood = [await connect(address_of(application, "tls")) for _ in range(100)]
    for streams in flood:
        streams[1].write(hello())
        streams[1].transport.abort()
    await until(lambda: application.connections == 0)


async def test_the_server_stops_while_steps_wait(serve: Serve) -> None:
    application = await serve()
    flood = [await connect(address_of(application, "tls")) for _ in range(100)]
    for _, writer in flood:
        writer.write(hello())
    await until(lambda: application.connections == 100)
    await application.stop()
    assert application.connections == 0
    for each in flood:
        await hang_up(each)
