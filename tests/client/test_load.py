"""`turnsvr bench` against real servers: ours and one that nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from tests.client.conftest import LOGIN, TRANSPORTS, Target
from tests.client.load_world import core
from tests.conftest import Serve, address_of
from turnsvr.client import load, load_flows
from turnsvr.client.load import Direction, Shape, Wrap
from turnsvr.relay import refuses_dtls
from turnsvr.stun.address import Transport


def url(target: Target, transport: Transport) -> str:
    address = target.plain[transport]
    scheme = "turns" if transport is Transport.TLS else "turn"
    return f"{scheme}:{address}?transport={'udp' if transport is Transport.UDP else 'tcp'}"


async def run(target: Target, transport: Transport = Transport.UDP, **options: Any) -> int:
    """In a thread, for our server runs in this loop. Slow and steady, so that nothing is lost on a busy machine."""
    usual = {"flows": 3, "size": 160, "rate": 200.0, "seconds": 0.5, "peer_host": "127.0.0.1", "json": True}
    address = url(target, transport)
    return await asyncio.to_thread(load.run, address, LOGIN.username, LOGIN.password, **{**usual, **options})


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON on standard output, among what our server, which runs in this process, may log there."""
    out = capsys.readouterr().out
    return json.JSONDecoder().raw_decode(out, out.index("{\n"))[0]


@pytest.fixture(params=["_load", "load_plain"], autouse=True)
def _core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_flows, "exchange", core(request.param))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("wrap", Wrap)
async def test_what_is_sent_arrives(
    target: Target, transport: Transport, direction: Direction, wrap: Wrap, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(target, transport, direction=direction, wrap=wrap) == 0
    said = printed(capsys)
    assert said["traffic"]["transport"] == transport.value
    (step,) = said["steps"]
    assert step["delivered"] == step["sent"] > 0
    assert step["loss"] == 0
    assert 0 < step["latency_p50"] <= step["latency_p99"]


@pytest.mark.skipif(bool(refuses_dtls("auto")), reason=refuses_dtls("auto"))
@pytest.mark.parametrize("wrap", Wrap)
async def test_over_dtls(serve: Serve, wrap: Wrap, capsys: pytest.CaptureFixture[str]) -> None:
    application = await serve(listen=["dtls://127.0.0.1:0"])
    url = f"turns:{address_of(application, 'dtls')}?transport=udp"
    options: dict[str, Any] = {"rate": 200.0, "seconds": 0.3, "peer_host": "127.0.0.1", "json": True, "wrap": wrap}
    for direction in Direction:
        measured = asyncio.to_thread(
            load.run, url, LOGIN.username, LOGIN.password, flows=2, size=160, direction=direction, **options
        )
        assert await measured == 0
        said = printed(capsys)
        (step,) = said["steps"]
        assert said["traffic"]["transport"] == "dtls"
        assert step["delivered"] == step["sent"] > 0
    if wrap is Wrap.CHANNEL:
        assert await asyncio.to_thread(load.run, url, LOGIN.username, LOGIN.password, size=161, **options) == 1


@pytest.mark.parametrize("shape", [Shape.BURSTS, Shape.TRAINS])
async def test_bursts_and_trains_arrive(target: Target, shape: Shape, capsys: pytest.CaptureFixture[str]) -> None:
    for direction in Direction:
        assert await run(target, shape=shape, direction=direction) == 0
        (step,) = printed(capsys)["steps"]
        assert step["delivered"] == step["sent"] > 0


async def test_the_table_says_what_arrived(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(target, json=False) == 0
    out = capsys.readouterr().out
    assert ["offered/s", "delivered/s", "loss", "%", "p50", "ms", "p99", "ms"] in map(str.split, out.splitlines())
    assert "most that arrived" in out
    assert "3 allocations, clients to peers, singles of 160 bytes, ChannelData over UDP" in out
    assert re.search(r"^Delivered: [1-9]\d* packets/s, 0\.\d Mbit/s of payload$", out, re.MULTILINE)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_refused_peer_is_named_with_its_remedy_and_nothing_stays_allocated(
    serve: Serve, transport: Transport, capsys: pytest.CaptureFixture[str]
) -> None:
    application = await serve(peers={"allow": []}, relay={"addresses": ["127.0.0.2"]})
    target = Target(True, {transport: address_of(application, transport.value)})
    assert await run(target, transport, flows=8) == 1
    said = capsys.readouterr().err
    assert "403" in said
    assert "refuses 127.0.0.1, this machine, as a peer; allow it with peers.allow" in said
    async with asyncio.timeout(5):
        while len(application.server):  # noqa: ASYNC110 - the packets that end them are on their way
            await asyncio.sleep(0.01)


async def test_peers_at_the_servers_own_relay_address_are_named(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """There it lets other clients' relays be reached, and no other port; which setting would open it is said."""
    application = await serve(peers={"allow": []})
    assert await run(Target(True, {Transport.UDP: address_of(application, "udp")})) == 1
    said = capsys.readouterr().err
    assert "CHANNEL_BIND was refused: 403 Forbidden" in said
    assert "peers.allow" in said


async def test_wrong_credentials_are_one_line(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    address = url(target, Transport.UDP)
    status = await asyncio.to_thread(load.run, address, LOGIN.username, "wrong", flows=1, peer_host="127.0.0.1")
    said = capsys.readouterr()
    assert status == 1
    assert "delivered/s" not in said.out
    assert "ALLOCATE was refused: 401" in said.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("address", "options", "text"),
    [
        ("turn:127.0.0.1:9", {}, "nothing serves there"),
        ("turn:127.0.0.1:9?transport=tcp", {}, "refused"),
        ("stun:127.0.0.1", {}, "relays nothing"),
        ("http://127.0.0.1", {}, "is no server"),
        ("turn:127.0.0.1:9", {"flows": 0}, "flows go from 1"),
        ("turn:127.0.0.1:9", {"rate": -1.0}, "must be a positive number"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    address: str, options: dict[str, Any], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.run(address, "alice", "wonderland", **options) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert text in said.err.splitlines()[-1]
