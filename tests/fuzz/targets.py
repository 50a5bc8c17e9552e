"""What is fuzzed: functions that take any bytes, and raise only when they have found something."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.fuzz.dtls import dtls_pump
from tests.fuzz.joined import joined_connections
from tests.turn.world import OTHER_PEER, PEER, REALM, Client, Style, World, raw
from turnsvr.credentials.accesstokenkeys import MAC_KEY_SIZES, SKEW, AccessTokenKey, BadToken
from turnsvr.net.arrival import HTTP_PROTOCOLS, Speech, judge, last_word, may_be_http
from turnsvr.net.clienthello import read_hello
from turnsvr.net.proxyheader import MAX_HEADER, BadHeader, HeaderReader, write_header
from turnsvr.relay import refuses_dtls
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import StreamSplitter, is_channel_data, pack_channel_data, unpack_channel_data
from turnsvr.stun.message import HEADER_SIZE, Class, Message
from turnsvr.turn.commands import Send
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.tickets import TICKET_SIZE, Ticket, Tickets

CORPUS = Path(__file__).parent / "corpus"

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""Of PROXY headers of version 2."""
HELLO = bytes.fromhex("160301010001000100") + b"\x03\x03" + bytes(33) + bytes.fromhex("000213010100")
"""The beginning of a ClientHello, up to the size of its extensions."""
_MAX_FRAME = HEADER_SIZE + 0xFFFF
_MAX_GROWTH = 200
"""Bytes by which an answer to a stranger may exceed the request: realm, nonce, addresses and software."""

_MASK = bytes(range(16))
_BY_NUMBER = [a.ATTRIBUTES[number] for number in sorted(a.ATTRIBUTES)]
_CREDENTIALS = {
    attribute.number
    for attribute in (a.USERNAME, a.USERHASH, a.REALM, a.NONCE, a.PASSWORD_ALGORITHM, a.PASSWORD_ALGORITHMS)
}
_INTEGRITY = {attribute.number for attribute in (a.MESSAGE_INTEGRITY, a.MESSAGE_INTEGRITY_SHA256, a.FINGERPRINT)}


def corpus() -> list[bytes]:
    """Packets of real clients and of other projects' fuzzers."""
    return [path.read_bytes() for path in sorted(CORPUS.glob("*/*.bin"))]


def codec(data: bytes) -> None:
    """Message: what can be parsed can be read, shown, and written so that it reads the same."""
    for classic in (False, True):
        try:
            message = Message.parse(data, classic=classic)
        except MalformedMessage:
            continue
        repr(message)
        message.unknown_required()
        message.integrity_ok(b"key")
        message.integrity_sha256_ok(b"key")
        for attribute in _BY_NUMBER:
            try:
                first, every = message.get(attribute), list(message.all(attribute))
            except MalformedMessage:
                continue
            assert every[:1] == ([] if first is None else [first])
            assert (first is not None) == (attribute in message)
        if a.FINGERPRINT in message:
            continue  # it covers padding and ignored attributes, which are not written again
        again = Message.parse(message.encode(), classic=classic)
        assert again.numbers() == message.numbers()
        assert (again.method, again.message_class) == (message.method, message.message_class)


def attributes(data: bytes) -> None:
    """Attributes: the first byte says which; what is read and written reads the same again."""
    if not data:
        return
    attribute, value = _BY_NUMBER[data[0] % len(_BY_NUMBER)], data[1:]
    try:
        one = attribute.unpack(value, _MASK)
    except MalformedMessage:
        return
    assert attribute.unpack(attribute.pack(one, _MASK), _MASK) == one


