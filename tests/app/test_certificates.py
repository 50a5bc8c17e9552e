"""Certificates that an ACME authority issues: ordered and proven in both ways, renewed, and failures told in time."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from tests.app.pebble import Pebble
from tests.app.test_application import changed
from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of, free_port
from turnsvr.app.application import Application
from turnsvr.app.certificates import CannotKeep, Keeper, held, prepare, write_private
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink, tls_context
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.config.acmesettings import AcmeSettings
from turnsvr.net.proofs import ALPN, Proofs

NEEDS_PEBBLE = "Debian's package pebble is not installed"

DOMAINS = ("turn.example.org", "relay.example.org")


def start_authority(directory: Path, **ports: int) -> Pebble:
    if shutil.which("pebble") is None:
        pytest.skip(NEEDS_PEBBLE)
    place = directory / "pebble"
    place.mkdir()
    return Pebble(place, **{"tls_port": free_port(), "http_port": free_port()} | ports)


def acme(authority: Pebble, directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "acme": {
            "domains": DOMAINS,
            "email": "admin@example.org",
            "authority": authority.url,
            "ca": authority.ca.certificate,
            "directory": directory / "acme",
            **more,
        }
    }


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(2 * PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def issued(application: Application) -> None:
    keeper = application.rooms.tls.keeper
    assert keeper is not None
    await until(lambda: keeper.is_current or keeper.failure is not None)
    assert keeper.failure is None


async def tls_client(application: Application) -> TurnClient:
    link = await StreamLink.open(address_of(application, "tls"), tls=tls_context(insecure=True))
    return TurnClient(link, Login(USER, PASSWORD))


async def served_certificate(application: Application) -> x509.Certificate:
    """What a client that asks for the first domain gets."""
    address = address_of(application, "tls")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname=DOMAINS[0])
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(found)


def names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found.get_values_for_type(x509.DNSName))


async def test_a_name_is_proven_on_the_tls_listener_and_no_connection_is_dropped(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    with start_authority(tmp_path, tls_port=port) as authority:
        application = await serve(
            listen=["udp://127.0.0.1:0", f"tls://127.0.0.1:{port}"], tls=acme(authority, tmp_path)
        )
        await issued(application)
        certificate = await served_certificate(application)
        assert names(certificate) == set(DOMAINS)
        assert certificate.issuer != certificate.subject
        assert not application.rooms.tls.proofs.has_tls
        assert application.rooms.problems == []
        for file in (tmp_path / "acme").rglob("*"):
            assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600)


async def test_a_name_is_proven_over_http_by_a_listener_of_its_own(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    with start_authority(tmp_path, http_port=port) as authority:
        application = await serve(tls=acme(authority, tmp_path, challenge="http-01", http_port=port))
        await issued(application)
        assert names(await served_certificate(application)) == set(DOMAINS)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_name_is_proven_by_the_web_section(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    with start_authority(tmp_path, http_port=port) as authority:
        application = await serve(
            tls=acme(authority, tmp_path, challenge="http-01", http_port=port),
            web={"listen": f"http://127.0.0.1:{port}"},
        )
        await issued(application)
        assert names(await served_certificate(application)) == set(DOMAINS)
        async with httpx.AsyncClient(trust_env=False) as http:
            for token in ("unknown", "%2e%2e", "a" * 1000):
                answer = await http.get(f"http://127.0.0.1:{port}/.well-known/acme-challenge/{token}")
                assert answer.status_code == 404
            assert (await http.get(f"http://127.0.0.1:{port}/readyz")).json() == {"status": "ready"}


@pytest.mark.parametrize("kind", ["auto", "portable"])
async def test_another_certificate_is_taken_without_dropping_a_connection(
    serve: Serve, tmp_path: Path, kind: str
) -> None:
    port = free_port()
    with start_authority(tmp_path, tls_port=port) as authority:
        application = await serve(
            listen=["udp://127.0.0.1:0", f"tls://127.0.0.1:{port}"],
            tls=acme(authority, tmp_path),
            pump={"kind": kind},
        )
        await issued(application)
        old = await served_certificate(application)
        client = await tls_client(application)
        await client.allocate()
        fewer = acme(authority, tmp_path, domains=DOMAINS[:1])
        assert application.reload(changed(application, tls=fewer)) == []
        await issued(application)
        assert names(await served_certificate(application)) == {DOMAINS[0]}
        assert (await served_certificate(application)).public_key() != old.public_key()
        await client.permit(client.relayed[0])
        client.send(client.relayed[0], b"still here")
        assert await asyncio.wait_for(client.receive(), PATIENCE) == PeerData(client.relayed[0], b"still here")
        await client.close()


async def test_what_was_issued_serves_again_after_a_restart_without_another_order(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    with start_authority(tmp_path, tls_port=port) as authority:
        tls = acme(authority, tmp_path)
        first = await serve(listen=[f"tls://127.0.0.1:{port}"], tls=tls)
        await issued(first)
        before = await served_certificate(first)
        await first.stop()
    second = await serve(listen=[f"tls://127.0.0.1:{port}"], tls=tls)
    assert await served_certificate(second) == before
    assert second.rooms.tls.keeper is not None
    await asyncio.sleep(0.1)
    assert (second.rooms.tls.keeper.failures, second.rooms.tls.keeper.failure) == (0, None)


async def test_an_authority_that_is_away_is_told_everywhere(serve: Serve, tmp_path: Path) -> None:
    authority = start_authority(tmp_path)
    with capture_logs() as logs:
        application = await serve(
            tls=acme(authority, tmp_path), web={"listen": "http://127.0.0.1:0"}, admin={"socket": tmp_path / "admin"}
        )
        keeper = application.rooms.tls.keeper
        assert keeper is not None
        await until(lambda: keeper.failures > 0)
    (line,) = [each for each in logs if each["event"] == "no certificate was issued"]
    assert line["reason"] == "127.0.0.1 does not answer (ConnectionError)"
    assert application.web is not None
    async with httpx.AsyncClient(base_url=str(application.web.listening[0]), trust_env=False) as http:
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["problems"]) == (
            503,
            ["there is no certificate that clients would trust"],
        )
        figures = (await http.get("/metrics")).text
    assert "turnsvr_certificate_failures_total 1.0" in figures
    assert application.admin is not None
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "admin"))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as http:
        status = (await http.get("/status")).json()
    assert f"no certificate was issued at the last try: {line['reason']}" in status["problems"]
    assert (await served_certificate(application)).issuer.rfc4514_string() == "CN=not yet issued"


async def test_a_name_that_leads_elsewhere_is_told(serve: Serve, tmp_path: Path) -> None:
    with start_authority(tmp_path) as authority:
        application = await serve(tls=acme(authority, tmp_path))
        keeper = application.rooms.tls.keeper
        assert keeper is not None
        await until(lambda: keeper.failure is not None)
    for domain in DOMAINS:
        assert f"{domain}: Failed to connect" in str(keeper.failure)
    assert not application.rooms.tls.proofs.has_tls


# While an order goes on, and who comes then. Without an authority.


async def shake_hands(port: int, name: str | None, protocol: str, *, pieces: bool = False) -> ssl.SSLObject:
    """A TLS client that offers one protocol; with pieces its first bytes come a few at a time."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                hello = outgoing.read()
                for begin in range(0, len(hello), 100 if pieces else max(1, len(hello))):
                    writer.write(hello[begin : begin + 100] if pieces else hello)
                    await writer.drain()
                    await asyncio.sleep(0.01 if pieces else 0)
                if not (answer := await asyncio.wait_for(reader.read(65_536), PATIENCE)):
                    raise ConnectionResetError from None
                incoming.write(answer)
            else:
                return tls
    finally:
        writer.close()


