"""Handshakes of DTLS: what strangers get, what is lost on the way, who goes where there is no room, who begins anew."""

from __future__ import annotations

import asyncio
import random
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.conftest import need
from tests.relay.compiled.dtls_client import DtlsClient, DtlsWorld, MakeDtlsWorld, datagram_context
from tests.relay.world import FAMILIES, LOOPBACK, SETTINGS, channel_data, now, request
from turnsvr.app import firstrun
from turnsvr.client.dtls import DtlsContext, DtlsEnd
from turnsvr.client.libssl import TlsError
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Address, Family

HALF_OPEN = 1024
HALF_OPEN_OF_SOURCE = 64
"""As core/associations.pxi has them."""

_RECORD, _HANDSHAKE = 13, 12
"""Bytes of the headers of a record and of a handshake message (RFC 6347 sections 4.1 and 4.2.2)."""


async def bring_cookie(client: DtlsClient) -> None:
    """Say hello, and say it again with the cookie; what the server then says is left unread."""
    client.transmit(client.end.begin())
    await client.hear()


async def half_open(world: DtlsWorld, host: str = "127.0.0.1") -> DtlsClient:
    client = DtlsClient(world, world.endpoint(host), world.listeners[Family.IPV4])
    await bring_cookie(client)
    return client


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_stranger_gets_less_than_it_sends_and_leaves_nothing(
    make_dtls_world: MakeDtlsWorld, family: Family
) -> None:
    world = make_dtls_world()
    hello = DtlsEnd(DtlsContext(insecure=True), "127.0.0.1").begin()[0]
    strangers = [world.endpoint(LOOPBACK[family]) for _ in range(200)]
    for stranger in strangers:
        stranger.send(hello, world.listeners[family])
    for stranger in strangers:
        answer, _ = await stranger.receive()
        assert len(answer) < len(hello)
        assert answer[_RECORD] == 3  # HelloVerifyRequest
        assert stranger.waiting() == []
    found = world.pump.associations()
    assert (found.open, found.shaking, found.cookies, found.handshakes) == (0, 0, 200, 0)
    assert not world.notes.messages
    assert not world.notes.closed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("piece", [36, 40, 42], ids=["to its cookie", "all but an end", "whole"])
async def test_the_smallest_hello_gets_less_than_it_is(
    make_dtls_world: MakeDtlsWorld, family: Family, piece: int
) -> None:
    """One cipher, no extension, and no more of it in the datagram than a cookie is given for."""
    world = make_dtls_world()
    hello = b"\xfe\xfd" + bytes(32) + b"\0" + b"\0" + b"\0\2\xc0\x2b" + b"\1\0"
    fragment = b"\1" + len(hello).to_bytes(3, "big") + bytes(5) + piece.to_bytes(3, "big") + hello[:piece]
    datagram = b"\x16\xfe\xff" + bytes(8) + len(fragment).to_bytes(2, "big") + fragment
    stranger = world.endpoint(LOOPBACK[family])
    stranger.send(datagram, world.listeners[family])
    answer, _ = await stranger.receive()
    assert answer[_RECORD] == 3  # HelloVerifyRequest
    assert len(answer) < len(datagram)
    assert stranger.waiting() == []
    assert world.pump.associations().open == 0


