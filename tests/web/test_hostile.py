"""Whatever is sent to the web and admin listeners: an answer of 2xx to 4xx, or an intended 503, and no trace-back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import PATIENCE, ServerProcess, free_port

KEY = "a key of the shop, long enough"
TOKEN = "open sesame, open sesame"
NASTY = [
    b"",
    b" ",
    b"\x00",
    b"\xff\xfe",
    b"http://[",
    b"http://[::1",
    b"http://]",
    b"[",
    b"[::1",
    b"::1",
    b"%",
    b"%00",
    b"%ff",
    b"%ed%a0%80",
    b"%2e%2e%2f",
    b"null",
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e400",
    b"9" * 5_000,
    b"9" * 20,
    b"0x10",
    b"\t",
    b"a" * 9_000,
    b"http://a:99999999",
    b"http://a:b",
    b"//",
    b"*",
    b",",
    b";",
    b"=",
    b"&",
    b"a=b=c",
    b'"',
    b"\\",
    b"\x7f",
    b"\x01",
    "\u2028".encode(),
    "\U0001f40d".encode(),
    b"Bearer",
    b"Basic",
    b"Bearer ",
    b"Basic \xff",
    b"Basic =",
    b"Basic Og==",
    b"Basic " + base64.b64encode(b"\xff\xfe:\xff"),
    b"Basic " + base64.b64encode(b"nocolon"),
    b"AWS4-HMAC-SHA256",
    b"AWS4-HMAC-SHA256 Credential=shop/20261127/a/b/aws4_request, SignedHeaders=host, Signature=" + b"0" * 64,
    b"AWS4-HMAC-SHA256 Credential=shop/99999999/a/b/aws4_request, SignedHeaders=host;host, Signature=" + b"f" * 64,
    b"[::ffff:1.2.3.4%eth0]",
    b"1.2.3.4, , [",
    b'for="[::1"',
    b"unknown",
    b"_hidden",
    b"%" * 100,
    b"\xe2\x28\xa1",
]
"""Values that parsers stumble over."""

HEADERS = [
    b"Host",
    b"Origin",
    b"Authorization",
    b"Forwarded",
    b"X-Forwarded-For",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Host",
    b"Content-Type",
    b"Content-Encoding",
    b"Cookie",
    b"If-None-Match",
    b"Accept-Encoding",
    b"X-Amz-Date",
    b"Upgrade",
    b"Connection",
    b"Expect",
    b"Range",
    b"Access-Control-Request-Method",
    b"Access-Control-Request-Headers",
    b"Sec-WebSocket-Key",
    b"Sec-WebSocket-Version",
    b"Sec-WebSocket-Protocol",
    b"Sec-WebSocket-Extensions",
    b"Transfer-Encoding",
    b"Content-Length",
    b"TE",
]

TARGETS = [
    b"/",
    b"/?service=turn&username=%s&key=%s",
    b"/ice-servers?user=%s&ttl=%s&key=%s",
    b"/ice-servers/%s?key=%s",
    b"/2010-04-01/Accounts/%s/Tokens.json",
    b"/v1/turn/keys/%s/credentials/generate-ice-servers",
    b"/v1/turn/keys/%s/credentials/generate",
    b"/v1/turn/keys/%s/credentials/%s/revoke",
    b"/api/v1/turn/credentials?apiKey=%s",
    b"/_turn/%s?k=%s",
    b"/v1/get-ice-server-config",
    b"/_matrix/client/v3/voip/turnServer?access_token=%s",
    b"/healthz?%s",
    b"/readyz",
    b"/metrics",
    b"/page.json",
    b"/docs",
    b"/static/%s",
    b"/favicon.ico",
    b"/openapi.json",
    b"/signalling",
    b"/socket.io/?EIO=4&transport=polling&%s=1",
    b"/socket.io/?EIO=%s&transport=%s",
    b"/socket.io/?EIO=4&transport=polling&sid=%s",
    b"/socket.io/?EIO=4&transport=polling&j=%s",
    b"/socket.io/?EIO=4&transport=websocket&sid=%s",
    b"/socket.io/?EIO=4&transport=websocket",
    b"/socket.io",
    b"/socket.io/%s",
    b"%s",
    b"http://a/%s",
    b"*",
]
ADMIN = [
    b"/status",
    b"/sessions?user=%s&realm=%s&client=%s",
    b"/sessions?relayed=%s&peer=%s&search=%s&sort=%s&limit=%s",
    b"/sessions?cursor=%s",
    b"/sessions?sort=age&cursor=%s&detail=%s",
    b"/sessions/%s",
    b"/log-level",
    b"/openapi.json",
    b"/%s",
]
CURSOR_VALUES: list[object] = [
    ["age", "text", 1],
    ["age", 1e308, 10**400],
    ["id", 0, 2**70],
    ["user", "\ud800", 1],
    [],
    {},
    1,
    ["age", None, 1],
    ["age", True, True],
]
CURSORS = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in CURSOR_VALUES]
BODIES = [
    b"",
    b"{",
    b"[]",
    b"1",
    b"null",
    b"{}",
    b'{"ttl": 1e999}',
    b'{"ttl": -1}',
    b'{"ttl": "NaN"}',
    b'{"ttl": [1]}',
    b'{"ttl": ' + b"9" * 5_000 + b"}",
    b'{"customIdentifier": {"a": "\\ud800"}}',
    b'{"customIdentifier": "\\ud800"}',
    b'{"customIdentifier": "\\u0000"}',
    b'{"expire": true}',
    b'{"format": [], "k": "\\udfff"}',
    b'{"Service": [], "Username": "\\ud800"}',
    b'{"Username": "\\ud800"}',
    b'{"ClientId": 5}',
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b"\xff\xfe",
    b"\x00",
    b"Ttl=\xff",
    b"Ttl=nan&Ttl=1",
    b"Ttl=inf",
    b"&" * 5_000,
    b"Ttl=%ff%00",
    b'{"level": "debug", "for": "9999999999999999999h"}',
    b'{"level": 1}',
    b'{"level": "debug", "for": 1e400}',
    b'{"level": "\\ud800"}',
    b'{"level": "info", "for": {"a": 1}}',
    b'{"level": "info", "for": "' + b"9" * 5_000 + b's"}',
    b"a" * 70_000,
]
METHODS = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"TRACE",
    b"CONNECT",
    b"get",
    b"PRI",
    b"X" * 50,
]
PACKETS = [
    b"",
    b"4",
    b"40",
    b"41",
    b"42",
    b"43",
    b"44",
    b"45",
    b"46",
    b"47",
    b"4x",
    b"x",
    b"0",
    b"1",
    b"2",
    b"2probe",
    b"3",
    b"5",
    b"6",
    b"7",
    b"9",
    b"b",
    b"bAAAA",
    b"b=",
    b"40/",
    b"40/x,",
    b"40/,{}",
    b'40{"a":1}',
    b"42[]",
    b"42{}",
    b"421",
    b'42"join"',
    b"42[1]",
    b"42[null]",
    b'42[["join"]]',
    b'42[{"a":1}]',
    b'42["join"]',
    b'42["join",1,2,3]',
    b'42["join",{"room":"\\ud800"}]',
    b'42["join",{"room":[]}]',
    b'42["offer",{"a":1e999}]',
    b'42["offer",{"a":NaN}]',
    b'42["connect"]',
    b'42["disconnect"]',
    b'42["disconnect","a","b"]',
    b'421["join",{}]',
    b"42" + b"1" * 200 + b'["join"]',
    b"431[]",
    b"43",
    b"43999[]",
    b"451-[]",
    b"45-1[]",
    b'451-["join",{"_placeholder":true,"num":0}]',
    b"4" + b"[" * 20_000,
    b"42" + b"[" * 20_000,
    b"\x1e" * 100,
    b"\x1e",
    b"d=",
    b"d=4",
    b"d",
    b"\xff\xfe",
    b"4\xff",
    '42["\u0661"]'.encode(),
    "\u0664".encode(),
    "4\u0662[]".encode(),
    b'42["__proto__",{}]',
    b'42["*",{}]',
]
PLAIN = [
    b"",
    b"{",
    b"[]",
    b"1",
    b'{"type":1}',
    b'{"type":[]}',
    b'{"type":{}}',
    b'{"type":"join","room":1}',
    b'{"type":"join","room":[]}',
    b'{"type":"offer","to":[]}',
    b'{"type":"offer","to":{}}',
    b'{"type":"join"}',
    b'{"type":"offer","a":1e999}',
    b'{"type":"offer","a":NaN}',
    b'{"type":"offer","a":"\\ud800","from":1}',
    b"[" * 20_000,
    b'{"type":"join","room":"\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800"}',
    b"\xff\xfe",
    b"9" * 5_000,
    b'{"a":' * 5_000,
]


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("turn", "web", "admin")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[ServerProcess]:
    text = f"""
