"""Calls that block, made in threads that are waited for no longer than wanted, and not when the process ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], seconds: float, give_up: Callable[[], None] = lambda: None) -> T:
    """What work() returns or raises, within so many seconds.

    Raises TimeoutError after that, and calls give_up(), which may make work() end sooner.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(done: Callable[[], None]) -> None:
        if not answer.done():
            done()

    def run() -> None:
        try:
            done = partial(answer.set_result, work())
        except Exception as error:
            done = partial(answer.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, done)

    threading.Thread(target=run, name="look-up", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            return await answer
    finally:
        if not answer.done() or answer.cancelled():
            give_up()
