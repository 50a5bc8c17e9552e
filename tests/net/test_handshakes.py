"""Handshakes of clients that do not go on, come in great number, or speak something else; and of OpenSSL's own."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl

import pytest
from structlog.testing import capture_logs

from tests.conftest import PATIENCE, Serve, address_of, need
from tests.net.test_streams import binding, connect, hang_up, insecure, read_message, until
from tests.net.test_streams import serve as serve  # noqa: PLC0414 - with each pump
from turnsvr.net import streams as streams_room
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address
from turnsvr.stun.message import Class, Message


def hello() -> bytes:
    """A whole ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        insecure().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("part", ["one byte", "half a ClientHello", "all of a ClientHello"])
async def test_a_handshake_that_nobody_finishes_has_an_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(streams_room, "_HANDSHAKE_TIMEOUT", 0.3)
    application = await serve()
    whole = hello()
    spoken = {"one byte": whole[:1], "half a ClientHello": whole[:60]}.get(part, whole)
    with capture_logs() as logs:
        connections = [await connect(address_of(application, "tls")) for _ in range(20)]
        for _, writer in connections:
            writer.write(spoken)
        for reader, _ in connections:
            async with asyncio.timeout(PATIENCE):
                while await reader.read(65_536):
                    pass
        await until(lambda: application.connections == 0)
    failures = [entry["reason"] for entry in logs if entry["event"] == "TLS handshake failed"]
    assert len(failures) == 20
    assert all("longer than 0.3 s" in reason for reason in failures)
    for connection in connections:
        await hang_up(connection)


@pytest.mark.parametrize(
    "spoken",
    [
        pytest.param(b"\x16GET / HTTP/1.1\r\n\r\n", id="no TLS behind its first byte"),
        pytest.param(b"\x16\x03\x01\xff\xff" + bytes(70_000), id="longer than a record may be"),
        pytest.param(b"\x16\x03\x01\x00\x04\x0e\x00\x00\x00", id="a message of a server"),
        pytest.param(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16_380), id="a message of 16 MiB"),
    ],
)
async def test_what_is_no_handshake_ends_that_connection_alone(serve: Serve, spoken: bytes) -> None:
    application = await serve()
    kept = await connect(address_of(application, "tls"), insecure())
    with capture_logs() as logs:
        bad = await connect(address_of(application, "tls"))
        bad[1].write(spoken)
        async with asyncio.timeout(PATIENCE):
            try:
                while await bad[0].read(65_536):
                    pass
            except ConnectionError:
                pass
        await until(lambda: application.connections == 1)
    assert [entry["event"] for entry in logs if entry["log_level"] != "debug"] == []
    assert [entry["event"] for entry in logs].count("TLS handshake failed") == 1
    kept[1].write(binding())
    assert (await read_message(kept[0])).message_class is Class.SUCCESS
    await hang_up(kept)
    await hang_up(bad)


async def test_a_handshake_that_comes_byte_by_byte(serve: Serve) -> None:
    """Its client sends no two bytes in one segment."""
    application = await serve()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = insecure().wrap_bio(incoming, outgoing)
    reader, writer = await connect(address_of(application, "tls"))
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send_all() -> None:
        for byte in outgoing.read():
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)

    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await send_all()
            incoming.write(await asyncio.wait_for(reader.read(65_536), PATIENCE))
    await send_all()
    request = binding()
    tls.write(request)
    await send_all()
    answer = b""
    while not answer:
        try:
            answer = tls.read(65_536)
        except ssl.SSLWantReadError:
            incoming.write(await asyncio.wait_for(reader.read(65_536), PATIENCE))
    assert Message.parse(answer).transaction_id == request[8:20]
    writer.transport.abort()


async def test_many_at_once(serve: Serve) -> None:
    application = await serve(limits={"connections_per_address": 400})
    connections = await asyncio.gather(*(connect(address_of(application, "tls"), insecure()) for _ in range(300)))
    for _, writer in connections:
        writer.write(binding() * 2)
    for reader, _ in connections:
        for _ in range(2):
            assert (await read_message(reader)).message_class is Class.SUCCESS
    assert application.connections == 300
    for connection in connections:
        await hang_up(connection)
    await until(lambda: application.connections == 0)


async def test_clients_that_leave_while_hands_are_shaken(serve: Serve) -> None:
    application = await serve()
    for cut in range(0, len(hello()), 16):
        _, writer = await connect(address_of(application, "tls"))
        writer.write(hello()[: cut + 1])
        writer.close()
    await until(lambda: application.connections == 0)