async def test_cookies_are_answers_within_the_budget(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world(replace(SETTINGS, answers_per_address=1.0))
    hello = DtlsEnd(DtlsContext(insecure=True), "127.0.0.1").begin()[0]
    stranger, other = world.endpoint(), world.endpoint("127.0.0.9")
    for _ in range(30):
        stranger.send(hello, world.listeners[Family.IPV4])
    await world.until(lambda: world.pump.totals().drops[Drop.RATE_LIMITED] == 20)
    assert world.pump.associations().cookies == 10
    other.send(hello, world.listeners[Family.IPV4])
    await other.receive()


async def test_a_cookie_is_good_for_its_address_alone(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    client = world.client()
    sent: list[bytes] = []
    client.up = lambda datagram: [sent.append(datagram) or datagram]  # type: ignore[func-returns-value]
    await bring_cookie(client)
    thief = world.endpoint("127.0.0.3")
    thief.send(sent[1], client.server)
    answer, _ = await thief.receive()
    assert answer[_RECORD] == 3
    same_host = world.endpoint()
    same_host.send(sent[1], client.server)
    answer, _ = await same_host.receive()
    assert answer[_RECORD] == 3
    assert world.pump.associations().open == 1


async def test_strangers_who_say_no_hello_get_nothing(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    stranger = world.endpoint()
    chance = random.Random(7350)
    hello = DtlsEnd(DtlsContext(insecure=True), "127.0.0.1").begin()[0]
    sent = []
    for number in range(2_000):
        if number % 2:
            junk = bytes([chance.randrange(20, 64)]) + chance.randbytes(chance.randrange(0, 200))
        else:
            damaged = bytearray(hello[: chance.randrange(1, len(hello))])
            for _ in range(chance.randrange(4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            junk = bytes(damaged)
        sent.append(junk)
        stranger.send(junk, world.listeners[Family.IPV4])
        if number % 50 == 49:
            await world.until(lambda: world.pump.totals().received == world.sent)
    got = stranger.waiting()
    assert sum(map(len, got)) < sum(map(len, sent))
    assert world.pump.associations().open == 0
    client = world.client()
    await client.shake_hands()


def unreliable(chance: random.Random) -> Callable[[bytes], list[bytes]]:
    """A way on which datagrams are lost, doubled, and overtaken by the next."""
    held: list[bytes] = []

    def carry(datagram: bytes) -> list[bytes]:
        late, held[:] = held[:], []
        what = chance.random()
        if what < 0.1:
            return late
        if what < 0.25:
            return [datagram, datagram, *late]
        if what < 0.4:
            held.append(datagram)
            return late
        return [datagram, *late]

    return carry


async def test_hands_are_shaken_over_a_bad_way(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()

    async def connect(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(4):
            client = world.client(up=unreliable(chance), down=unreliable(chance))
            try:
                await client.shake_hands(9.0)
            except (TimeoutError, TlsError):
                continue  # too much was lost: a client begins anew
            client.up = client.down = lambda datagram: [datagram]
            for _ in range(20):  # the server has hands shaken once its own last flight has come
                client.say(request().encode())
            await client.known()
            return
        raise AssertionError(f"hands are never shaken with {seed}")

    await asyncio.gather(*(connect(seed) for seed in range(6)))


def said_in(datagrams: list[bytes]) -> set[bytes]:
    """What the records in these datagrams hold."""
    found = set()
    for datagram in datagrams:
        at = 0
        while at < len(datagram):
            start, at = at + _RECORD, at + _RECORD + int.from_bytes(datagram[at + 11 : at + 13], "big")
            found.add(datagram[start:at])
    return found


async def test_a_flight_that_is_lost_is_sent_again(make_dtls_world: MakeDtlsWorld) -> None:
    """By the pump's own timer, and not more often than that."""
    world = make_dtls_world()
    client = await half_open(world)
    began = time.monotonic()
    first = [(await client.endpoint.receive())[0]]
    await asyncio.sleep(0.3)
    first += client.endpoint.waiting()
    again = [(await client.endpoint.receive())[0]]
    assert 0.9 < time.monotonic() - began < 2.5
    await asyncio.sleep(0.3)
    again += client.endpoint.waiting()
    assert said_in(again) == said_in(first) != set()
    for datagram in again:
        client.take(datagram)
    while not client.end.is_shaken:
        await client.hear()


async def test_a_handshake_ends_at_its_deadline(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world(replace(SETTINGS, handshake_timeout=0.3))
    await half_open(world)
    assert world.pump.associations().open <= 1
    await world.until(lambda: world.pump.associations().failures == 1 and world.pump.associations().open == 0)
    assert world.notes.closed == []


def fragments(datagram: bytes, first: int) -> list[bytes]:
    """A record with one whole handshake message as two of them with a fragment each."""
    record, message, body = datagram[:_RECORD], datagram[_RECORD : _RECORD + _HANDSHAKE], datagram[25:]

    def fragment(at: int, data: bytes, sequence: int) -> bytes:
        inner = message[:6] + at.to_bytes(3, "big") + len(data).to_bytes(3, "big") + data
        number = int.from_bytes(record[5:11], "big") + sequence
        return record[:5] + number.to_bytes(6, "big") + len(inner).to_bytes(2, "big") + inner

    return [fragment(0, body[:first], 0), fragment(first, body[first:], 40)]


@pytest.mark.parametrize("in_order", [True, False])
async def test_a_hello_may_come_in_fragments(make_dtls_world: MakeDtlsWorld, in_order: bool) -> None:
    """As large ones do; the cookie has to be in the first. Where that comes last, the others are sent again."""
    world = make_dtls_world()

    def cut(datagram: bytes) -> list[bytes]:
        if datagram[0] != 22 or datagram[_RECORD] != 1:
            return [datagram]
        pieces = fragments(datagram, 100)
        return pieces if in_order else pieces[::-1]

    client = world.client(up=cut)
    await client.shake_hands()
    client.say(request().encode())
    await client.known()


async def test_one_source_has_its_share_of_handshakes(make_dtls_world: MakeDtlsWorld) -> None:
    """Its own oldest goes for a new one, and others shake hands meanwhile."""
    world = make_dtls_world()
    for _ in range(HALF_OPEN_OF_SOURCE + 36):
        await half_open(world)
    await world.until(
        lambda: world.pump.associations().evicted == 36 and world.pump.associations().shaking == HALF_OPEN_OF_SOURCE
    )
    other = DtlsClient(world, world.endpoint("127.0.0.2"), world.listeners[Family.IPV4])
    await other.shake_hands()
    assert world.pump.associations().shaking == HALF_OPEN_OF_SOURCE


async def test_all_sources_together_have_a_bound(make_dtls_world: MakeDtlsWorld) -> None:
    """The oldest of the source with most goes, so that whoever is alone in his source is let in and stays.

    Every handshake has time until the last one has begun, also where the sanitizers make each of them slow.
    """
    patience = 120.0
    world = make_dtls_world(replace(SETTINGS, handshake_timeout=patience))
    lone = await half_open(world, "127.0.2.1")
    crowds = [f"127.0.1.{1 + at}" for at in range(17)]
    for at in range(HALF_OPEN + 30):
        await half_open(world, crowds[at % len(crowds)])
    await world.until(
        lambda: world.pump.associations().evicted >= 31 and world.pump.associations().shaking == HALF_OPEN, patience
    )
    while not lone.end.is_shaken:
        await lone.hear()


async def test_others_are_let_in_during_a_flood(make_dtls_world: MakeDtlsWorld) -> None:
    """Of handshakes of one source that receives at its address, as fast as it can begin them."""
    world = make_dtls_world()
    ended = asyncio.Event()

    async def flood() -> None:
        while not ended.is_set():
            with_cookies = [world.endpoint("127.0.0.4") for _ in range(50)]
            for endpoint in with_cookies:
                attacker = DtlsClient(world, endpoint, world.listeners[Family.IPV4])
                attacker.transmit(attacker.end.begin())
                await attacker.hear()
            for endpoint in with_cookies:
                endpoint.socket.close()
                world._endpoints.remove(endpoint)

    flooding = asyncio.create_task(flood())
    try:
        await world.until(lambda: world.pump.associations().evicted > 100)
        took = []
        for _ in range(5):
            client = DtlsClient(world, world.endpoint("127.0.0.5"), world.listeners[Family.IPV4])
            began = time.monotonic()
            await client.shake_hands()
            took.append(time.monotonic() - began)
        assert sorted(took)[2] < 0.9, "the median of handshakes wants no second flight"
    finally:
        ended.set()
        await flooding


async def test_who_begins_anew_keeps_the_old_association_until_it_is_done(make_dtls_world: MakeDtlsWorld) -> None:
    """RFC 6347 section 4.2.8."""
    world = make_dtls_world()
    old = world.client()
    await old.shake_hands()
    before = await old.session(request().encode())
    peer = world.endpoint()
    world.pump.bind_channel(old.number, 0x4000, peer.address, now(60))
    new = DtlsClient(world, old.endpoint, old.server)
    await bring_cookie(new)
    await world.until(lambda: world.pump.associations().shaking == 1)
    flight = [(await new.endpoint.receive())[0]]
    old.say(channel_data(0x4000, b"still there"))
    assert await peer.receive() == (b"still there", old.relayed)
    peer.send(b"and back", old.relayed)
    while not old.heard:
        datagram, _ = await old.endpoint.receive()
        if datagram[0] == 23:
            old.take(datagram)
        else:
            flight.append(datagram)
    assert old.heard == [channel_data(0x4000, b"and back")]
    assert world.notes.closed == []
    for datagram in flight:
        new.take(datagram)
    while not new.end.is_shaken:
        await new.hear()
    await world.until(lambda: bool(world.notes.closed))
    assert world.notes.closed == [(before, "another handshake took its place")]
    world.pump.close(old.number)
    new.say(request().encode())
    await world.until(lambda: len(world.notes.messages) == 2)
    after = await new.known()
    assert after[:3] == before[:3]
    assert after.connection != before.connection
    assert world.pump.associations().open == 1


async def test_an_old_hello_ends_nothing(make_dtls_world: MakeDtlsWorld) -> None:
    """Copies of what an association began with, and of an earlier one, whoever sends them."""
    world = make_dtls_world()
    hellos: list[bytes] = []

    def note(datagram: bytes) -> list[bytes]:
        if datagram[0] == 22 and datagram[_RECORD] == 1:
            hellos.append(datagram)
        return [datagram]

    first = world.client(up=note)
    await first.shake_hands()
    second = DtlsClient(world, first.endpoint, first.server, up=note)
    await second.shake_hands()
    assert len(hellos) == 4
    await world.until(lambda: world.pump.associations().open == 1)
    for hello in (*hellos, *hellos):
        second.endpoint.send(hello, second.server)
    await world.until(lambda: world.pump.totals().received == world.sent)
    second.say(request().encode())
    await second.known()
    assert world.pump.associations().shaking <= 1
    assert [why for _, why in world.notes.closed] == ["another handshake took its place"]


async def test_a_client_may_give_up_and_begin_anew(make_dtls_world: MakeDtlsWorld) -> None:
    """In the middle of its handshake: the server goes on with the new one."""
    world = make_dtls_world()
    lost = await half_open(world)
    await lost.endpoint.receive()
    await asyncio.sleep(0.1)
    lost.endpoint.waiting()
    client = DtlsClient(world, lost.endpoint, lost.server)
    await client.shake_hands()
    await world.until(lambda: world.pump.associations().handshakes == 1 and world.pump.associations().open == 1)
    assert world.pump.associations().failures == 1


async def test_junk_harms_no_association(make_dtls_world: MakeDtlsWorld) -> None:
    """What somebody sends in the name of a client: records that are damaged, plain alerts, other versions."""
    world = make_dtls_world()
    client, peer = world.client(), world.endpoint()
    await client.shake_hands()
    await client.session(request().encode())
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    chance = random.Random(6347)
    genuine = client.end.seal(channel_data(0x4000, b"genuine"))[0]
    for number in range(1_500):
        junk = bytearray(genuine)
        if number % 3 == 0:
            junk[chance.randrange(_RECORD, len(junk))] ^= 1 << chance.randrange(8)
        elif number % 3 == 1:
            junk = bytearray(chance.randbytes(chance.randrange(1, 300)))
            junk[0] = chance.randrange(20, 64)
        else:
            junk[chance.randrange(1, len(junk))] = chance.randrange(256)
            junk = junk[: chance.randrange(1, len(junk))]
        client.endpoint.send(bytes(junk), client.server)
        if number % 50 == 49:
            await world.until(lambda: world.pump.totals().received >= world.sent)
    for alert in (b"\x02\x28", b"\x01\x00", b"\x02\x0a"):
        plain = b"\x15\xfe\xfd\x00\x00" + (1000).to_bytes(6, "big") + b"\x00\x02" + alert
        client.endpoint.send(plain, client.server)
    client.transmit([genuine])
    assert await peer.receive() == (b"genuine", client.relayed)
    assert world.notes.closed == []


async def test_junk_harms_no_handshake(make_dtls_world: MakeDtlsWorld) -> None:
    """Of other records; a plain alert does end one, as TLS has it."""
    world = make_dtls_world()
    client = await half_open(world)
    chance = random.Random(1)
    for _ in range(30):
        junk = b"\x17\xfe\xfd\x00\x01" + chance.randbytes(6) + (40).to_bytes(2, "big") + chance.randbytes(40)
        client.endpoint.send(junk, client.server)
    while not client.end.is_shaken:
        await client.hear()
    client.say(request().encode())
    await client.known()


async def test_a_client_that_refuses_the_certificate_says_so(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    client = DtlsClient(world, world.endpoint(), world.listeners[Family.IPV4], context=DtlsContext())
    with pytest.raises(TlsError, match="self-signed"):
        await client.shake_hands()
    client.transmit(client.end.pending())
    await world.until(lambda: world.pump.associations().failures == 1 and world.pump.associations().open == 0)


async def test_a_client_that_trusts_the_certificate(make_dtls_world: MakeDtlsWorld, certificate: TlsFiles) -> None:
    world = make_dtls_world()
    trusting = DtlsContext(ca_file=str(certificate.certificate))
    await world.client(context=trusting).shake_hands()
    misled = world.client(context=trusting)
    misled.end = DtlsEnd(trusting, "turn.example.org")
    with pytest.raises(TlsError, match=r"[Hh]ostname"):
        await misled.shake_hands()


async def test_an_association_without_a_session_ends(make_dtls_world: MakeDtlsWorld) -> None:
    """And one whose session has ended, as long after that; one with a session stays."""
    world = make_dtls_world(replace(SETTINGS, idle_timeout=0.3))
    idle, busy = world.client(), world.client()
    await idle.shake_hands()
    await busy.shake_hands()
    five_tuple = await busy.session(request().encode())
    await world.until(lambda: bool(world.notes.closed))
    while not idle.end.is_over:
        await idle.hear()
    await asyncio.sleep(0.4)
    assert world.pump.associations().open == 1
    world.pump.close(busy.number)
    closed = time.monotonic()
    await world.until(lambda: len(world.notes.closed) == 2)
    assert world.notes.closed[1] == (five_tuple, "no allocation")
    assert time.monotonic() - closed > 0.25


async def test_who_has_no_session_goes_for_others(make_dtls_world: MakeDtlsWorld) -> None:
    """The oldest of the source with most of them; where all have sessions there is no room."""
    world = make_dtls_world(replace(SETTINGS, associations=4))
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.1"]
    clients = [DtlsClient(world, world.endpoint(host), world.listeners[Family.IPV4]) for host in hosts]
    for client in clients:
        await client.shake_hands()
    await clients[0].session(request().encode())
    newcomer = DtlsClient(world, world.endpoint("127.0.0.3"), world.listeners[Family.IPV4])
    await newcomer.shake_hands()
    while not clients[2].end.is_over:
        await clients[2].hear()
    await world.until(lambda: bool(world.notes.closed))
    assert [why for _, why in world.notes.closed] == ["ended to make room"]
    for client in (clients[1], clients[3], newcomer):
        await client.session(request().encode())
    late = DtlsClient(world, world.endpoint("127.0.0.3"), world.listeners[Family.IPV4])
    with pytest.raises(TimeoutError):
        await late.shake_hands(0.5)
    assert world.pump.associations().refused >= 1
    assert world.pump.associations().evicted == 1
    assert world.pump.associations().open == 4


async def test_one_address_has_its_share_of_associations(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world(replace(SETTINGS, associations_per_address=2))
    clients = [world.client() for _ in range(3)]
    for client in clients:
        await client.shake_hands()
    while not clients[0].end.is_over:
        await clients[0].hear()
    other = DtlsClient(world, world.endpoint("127.0.0.2"), world.listeners[Family.IPV4])
    await other.shake_hands()
    assert world.pump.associations().open == 3


async def test_another_certificate_is_for_new_handshakes(
    make_dtls_world: MakeDtlsWorld, certificate: TlsFiles, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Associations live on, and a handshake that has begun ends with what it has begun with."""
    world = make_dtls_world()
    other = firstrun.write_self_signed(tmp_path_factory.mktemp("other"), ["127.0.0.1"])
    before, after = (DtlsContext(ca_file=str(files.certificate)) for files in (certificate, other))
    old, between = world.client(context=before), world.client(context=before)
    await old.shake_hands()
    await bring_cookie(between)
    await world.until(lambda: world.pump.associations().shaking == 1)
    for _ in range(3):
        world.pump.secure(datagram_context(other))
    while not between.end.is_shaken:
        await between.hear()
    await world.client(context=after).shake_hands()
    with pytest.raises(TlsError):
        await world.client(context=before).shake_hands()
    for client in (old, between):
        client.say(request().encode())
        await client.known()


async def test_handshakes_of_several_threads_at_once(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world(replace(SETTINGS, threads=2))
    clients = [world.client() for _ in range(40)]
    await asyncio.gather(*(client.shake_hands() for client in clients))
    await world.until(lambda: world.pump.associations().handshakes == 40 and world.pump.associations().open == 40)


async def test_at_every_address_of_a_wildcard(make_dtls_world: MakeDtlsWorld) -> None:
    """Each answers from the address that it was sent to."""
    world = make_dtls_world()
    port = world.pump.listen(Address("0.0.0.0", 0), dtls=True).port
    for host in ("127.0.0.7", "127.0.0.8"):
        client = DtlsClient(world, world.endpoint(host), Address(host, port))
        await client.shake_hands()
        five_tuple = await client.session(request().encode())
        assert five_tuple.server == Address(host, port)
        peer = world.endpoint()
        world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
        peer.send(b"down", client.relayed)
        assert await client.read() == channel_data(0x4000, b"down")


async def test_listeners_that_are_told_nothing_serve_no_dtls(make_dtls_world: MakeDtlsWorld) -> None:
    world = make_dtls_world()
    plain = world.pump.listen(Address("127.0.0.1", 0))
    stranger = world.endpoint()
    stranger.send(DtlsEnd(DtlsContext(insecure=True), "127.0.0.1").begin()[0], plain)
    await world.dropped(Drop.MALFORMED)
    assert stranger.waiting() == []


async def test_s_client(make_dtls_world: MakeDtlsWorld) -> None:
    """OpenSSL's own program; what it asks for beyond that, to begin anew within the association, is refused."""
    program = need("openssl")
    world = make_dtls_world()
    server = world.listeners[Family.IPV4]
    process = await asyncio.create_subprocess_exec(
        program, "s_client", "-dtls1_2", "-connect", str(server), "-alpn", "stun.turn",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        await world.until(lambda: world.pump.associations().handshakes == 1)
        process.stdin.write(b"R\n")
        await process.stdin.drain()
        await asyncio.sleep(0.3)
        assert world.pump.associations().handshakes == 1
        process.stdin.write_eof()
        output, _ = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"DTLSv1.2" in output
    assert b"ALPN protocol: stun.turn" in output
    world.sent = world.pump.totals().received


def test_no_end_is_taken_for_another() -> None:
    """Fragments are cut as the tests above believe."""
    body = secrets.token_bytes(300)
    whole = (
        bytes(11) + (312).to_bytes(2, "big") + b"\x01" + (300).to_bytes(3, "big") + bytes(5) + (300).to_bytes(3, "big")
    )
    first, second = fragments(whole + body, 100)
    assert first[25:] + second[25:] == body
