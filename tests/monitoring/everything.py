"""A server on which every figure of /metrics has a value."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import httpx

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of, free_port
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TurnClient
from turnsvr.config.locations import StoreUrl
from turnsvr.stores import open_store


async def all_metrics(serve: Serve, directory: Path) -> str:
    """Its /metrics, after a session, a failed authentication and a request for credentials."""
    database = f"sqlite:{directory / 'users.sqlite'}"
    store = open_store(StoreUrl.parse(database), PATIENCE)
    await store.prepare()
    await store.close()
    application = await serve(
        credentials={"users": {USER: PASSWORD}, "secret": "north of the wall", "store": {"url": database}},
        status={"redis": f"redis://127.0.0.1:{free_port()}"},
        usage={
            "url": f"http://127.0.0.1:{free_port()}/usage",
            "secret": "south of the river",
            "spool": directory / "spool",
        },
        web={"listen": "http://127.0.0.1:0", "public": True},
    )
    for name, password in ((USER, PASSWORD), ("mallory", PASSWORD)):
        client = TurnClient(await DatagramLink.open(address_of(application, "udp")), Login(name, password))
        with suppress(TransactionFailed):
            await client.allocate()
            await client.refresh(0)
        await client.close()
    assert application.web is not None
    url = str(application.web.listening[0])
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.get("/ice-servers")).status_code == 200
        return (await http.get("/metrics")).text