@pytest.mark.parametrize("kind", ["auto", "portable"])
async def test_who_offers_the_protocol_gets_the_proof_and_others_are_served(serve: Serve, kind: str) -> None:
    application = await serve(pump={"kind": kind})
    port = address_of(application, "tls").port
    application.rooms.tls.proofs.prove_by_tls(DOMAINS[0], "token.thumbprint")
    for pieces in (False, True):
        tls = await shake_hands(port, DOMAINS[0], ALPN, pieces=pieces)
        assert tls.selected_alpn_protocol() == ALPN
        shown = tls.getpeercert(binary_form=True)
        assert shown is not None
        certificate = x509.load_der_x509_certificate(shown)
        assert names(certificate) == {DOMAINS[0]}
        (proof,) = [each for each in certificate.extensions if each.oid.dotted_string == "1.3.6.1.5.5.7.1.31"]
        assert proof.critical
        assert isinstance(proof.value, x509.UnrecognizedExtension)
        assert proof.value.value == b"\x04\x20" + sha256(b"token.thumbprint").digest()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake_hands(port, DOMAINS[1], ALPN)
    client = await tls_client(application)
    await client.allocate()
    await client.close()
    plain = await shake_hands(port, DOMAINS[0], "stun.turn", pieces=True)
    assert plain.selected_alpn_protocol() == "stun.turn"
    application.rooms.tls.proofs.clear()
    assert (await shake_hands(port, DOMAINS[0], ALPN)).selected_alpn_protocol() is None
    await until(lambda: application.connections == 0)


async def test_who_says_nothing_after_a_first_byte_is_hung_up_on_when_the_server_stops(serve: Serve) -> None:
    application = await serve()
    application.rooms.tls.proofs.prove_by_tls(DOMAINS[0], "token.thumbprint")
    reader, writer = await asyncio.open_connection("127.0.0.1", address_of(application, "tls").port)
    writer.write(b"\x16\x03")
    await writer.drain()
    await asyncio.sleep(0.1)
    await asyncio.wait_for(application.stop(), PATIENCE)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


# Times, by a clock of the test's own.