async def test_stop_while_hands_are_shaken(serve: Serve) -> None:
    application = await serve()
    connection = await connect(address_of(application, "tls"))
    connection[1].write(hello())
    assert (await asyncio.wait_for(connection[0].read(1), PATIENCE)) == b"\x16"
    await application.stop()
    async with asyncio.timeout(PATIENCE):
        while await connection[0].read(65_536):
            pass
    await hang_up(connection)


@pytest.mark.parametrize("where", ["tls", "https"])
@pytest.mark.parametrize("at_once", [0, 9], ids=["whole", "in two parts"])
async def test_hellos_that_come_together_are_answered_in_turns(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, where: str, at_once: int
) -> None:
    """Each has the server sign, on the loop that serves everybody: few of them in one turn of it."""
    application = await serve(web={"listen": "https://127.0.0.1:0"})
    assert application.web is not None
    port = application.web.listening[0].port if where == "https" else address_of(application, "tls").port
    steps, most = 0, 0
    shake_hands = ssl.SSLObject.do_handshake

    def counted(tls: ssl.SSLObject) -> None:
        nonlocal steps
        steps += 1
        shake_hands(tls)

    monkeypatch.setattr(ssl.SSLObject, "do_handshake", counted)
    whole, opened = hello(), [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    before = steps
    for each in opened:
        each.sendall(whole[:at_once])
    if at_once:
        await asyncio.sleep(0.2)
    for each in opened:
        each.sendall(whole[at_once:])
        each.setblocking(False)
    answered = 0
    async with asyncio.timeout(PATIENCE):
        while answered < len(opened):
            was = steps
            await asyncio.sleep(0)
            most = max(most, steps - was)
            answered = sum(is_readable(each) for each in opened)
    assert most <= 12
    assert steps >= before + len(opened) or (where == "tls" and application.rooms.streams.pump_context is not None)
    for each in opened:
        each.close()
    await until(lambda: application.connections == 0)


def is_readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


async def test_a_limit_on_ciphers_holds(serve: Serve, certificate: TlsFiles) -> None:
    tls = {
        "certificate": certificate.certificate,
        "key": certificate.key,
        "ciphers": "ECDHE-ECDSA-CHACHA20-POLY1305",
    }
    application = await serve(tls=tls)
    older = insecure(maximum=ssl.TLSVersion.TLSv1_2)
    streams = await connect(address_of(application, "tls"), older)
    assert streams[1].get_extra_info("ssl_object").cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"
    await hang_up(streams)
    older.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(address_of(application, "tls"), older)


async def test_a_minimum_version_holds(serve: Serve, certificate: TlsFiles) -> None:
    tls = {"certificate": certificate.certificate, "key": certificate.key, "minimum_version": "1.3"}
    application = await serve(tls=tls)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(address_of(application, "tls"), insecure(maximum=ssl.TLSVersion.TLSv1_2))
    await hang_up(await connect(address_of(application, "tls"), insecure()))


async def s_client(address: Address, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        need("openssl"),
        "s_client",
        "-connect",
        str(address),
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def read_until(client: asyncio.subprocess.Process, pattern: bytes) -> bytes:
    assert client.stdout is not None
    got = b""
    async with asyncio.timeout(PATIENCE):
        while not re.search(pattern, got, re.DOTALL):
            more = await client.stdout.read(65_536)
            assert more, got
            got += more
    return got


async def ask(client: asyncio.subprocess.Process) -> None:
    """A Binding request over s_client and the answer to it."""
    assert client.stdin is not None
    # No byte that s_client takes for a command or changes.
    request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + b"abcdefghijkl"
    client.stdin.write(request)
    await client.stdin.drain()
    await read_until(client, rb"\x01\x01..\x21\x12\xa4\x42abcdefghijkl")


async def end(client: asyncio.subprocess.Process) -> None:
    if client.returncode is None:
        client.kill()
    await client.communicate()


async def test_openssl_updates_keys(serve: Serve) -> None:
    application = await serve()
    client = await s_client(address_of(application, "tls"), "-tls1_3")
    assert client.stdin is not None
    await read_until(client, rb"Verify return code.*Verify return code|New, TLSv1\.3.*---\n")
    for _ in range(3):
        client.stdin.write(b"K\n")
        await client.stdin.drain()
        await read_until(client, b"KEYUPDATE")
        await ask(client)
    await end(client)
    await until(lambda: application.connections == 0)


async def test_nobody_renegotiates(serve: Serve) -> None:
    application = await serve()
    client = await s_client(address_of(application, "tls"), "-tls1_2")
    assert client.stdin is not None
    await read_until(client, rb"Verify return code.*---\n")
    await ask(client)
    client.stdin.write(b"R\n")
    await client.stdin.drain()
    await read_until(client, b"no renegotiation")
    await end(client)
    await until(lambda: application.connections == 0)
