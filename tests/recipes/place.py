"""A relay, Janus and its callers in a laboratory where the callers reach nobody but the relay; and one who publishes.

Packet filters see to it: nobody can send anything to anybody but the relay. Where Janus has no relay of its own, it is
reached as a public server is. Signalling is theirs to arrange: TCP to Janus's port passes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.client.coturn import PASSWORD, USER
from tests.conftest import PATIENCE
from tests.lab.conftest import turnsvr
from tests.lab.netlab import Node, laboratory, require
from tests.lab.routers import SERVERS_V4
from tests.recipes.janus import PORT as JANUS
from tests.recipes.janus import ROOM, attached, janus, offered, relayed_connection
from tests.recipes.media import Picture, Tone
from turnsvr.net.tls import TlsFiles

RELAY = SERVERS_V4[0]
TURN, TURNS, WEB = 3478, 5349, 8080
KEY, SECRET = "a key of Janus, long enough", "north of the wall, and cold"
URL = f"turn:{RELAY}:{TURN}"
OWN_RELAY = {
    "none": "",
    **{
        transport: f"""turn_server = "{RELAY}"
    turn_port = {port}
    turn_type = "{transport}"
    turn_user = "{USER}"
    turn_pwd = "{PASSWORD}" """
        for transport, port in (("udp", TURN), ("tcp", TURN), ("tls", TURNS))
    },
    "rest": f"""turn_rest_api = "http://{RELAY}:{WEB}/"
    turn_rest_api_key = "{KEY}"
    turn_rest_api_method = "GET" """,
}
"""Lines of Janus's section `nat`, by the way in which it has a relay of its own."""
TRIES = {"tcp": 3, "tls": 3}
"""Over TCP, libnice now and then fails to try the candidates that it is given; who has seen nothing joins again."""
A_TRY = 6.0
"""Seconds."""
ONLY_THE_RELAY = f"""table inet only_the_relay {{
  chain out {{
    type filter hook output priority 0; policy drop;
    oifname lo accept;
    tcp sport {JANUS} accept;
    tcp dport {JANUS} accept;
    ip daddr {RELAY} meta l4proto {{ tcp, udp }} th dport {{ {TURN}, {TURNS}, {WEB} }} accept;
  }}
}}"""


@dataclass(frozen=True)
class Place:
    """Janus and its host, its callers with their addresses, and where its recordings and the relay's records are."""

    api: str
    host: str
    server: Node
    callers: dict[str, Node]
    recordings: Path
    usage: Path

    def sessions(self) -> dict[str, list[dict[str, Any]]]:
        """The records of sessions that relayed anything, by the client's address; whole when the relay has ended."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in map(json.loads, self.usage.read_text().splitlines()):
            if record["packets_from_client"] or record["packets_to_client"]:
                found.setdefault(record["client"].rsplit(":", 1)[0], []).append(record)
        return found


@contextmanager
def place(directory: Path, certificate: TlsFiles, callers: int, own: str = "none") -> Iterator[Place]:
    require()
    for name in ("janus", "relay"):
        (directory / name).mkdir()
    settings: dict[str, Any] = {
        "listen": [f"udp://{RELAY}", f"tcp://{RELAY}", f"tls://{RELAY}"],
        "tls": {"certificate": str(certificate.certificate), "key": str(certificate.key)},
        "relay": {"addresses": [RELAY]},
        "credentials": {"users": {USER: PASSWORD}, "secret": SECRET},
        "web": {"listen": f"http://{RELAY}:{WEB}", "keys": [{"name": "janus", "key": KEY}]},
        "usage": {"file": str(directory / "usage")},
    }
    with laboratory() as lab, ExitStack() as stack:
        server, host = stack.enter_context(lab.host())
        nodes = {host: node for node, host in (stack.enter_context(lab.host()) for _ in range(callers))}
        for node in [*nodes.values(), *([] if own == "none" else [server])]:
            node.nft(ONLY_THE_RELAY)
        stack.enter_context(turnsvr(lab.core, directory / "relay", settings))
        api = stack.enter_context(janus(server, host, directory / "janus", OWN_RELAY[own]))
        yield Place(api, host, server, nodes, directory / "janus", directory / "usage")


class Publisher:
    """Publishes a tone of so many Hz, and pictures, from its own node until it is told that it is enough."""

    def __init__(self, node: Node, api: str, tone: int, *, tries: int = 1) -> None:
        """tries: how often it begins, at most, when it does not get through."""
        self._node, self._api, self._tone, self._tries = node, api, tone, tries
        self._feed: Future[int] = Future()
        self._enough = asyncio.Event()

    @contextmanager
    def publishing(self) -> Iterator[int]:
        """The number of its feed; in the end all is closed."""
        under_way = self._node.start(self._publish)
        try:
            either: list[Future[Any]] = [self._feed, under_way]
            wait(either, PATIENCE + self._tries * A_TRY, FIRST_COMPLETED)
            if under_way.done():
                under_way.result()
            yield self._feed.result(0)
        finally:
            self._node.run(self._end)
            under_way.result(PATIENCE)

    async def _publish(self) -> None:
        for _ in range(self._tries - 1):
            with suppress(TimeoutError):
                return await self._publish_once(A_TRY)
        await self._publish_once(PATIENCE)

    async def _publish_once(self, patience: float) -> None:
        async with attached(self._api, "janus.plugin.videoroom") as handle, relayed_connection(URL) as connection:
            connection.addTrack(Tone(self._tone))
            connection.addTrack(Picture())
            request = {"request": "joinandconfigure", "ptype": "publisher", "room": ROOM}
            joined, answer = await handle.ask(request, await offered(connection))
            assert answer is not None
            await connection.setRemoteDescription(answer)
            await handle.connected(patience)
            self._feed.set_result(joined["id"])
            await self._enough.wait()

    async def _end(self) -> None:
        self._enough.set()
