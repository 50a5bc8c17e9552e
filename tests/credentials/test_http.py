"""A client of web services that stays usable, whatever becomes of its requests."""

from __future__ import annotations

import asyncio

import httpx

from tests.credentials.service import Request, Service, answer
from turnsvr.credentials.http import HttpClient, read_bounded

_MAX_BYTES = 100
_MOMENTS = 60
"""Turns of the loop, more than a request on loopback takes."""


async def get(client: HttpClient, url: str) -> bytes:
    async with client.stream("GET", httpx.URL(url)) as response:
        return await read_bounded(response, _MAX_BYTES)


async def test_a_request_that_is_given_up_at_any_moment_leaves_the_next_one_a_connection(service: Service) -> None:
    async def respond(request: Request) -> bytes:
        return answer(200, b"here")

    service.respond = respond  # type: ignore[method-assign]
    client = HttpClient(1.0, connections=1)
    for moment in range(_MOMENTS):
        given_up = asyncio.create_task(get(client, service.url))
        for _ in range(moment):
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert await get(client, service.url) == b"here"
    await client.aclose()


async def test_giving_up_disturbs_no_request_beside(service: Service) -> None:
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def respond(request: Request) -> bytes:
        begun.release()
        await go_on.wait()
        return answer(200, b"here")

    service.respond = respond  # type: ignore[method-assign]
    client = HttpClient(30.0, connections=2)
    requests = [asyncio.create_task(get(client, service.url)) for _ in range(2)]
    for _ in requests:
        await begun.acquire()
    requests[0].cancel()
    await asyncio.wait(requests[:1])
    go_on.set()
    assert await requests[1] == b"here"
    await client.aclose()