class Clock:
    """Passes as it is slept by; a test ends when `rounds` sleeps are over."""

    def __init__(self, now: float, rounds: int) -> None:
        self.now = now
        self.slept: list[float] = []
        self._rounds = rounds
        self.over = asyncio.Event()

    def sleep(self, seconds: float) -> asyncio.Future[None]:
        self.slept.append(seconds)
        self.now += seconds
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self.slept) >= self._rounds:
            self.over.set()
        else:
            future.set_result(None)
        return future


def settings_in(directory: Path) -> AcmeSettings:
    return AcmeSettings(domains=("turn.example.org",), directory=directory)


def put_certificate(settings: AcmeSettings, begin: float, end: float, domain: str = "turn.example.org") -> None:
    """One that an authority might have issued."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.fromtimestamp(begin, UTC))
        .not_valid_after(datetime.fromtimestamp(end, UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .sign(key, SHA256())
    )
    write_private(settings.certificate, certificate.public_bytes(Encoding.PEM))


DAY = 86_400.0
NOW = 1_800_000_000.0


async def run_keeper(settings: AcmeSettings, clock: Clock, order: Callable[[AcmeSettings, Proofs], None]) -> Keeper:
    keeper = Keeper(settings, Proofs(), lambda: None, order=order, wall_time=lambda: clock.now, sleep=clock.sleep)
    keeper.start()
    await asyncio.wait_for(clock.over.wait(), PATIENCE)
    keeper.cancel()
    return keeper


@pytest.mark.parametrize(("days", "left"), [(90, 30), (30, 10), (6, 3)])
async def test_it_is_renewed_in_time(tmp_path: Path, days: int, left: int) -> None:
    settings, clock = settings_in(tmp_path), Clock(NOW, days * 24 + 20)
    prepare(settings)
    put_certificate(settings, NOW, NOW + days * DAY)
    ordered: list[float] = []

    def order(settings: AcmeSettings, proofs: Proofs) -> None:
        ordered.append(clock.now)
        put_certificate(settings, clock.now, clock.now + days * DAY)

    await run_keeper(settings, clock, order)
    assert ordered[0] == NOW + (days - left) * DAY
    assert max(clock.slept) <= 3_600


@pytest.mark.parametrize("domain", ["turn.example.org", "other.example.org"])
async def test_failures_are_tried_again_less_and_less_often(tmp_path: Path, domain: str) -> None:
    settings, clock = settings_in(tmp_path), Clock(NOW, 10)
    prepare(settings)
    if domain != "turn.example.org":
        put_certificate(settings, NOW, NOW + 90 * DAY, domain)

    def order(settings: AcmeSettings, proofs: Proofs) -> None:
        raise RuntimeError("the authority said no")

    with capture_logs():
        keeper = await run_keeper(settings, clock, order)
    assert clock.slept[:5] == [300, 600, 1200, 2400, 4800]
    assert clock.slept[-2:] == [6 * 3_600, 6 * 3_600]
    assert (keeper.failures, keeper.failure) == (10, "the authority said no")


async def test_readiness_is_given_up_before_the_certificate_ends_and_not_at_once(tmp_path: Path) -> None:
    settings, clock = settings_in(tmp_path), Clock(NOW + 61 * DAY, 1)
    prepare(settings)
    put_certificate(settings, NOW, NOW + 90 * DAY)

    def order(settings: AcmeSettings, proofs: Proofs) -> None:
        raise RuntimeError("no")

    with capture_logs():
        keeper = await run_keeper(settings, clock, order)
    assert keeper.failure == "no"
    assert keeper.problem is None
    clock.now = NOW + 75 * DAY
    assert keeper.problem == "the certificate cannot be renewed, and expires on 2027-04-15"


async def test_an_authority_that_issues_something_else_is_not_asked_without_end(tmp_path: Path) -> None:
    settings, clock = settings_in(tmp_path), Clock(NOW, 3)
    prepare(settings)
    orders = 0

    def order(settings: AcmeSettings, proofs: Proofs) -> None:
        nonlocal orders
        orders += 1
        put_certificate(settings, clock.now, clock.now + 90 * DAY, "other.example.org")

    await run_keeper(settings, clock, order)
    assert orders == 3
    assert clock.slept == [300, 600, 1200]


def test_until_there_is_one_a_certificate_of_our_own_serves(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "acme")
    prepare(settings)
    found = held(settings.certificate)
    assert found is not None
    assert found.temporary
    before = settings.certificate.read_bytes()
    prepare(settings)
    assert settings.certificate.read_bytes() == before
    settings.certificate.write_bytes(b"nothing")
    assert held(settings.certificate) is None


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("a file")
    with pytest.raises(CannotKeep, match=r"tls\.acme\.directory: .*(Not a directory|File exists)"):
        prepare(settings_in(tmp_path / "acme"))


def test_each_authority_has_a_place_of_its_own() -> None:
    def place(authority: str) -> str:
        return AcmeSettings(domains=("a.example",), authority=authority, directory=Path("/s")).certificate.parent.name

    assert place("https://acme-v02.api.letsencrypt.org/directory") == "acme-v02.api.letsencrypt.org"
    assert place("https://127.0.0.1:14000/dir") == "127.0.0.1-14000"