def framing(data: bytes) -> None:
    """Streams: the same frames however the bytes are cut; ChannelData: what is taken apart goes together."""
    whole, ends = _split([data])
    for size in (1, 3, 1 + len(data) // 2):
        assert _split([data[at : at + size] for at in range(0, len(data), size)]) == (whole, ends) or ends is None
    if is_channel_data(data):
        try:
            number, payload = unpack_channel_data(data)
        except MalformedMessage:
            return
        assert data.startswith(pack_channel_data(number, payload, padded=False))


def _split(pieces: list[bytes]) -> tuple[list[bytes], int | None]:
    """Frames and the bytes that wait; None when the stream is broken, whose frames do not count."""
    splitter = StreamSplitter()
    frames: list[bytes] = []
    for piece in pieces:
        try:
            found = splitter.feed(piece)
            while found:  # what is broken behind them is told of next
                frames += found
                found = splitter.feed(b"")
        except MalformedMessage:
            return [], None
        assert splitter.pending < _MAX_FRAME
    return frames, splitter.pending


def proxy(data: bytes) -> None:
    """PROXY headers: the same however the bytes are cut, no more than the bound; what is written reads the same."""
    for head in (
        b"",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"[: len(data) % 40],
        SIGNATURE,
        SIGNATURE + b"\x21\x11\0\x0c",
    ):
        results = {_header(head + data, size) for size in (1, 5, 1 << 20)}
        assert len(results) == 1
        client, taken = results.pop()
        assert taken <= MAX_HEADER
        if client is not None:
            assert _header(write_header(client, client), 7)[0] == client


def _header(data: bytes, size: int) -> tuple[Address | None, int]:
    """Whom a header names, and its size; -1 for bytes that are none or not all of one."""
    reader, at = HeaderReader(), 0
    while not reader.whole and at < len(data):
        try:
            at += reader.feed(data[at : at + size])
        except BadHeader:
            return None, -1
    return (reader.client, at) if reader.whole else (None, -1)


def hello(data: bytes) -> None:
    """ClientHellos: what is told of the beginning holds for the whole."""
    for head in (b"", HELLO, HELLO[:9] + bytes(35)):
        whole = head + data
        told = read_hello(whole)
        for at in range(0, len(whole), 1 + len(whole) // 9):
            early = read_hello(whole[:at])
            assert early is None or early == told


def speech(data: bytes) -> None:
    """First bytes of a connection: STUN and TLS are told by the first, and no server of HTTP is asked about them."""
    told = judge(data)
    assert (told is Speech.NOTHING) == (not data)
    if told in {Speech.STUN, Speech.TLS}:
        assert judge(data[:1]) is told
        assert not may_be_http(data)
    if told is Speech.HTTP:
        assert may_be_http(data)
    assert last_word(told) == b"" or told is Speech.HTTP
    for protocol in HTTP_PROTOCOLS:
        assert judge(data, protocol) is (Speech.HTTP if data else Speech.NOTHING)


def token(data: bytes) -> None:
    """Access tokens: nobody makes one without the key; what one seals is either refused or seals the same again."""
    key, nonce = AccessTokenKey("kid", bytes(16)), bytes(12)
    sealed = len(nonce).to_bytes(2, "big") + nonce + AESGCM(key.key).encrypt(nonce, data, b"turn.example.org")
    for shown in (data, sealed[:2] + data, sealed[: len(data)], sealed[:-1] + data[:1]):
        if shown != sealed:
            with suppress(BadToken):
                key.open(shown, "turn.example.org")
                raise AssertionError("a token that the key did not seal")
    try:
        contents = key.open(sealed, "turn.example.org")
    except BadToken:
        return
    assert len(contents.mac_key) in MAC_KEY_SIZES
    assert contents.left(contents.issued) <= contents.lifetime
    assert contents.left(contents.issued + contents.lifetime + SKEW + 1) == 0
    contents = contents._replace(issued=contents.issued % 2**40)  # the last one that 48 bits hold may round up
    again = key.open(key.seal(contents, "turn.example.org", nonce), "turn.example.org")
    assert again.mac_key == contents.mac_key
    assert again.lifetime == contents.lifetime
    assert abs(again.issued - contents.issued) < 0.01


def ticket(data: bytes) -> None:
    """Tickets: nobody makes one without the secret, nor of another."""
    tickets = Tickets(b"secret")
    real = tickets.seal(Ticket(7, 3))
    for shown in (data, data[:TICKET_SIZE], b64encode(data)[:TICKET_SIZE], (data + real)[:TICKET_SIZE], real + data):
        assert tickets.open(shown) is None or shown == real


def server(data: bytes) -> None:
    """Server.receive: bytes as they are, from a stranger, a client, a stream; then signed by who may relay.

    The world asserts that nothing is relayed without a permission and that every signed answer verifies.
    """
    realm = RealmConfig(REALM)
    world = World(ServerConfig(realm, rfc3489=True, anonymity=True, access_tokens=REALM, mobility=True, tcp=True))
    client = world.client(style=Style.SHA256 if data[-1:] > b"\x80" else Style.PLAIN)
    client.allocate((a.ADDITIONAL_ADDRESS_FAMILY, 2))
    client.permit(PEER)
    client.bind(0x4000, OTHER_PEER)
    stranger = world.client(address=Address("203.0.113.9", 9), transport=Transport.UDP)
    stream = world.client("bob", transport=Transport.TCP)
    over_tcp = world.client("bob", transport=Transport.TCP)
    over_tcp.allocate_tcp()
    over_tcp.connect(PEER)
    world.connected(world.plane.connects[-1].connection)
    over_tcp.connect(OTHER_PEER)
    over_tcp.permit(PEER)
    assert world.arrive(world.server.allocation_of(over_tcp.five_tuple) or 0, PEER._replace(port=9)) is not None
    over_tcp.mailbox()
    for sender in (stranger, client, stream):
        world.clear()
        sender.deliver(data)
        for send in world.of(Send):
            assert len(send.data) <= len(data) + _MAX_GROWTH
    for sender in (client, stream, over_tcp):
        _deliver_signed(sender, data)
    world.pass_time(3700)
    assert len(world.server) == 0
    assert not world.plane.sessions
    assert world.server.next_timeout() is None


def _deliver_signed(client: Client, data: bytes) -> None:
    """The method and the attributes that can be told from the bytes, with good credentials and integrity."""
    if len(data) < 2:
        return
    kind = int.from_bytes(data[:2], "big")
    method = kind & 0x000F | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2
    client.challenge()
    message = client.message(method)
    at = HEADER_SIZE
    while at + 4 <= len(data):
        number, size = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
        if number not in _CREDENTIALS | _INTEGRITY:
            raw(message, number, data[at + 4 : at + 4 + size])
        at += 4 + size + -size % 4
    signed = client.sign(message)
    if len(signed) <= _MAX_FRAME:
        for answer in client.deliver(signed):
            response = client.check(answer)
            assert response.message_class in {Class.SUCCESS, Class.ERROR}


def dtls(data: bytes) -> None:
    """Whatever comes to a DTLS listener, a client with whom hands are shaken is served on."""
    if not refuses_dtls("auto"):
        dtls_pump().feed(data)


def joined(data: bytes) -> None:
    """What follows a ConnectionBind reaches the peer as it is, wherever the stream is cut, and so back."""
    joined_connections().feed(data[:200_000])


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "codec": codec,
    "attributes": attributes,
    "framing": framing,
    "proxy": proxy,
    "hello": hello,
    "speech": speech,
    "token": token,
    "ticket": ticket,
    "server": server,
    "dtls": dtls,
    "joined": joined,
}
