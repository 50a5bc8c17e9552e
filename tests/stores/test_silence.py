"""A database that takes connections and says nothing: the server is ready without it, after about one timeout."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import accepting
from turnsvr.config.credentialsettings import StoreSettings
from turnsvr.stores.client import StoreClient

TIMEOUT = 0.5
MOST = 3.0
"""Seconds on a machine that is busy; ten timeouts, as a list of all tables may take later on, are more."""


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "mysql"])
async def test_a_silent_database_delays_the_start_by_one_timeout(scheme: str) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with accepting(say_nothing) as port:
        url = f"{scheme}://turn:q2c8jd0s@127.0.0.1:{port}/0"
        client = StoreClient(StoreSettings.model_validate({"url": url, "timeout": TIMEOUT}), lambda: None)
        began = time.monotonic()
        try:
            await client.start()
            assert time.monotonic() - began < MOST
            assert not client.ready
        finally:
            await client.close(at_once=True)