realm: example.org
listen: [udp://127.0.0.1:{ports["turn"]}]
relay: {{addresses: [127.0.0.1]}}
credentials: {{secret: "north of the wall, north of the wall"}}
log: {{level: debug}}
web:
  listen: "http://127.0.0.1:{ports["web"]}"
  keys: [{{name: shop, key: "{KEY}"}}]
  public: true
  requests_per_address: 0
  requests_per_key: 0
  trusted_proxies: 127.0.0.1
  connections: 4000
  connections_per_address: 3000
  signalling: {{sessions_per_address: 3000, messages: 0}}
admin: {{listen: "http://127.0.0.1:{ports["admin"]}", token: "{TOKEN}"}}
"""
    with ServerProcess(text, tmp_path_factory.mktemp("hostile")) as process:
        yield process


@pytest.fixture(autouse=True)
def no_traceback(server: ServerProcess) -> Iterator[None]:
    yield
    assert "Traceback" not in server.log, server.log[server.log.index("Traceback") - 500 :][:3_000]
    assert server.process.poll() is None


async def statuses(port: int, raw: bytes) -> list[int]:
    """Of every answer to these bytes, after which the client says no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    came = b""
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            writer.write(raw)
            async with asyncio.timeout(PATIENCE):
                while b"\r\n\r\n" not in came and (more := await reader.read(65_536)):
                    came += more
    finally:
        writer.transport.abort()
    return [int(line.split()[1]) for line in came.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def request(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes, *, chunked: bool = False
) -> bytes:
    names = {name.lower() for name, _ in headers}
    if b"host" not in names:
        headers = [(b"Host", b"127.0.0.1"), *headers]
    if chunked:
        headers, body = (
            [*headers, (b"Transfer-Encoding", b"chunked")],
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n",
        )
    elif body and not names & {b"content-length", b"transfer-encoding"}:
        headers = [*headers, (b"Content-Length", str(len(body)).encode())]
    head = b"".join(b"%s: %s\r\n" % each for each in [*headers, (b"Connection", b"close")])
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, target, head, body)


def fine(found: list[int]) -> bool:
    """No answer is an answer, too: the connection was closed, or waits for the rest."""
    return all(status < 500 or status == 503 for status in found)


def filled(draw: random.Random, target: bytes) -> bytes:
    while b"%s" in target:
        value = draw.choice([*NASTY, *CURSORS])
        target = target.replace(b"%s", value if draw.random() < 0.3 else quoted(value), 1)
    return target


def quoted(value: bytes) -> bytes:
    return b"".join(bytes([each]) if chr(each).isalnum() and each < 128 else b"%%%02x" % each for each in value)


async def all_fine(port: int, requests: list[bytes]) -> None:
    gate = asyncio.Semaphore(16)

    async def one(raw: bytes) -> None:
        async with gate:
            found = await statuses(port, raw)
            assert fine(found), (found, raw[:600])

    await asyncio.gather(*map(one, requests))


async def test_every_header_with_every_value(server: ServerProcess, ports: dict[str, int]) -> None:
    draw = random.Random(1)
    requests = []
    for name, value in itertools.product(HEADERS, NASTY):
        body = draw.choice(BODIES[:8])
        waits = name.lower() in (b"content-length", b"transfer-encoding", b"expect")
        target = (
            b"/healthz"
            if waits
            else draw.choice(
                [
                    b"/ice-servers",
                    b"/",
                    b"/metrics",
                    b"/socket.io/?EIO=4&transport=polling",
                    b"/v1/get-ice-server-config",
                ]
            )
        )
        raw = request(draw.choice([b"GET", b"POST", b"OPTIONS"]), target, [(name, value)], body)
        requests.append(raw + b"\r\n" * 9 if waits else raw)
    await all_fine(ports["web"], requests)


async def test_every_target_with_every_method(server: ServerProcess, ports: dict[str, int]) -> None:
    draw = random.Random(2)
    keyed = [(b"Authorization", b"Bearer " + KEY.encode())]
    basic = [(b"Authorization", b"Basic " + base64.b64encode(b"a:" + KEY.encode()))]
    requests = [
        request(
            method,
            filled(draw, target),
            draw.choice([keyed, basic, []]),
            draw.choice(BODIES),
            chunked=draw.random() < 0.3,
        )
        for target, method in itertools.product(TARGETS * 3, METHODS)
        if not (method == b"GET" and target.startswith(b"/socket.io/?EIO=4&transport=polling&sid"))
    ]
    await all_fine(ports["web"], requests)


async def test_every_body(server: ServerProcess, ports: dict[str, int]) -> None:
    basic = (b"Authorization", b"Basic " + base64.b64encode(b"a:" + KEY.encode()))
    bearer = (b"Authorization", b"Bearer " + KEY.encode())
    places = [
        (b"POST", b"/2010-04-01/Accounts/a/Tokens.json", basic),
        (b"POST", b"/v1/turn/keys/a/credentials/generate-ice-servers", bearer),
        (b"PUT", b"/_turn/a", basic),
        (b"POST", b"/v1/get-ice-server-config", bearer),
    ]
    await all_fine(
        ports["web"],
        [
            request(method, target, [authorization], body, chunked=chunked)
            for (method, target, authorization), body, chunked in itertools.product(places, BODIES, (False, True))
        ],
    )


async def test_the_admin_interface(server: ServerProcess, ports: dict[str, int]) -> None:
    draw = random.Random(3)
    token = (b"Authorization", b"Bearer " + TOKEN.encode())
    targets = [
        request(method, filled(draw, target), [token], draw.choice(BODIES))
        for target, method in itertools.product(ADMIN * 4, METHODS[:7])
    ]
    headers = [
        request(b"GET", b"/log-level", [(name, value)], b"") for name, value in itertools.product(HEADERS[:8], NASTY)
    ]
    bodies = [request(b"PUT", b"/log-level", [token], body) for body in BODIES]
    cursors = [request(b"GET", b"/sessions?sort=age&cursor=" + cursor, [token], b"") for cursor in CURSORS]
    await all_fine(ports["admin"], [*headers, *bodies, *cursors, *targets])


@pytest.mark.parametrize("origin", [b"http://[", b"http://]", b"http://[::1", b"https://\xff", b"://", b"http://a:b"])
async def test_an_origin_that_is_none_is_refused(server: ServerProcess, ports: dict[str, int], origin: bytes) -> None:
    for target in (b"/socket.io/?EIO=4&transport=polling", b"/socket.io/?EIO=4&transport=websocket", b"/signalling"):
        upgrade = [] if b"polling" in target else UPGRADE
        found = await statuses(ports["web"], request(b"GET", target, [(b"Origin", origin), *upgrade], b""))
        assert found, target
        assert all(400 <= status < 500 for status in found)


UPGRADE = [
    (b"Upgrade", b"websocket"),
    (b"Connection", b"Upgrade"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"A" * 22 + b"=="),
]


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    """As clients send it, masked with zeros."""
    first = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        return first + bytes([0x80 | len(payload)]) + bytes(4) + payload
    return first + bytes([0xFE]) + len(payload).to_bytes(2, "big") + bytes(4) + payload


@contextlib.asynccontextmanager
async def websocket(port: int, target: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = b"".join(b"%s: %s\r\n" % each for each in [(b"Host", b"a"), *UPGRADE])
        writer.write(b"GET %s HTTP/1.1\r\n%s\r\n" % (target, head))
        assert b" 101 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        yield reader, writer
    finally:
        writer.transport.abort()


async def say(port: int, target: bytes, frames: list[bytes]) -> None:
    """Frames on a WebSocket of their own, and half a second's answers at most."""
    async with websocket(port, target) as (reader, writer):
        with contextlib.suppress(ConnectionError, TimeoutError):
            for each in frames:
                writer.write(each)
                await writer.drain()
            async with asyncio.timeout(0.3):
                while await reader.read(65_536):
                    pass


ODD_FRAMES = [
    frame(b"\xff\xfe"),
    frame(b"a" * 60_000, 2),
    frame(b"", 9),
    frame(b"a" * 126, 9),
    frame(b"", 8),
    frame(b"\x00", 8),
    frame(b"\x03\xe8\xff", 8),
    frame(b"\x00\x01", 8),
    frame(b"", 3),
    frame(b"", 0),
    frame(b"a", 1, fin=False) + frame(b"b", 1),
    b"\xf1\x80" + bytes(4),
    b"\x81\x00",
    b"\x81\xff" + b"\xff" * 8 + bytes(4),
    frame(b"", 1, fin=False) + frame(b"", 0, fin=False) * 3_000,
    frame(b"\xe2", 1, fin=False) + frame(b"\x28\xa1", 0),
]


@pytest.mark.parametrize("target", [b"/signalling", b"/socket.io/?EIO=4&transport=websocket"])
async def test_websockets(server: ServerProcess, ports: dict[str, int], target: bytes) -> None:
    texts = [*PLAIN, *PACKETS]
    gate = asyncio.Semaphore(16)

    async def one(frames: list[bytes]) -> None:
        async with gate:
            await say(ports["web"], target, frames)

    member = frame(b'{"type":"join"}' if target == b"/signalling" else b"40")
    sayings = (
        [[member, frame(each), frame(each, 2)] for each in texts]
        + [[frame(each)] for each in texts]
        + [[each] for each in ODD_FRAMES]
    )
    await asyncio.gather(*map(one, sayings))


async def polling(port: int) -> bytes:
    """The sid of a new session."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(b"GET", b"/socket.io/?EIO=4&transport=polling", [], b""))
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    await writer.wait_closed()
    found = re.search(rb'"sid":"([^"]+)"', answer)
    assert found, answer
    return found[1]


async def test_long_polling(server: ServerProcess, ports: dict[str, int]) -> None:
    port = ports["web"]
    for packet in PACKETS:
        session = b"/socket.io/?EIO=4&transport=polling&sid=" + await polling(port)
        for body in (b"40", packet, packet + b"\x1e" + packet):
            for chunked in (False, True):
                found = await statuses(port, request(b"POST", session, [], body, chunked=chunked))
                assert found, packet
                assert fine(found), (found, packet)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"PUT"])
async def test_whoever_leaves_before_engine_io_reads(
    server: ServerProcess, ports: dict[str, int], method: bytes
) -> None:
    said = request(method, b"/socket.io/?EIO=4&transport=polling", [], b"")
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", ports["web"])) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(said)
    assert await statuses(ports["web"], request(b"GET", b"/healthz", [], b"")) == [200]


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"PUT", b"OPTIONS"])
async def test_only_a_get_upgrades(server: ServerProcess, ports: dict[str, int], method: bytes) -> None:
    head = b"".join(b"%s: %s\r\n" % each for each in [(b"Host", b"a"), *UPGRADE])
    for target in (b"/signalling", b"/socket.io/?EIO=4&transport=websocket", b"/healthz"):
        assert await statuses(ports["web"], b"%s %s HTTP/1.1\r\n%s\r\n" % (method, target, head)) == [400]


async def test_an_upgrade_of_a_session_that_says_nonsense(server: ServerProcess, ports: dict[str, int]) -> None:
    port = ports["web"]
    for packet in (b"", b"x", b"2", b"2probe", b"5", b"4", b"\xff", b"[" * 1_000):
        sid = await polling(port)
        await say(port, b"/socket.io/?EIO=4&transport=websocket&sid=" + sid, [frame(packet), frame(packet)])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    line=st.binary(max_size=60),
    headers=st.lists(
        st.tuples(st.sampled_from(HEADERS), st.one_of(st.sampled_from(NASTY), st.binary(max_size=40))), max_size=6
    ),
    body=st.one_of(st.sampled_from(BODIES), st.binary(max_size=200)),
    target=st.sampled_from(TARGETS + ADMIN),
    method=st.sampled_from(METHODS),
    raw=st.booleans(),
)
def test_made_up_requests(
    server: ServerProcess,
    ports: dict[str, int],
    line: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    target: bytes,
    method: bytes,
    *,
    raw: bool,
) -> None:
    filled_target = filled(random.Random(len(line)), target)
    text = line + b"\r\n\r\n" if raw else request(method, filled_target, headers, body)

    async def both() -> None:
        for port in (ports["web"], ports["admin"]):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    assert fine(await statuses(port, text)), text

    asyncio.run(both())
    assert "Traceback" not in server.log


async def test_health_is_fine_after_all_of_it(server: ServerProcess, ports: dict[str, int]) -> None:
    assert await statuses(ports["web"], request(b"GET", b"/healthz", [], b"")) == [200]
