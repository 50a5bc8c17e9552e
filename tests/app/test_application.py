"""The application in this loop: what start, reload and drain do to clients that are there."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of
from turnsvr.app import firstrun
from turnsvr.app.application import Application
from turnsvr.app.errors import StartError
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink, StreamLink, tls_context
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.config.settings import Settings
from turnsvr.net.liveness import takes_packets
from turnsvr.net.tls import CertificateError, TlsContexts, TlsFiles
from turnsvr.plane import OpenRelay
from turnsvr.relay.api import Opened
from turnsvr.relay.counts import Counters
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    EndReason,
    PeerRefused,
    RequestRefused,
)


async def client_of(application: Application, password: str = PASSWORD) -> TurnClient:
    return TurnClient(await DatagramLink.open(address_of(application, "udp")), Login(USER, password))


def changed(application: Application, **sections: Any) -> Settings:
    values = {name: getattr(application.settings, name) for name in Settings.model_fields}
    return Settings.model_validate(values | sections)


class Heard:
    """An EventSink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def started(self, event: AllocationStarted) -> None:
        self.events.append(event)

    def refreshed(self, event: AllocationRefreshed) -> None:
        self.events.append(event)

    def moved(self, event: AllocationMoved) -> None:
        self.events.append(event)

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        self.events.append((event, counters))

    def authentication_failed(self, event: AuthenticationFailed) -> None:
        self.events.append(event)

    def peer_refused(self, event: PeerRefused) -> None:
        self.events.append(event)

    def request_refused(self, event: RequestRefused) -> None:
        self.events.append(event)


async def test_every_sink_hears_every_event(serve: Serve) -> None:
    sinks = (Heard(), Heard())
    application = await serve(sinks=sinks, peers={})
    client = await client_of(application)
    await client.allocate()
    with pytest.raises(ClientError, match="403"):
        await client.permit(Address("10.0.0.1", 1))
    wrong = await client_of(application, "wrong")
    with pytest.raises(ClientError):
        await wrong.allocate()
    await client.close()
    await wrong.close()
    kinds = [AllocationStarted, PeerRefused, AuthenticationFailed, tuple]
    for sink in sinks:
        assert [type(event) for event in sink.events] == kinds


async def test_reload_changes_what_peers_may_be_reached_and_keeps_the_allocation(serve: Serve) -> None:
    application = await serve()
    client = await client_of(application)
    await client.allocate()
    await client.permit(Address("127.0.0.1", 9))
    assert application.reload(changed(application, peers={"deny": ["198.51.100.0/24"]})) == []
    with pytest.raises(ClientError, match="403"):
        await client.permit(Address("127.0.0.2", 9))
    await client.refresh(300)
    await client.close()


async def test_reload_changes_how_strangers_are_answered(serve: Serve) -> None:
    application = await serve()
    counted = application.pump.name == "compiled"
    for realm in ("one.example.org", "another.example.org"):
        assert application.reload(changed(application, realm=realm)) == []
        answer = await answer_to_a_stranger(application)
        error = answer.get(a.ERROR_CODE)
        assert error is not None
        assert error.code == 401
        assert answer.get(a.REALM) == realm
        client = await client_of(application)
        await client.allocate()
        await client.close()
    assert application.pump.totals().challenges == 4 * counted
    assert application.server.answers[Method.ALLOCATE, 401] == 4 * (not counted)
    application.reload(changed(application, stun_only=True, realm="one.example.org"))
    error = (await answer_to_a_stranger(application)).get(a.ERROR_CODE)
    assert error is not None
    assert error.code == 403


async def answer_to_a_stranger(application: Application) -> Message:
    """What an Allocate request without credentials gets over UDP."""
    server = address_of(application, "udp")
    with socket.socket(server.family.socket_family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(server)
        sock.send(Message(Method.ALLOCATE, Class.REQUEST, secrets.token_bytes(12)).encode())
        async with asyncio.timeout(PATIENCE):
            return Message.parse(await asyncio.get_running_loop().sock_recv(sock, 2048))


async def test_reload_changes_how_often_a_user_may_allocate(serve: Serve) -> None:
    limits = {"allocation_rate_per_user": "6/min", "allocations_per_user": 1}
    application = await serve(limits=limits)
    heard = Heard()
    application.rooms.events.add(heard)
    client = await client_of(application)
    await client.allocate()
    await client.close()
    other = await client_of(application)
    with pytest.raises(ClientError, match="486"):
        await other.allocate()
    (refused,) = [event for event in heard.events if isinstance(event, RequestRefused)]
    assert refused.limit == "limits.allocation_rate_per_user"
    assert application.reload(changed(application, limits=limits | {"allocation_rate_per_user": 0})) == []
    await other.allocate()
    await other.close()


async def test_reload_changes_limits_for_connections_that_come(serve: Serve) -> None:
    """Who has an allocation makes no room for who has none."""
    application = await serve()
    kept = TurnClient(await StreamLink.open(address_of(application, "tcp")), Login(USER, PASSWORD))
    await kept.allocate()
    assert application.reload(changed(application, limits={"connections": 1})) == []
    surplus = await StreamLink.open(address_of(application, "tcp"))
    await asyncio.wait_for(surplus.closed, PATIENCE)
    await kept.refresh()
    await kept.close()


@pytest.mark.parametrize(
    ("section", "value", "name"),
    [
        ("listen", ["udp://127.0.0.1:1"], "listen"),
        ("tls", None, "tls"),
        ("pump", {"kind": "portable"}, "pump.kind"),
        ("pump", {"threads": 7}, "pump.threads"),
        ("nat_discovery", {"primary": "127.0.0.1"}, "nat_discovery"),
    ],
)
async def test_reload_says_again_and_again_what_needs_a_restart(
    serve: Serve, section: str, value: Any, name: str
) -> None:
    application = await serve()
    for _ in range(2):
        assert application.reload(changed(application, **{section: value})) == [name]
    assert await application.rooms.is_alive()


async def test_reload_changes_what_a_pump_can_change_as_it_runs(serve: Serve) -> None:
    application = await serve()
    new = {"gso": False, "busy_poll": 20, "threads": 7}
    assert application.reload(changed(application, pump=new)) == ["pump.threads"]
    kept = application.settings.pump
    assert (kept.gso, kept.busy_poll, kept.threads) == (False, 20, "auto")


async def test_reload_with_a_broken_certificate_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    application = await serve()
    before = application.settings
    broken = {"certificate": tmp_path / "none.pem", "key": tmp_path / "none.pem"}
    with pytest.raises(StartError, match=r"none\.pem: No such file"):
        application.reload(changed(application, tls=broken, realm="elsewhere"))
    assert application.settings is before


async def test_a_renewed_certificate_is_noticed(serve: Serve, tmp_path: Path) -> None:
    files = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    application = await serve(tls={"certificate": files.certificate, "key": files.key})
    old = await StreamLink.open(address_of(application, "tls"), tls=tls_context(insecure=True))
    first = files.certificate.read_text()
    with capture_logs() as logs:
        application.rooms.tls.check()
        firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
        application.rooms.tls.check()
        application.rooms.tls.check()
    assert [entry["event"] for entry in logs] == ["certificate reloaded"]
    new = await StreamLink.open(address_of(application, "tls"), tls=tls_context(insecure=True))
    shown = new._socket.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert shown == ssl.PEM_cert_to_DER_cert(files.certificate.read_text()) != ssl.PEM_cert_to_DER_cert(first)
    assert not old.closed.done()
    await old.close()
    await new.close()


def test_a_certificate_half_replaced_leaves_the_old_one_until_it_is_whole(
    tmp_path: Path, certificate: TlsFiles
) -> None:
    files = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    contexts = TlsContexts(files)
    before = contexts.current
    files.certificate.write_bytes(certificate.certificate.read_bytes())
    with pytest.raises(CertificateError):
        contexts.reload_if_changed()
    assert contexts.current is before
    assert not contexts.reload_if_changed()
    files.key.write_bytes(certificate.key.read_bytes())
    assert contexts.reload_if_changed()
    assert contexts.current is not before


async def test_draining_ends_with_the_last_allocation(serve: Serve) -> None:
    application = await serve()
    client = await client_of(application)
    await client.allocate()
    application.drain()
    late = await client_of(application)
    with pytest.raises(ClientError):
        await late.allocate()
    assert not application.finished.is_set()
    await client.refresh(0)
    await asyncio.wait_for(application.finished.wait(), PATIENCE)
    await client.close()
    await late.close()


class ShiftedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def test_an_allocation_that_nobody_refreshes_expires() -> None:
    heard = Heard()
    listen = ["udp://127.0.0.1:0"]
    settings = Settings.model_validate({"listen": listen, "credentials": {"users": {USER: PASSWORD}}})
    application = Application(settings, sinks=(heard,))

    async def serve_and_wait() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        await application.start()
        client = await client_of(application)
        await client.allocate()
        loop.ahead += client.lifetime - 10
        await settle()
        assert len(application.server) == 1
        loop.ahead += 10
        await settle()
        assert len(application.server) == 0
        client.relayed = ()
        await client.close()
        await application.stop()

    with asyncio.Runner(loop_factory=ShiftedLoop) as runner:
        runner.run(serve_and_wait())
    ended = heard.events[-1]
    assert isinstance(ended, tuple)
    assert ended[0].reason is EndReason.EXPIRED


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_two_clients_meet_under_the_safe_policy(serve: Serve) -> None:
    application = await serve(peers={})
    ends = [await client_of(application) for _ in range(2)]
    for end in ends:
        await end.allocate()
    for end, other in zip(ends, reversed(ends), strict=True):
        await end.permit(other.relayed[0])
    ends[0].send(ends[1].relayed[0], b"hello")
    assert await asyncio.wait_for(ends[1].receive(), PATIENCE) == PeerData(ends[0].relayed[0], b"hello")
    for end in ends:
        await end.close()


async def test_another_port_of_the_relay_host_is_out_of_reach(serve: Serve) -> None:
    """A permission for the server's own relay address opens live allocations, and no other service there."""
    application = await serve(peers={})
    client = await client_of(application)
    await client.allocate()
    await client.permit(client.relayed[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.setblocking(False)
        client.send(Address(*service.getsockname()), b"attack")
        await client.binding()  # is answered after the indication was judged
        await asyncio.sleep(0.05)
        with pytest.raises(BlockingIOError):
            service.recv(100)
    await client.close()


async def test_both_families_are_served_on_every_address(serve: Serve) -> None:
    application = await serve(listen=["udp://*:0", "tcp://*:0"], tls=None, relay={"addresses": ["127.0.0.1", "::1"]})
    for each in application.listening:
        host = "::1" if ":" in each.host else "127.0.0.1"
        opener = DatagramLink.open if each.transport == "udp" else StreamLink.open
        client = TurnClient(await opener(Address(host, each.port)), Login(USER, PASSWORD))
        await client.allocate(AllocateOptions(additional_family=Family.IPV6))
        assert client.mapped == client.link.local
        assert [address.host for address in client.relayed] == ["127.0.0.1", "::1"]
        await client.close()


async def test_stun_alone_needs_no_credentials(serve: Serve) -> None:
    application = await serve(stun_only=True, credentials={})
    assert application.rooms.first_run is None
    client = await client_of(application)
    await client.binding()
    with pytest.raises(ClientError):
        await client.allocate()
    await client.close()


async def test_a_listener_that_fails_closes_those_before_it(certificate: TlsFiles) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listen = [f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"]
        settings = Settings.model_validate({"listen": listen, "credentials": {"secret": "north of the wall"}})
        with pytest.raises(StartError, match=rf"tcp://127\.0\.0\.1:{port}: port {port}/tcp is in use"):
            await Application(settings).start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"listen": ["udp://192.0.2.77:3478"]}, r"udp://192\.0\.2\.77:3478: this host has no address 192\.0\.2\.77"),
        ({"listen": ["tls://127.0.0.1:0"], "tls": None}, "needs a certificate"),
        ({"tls": {"certificate": "/nonexistent/a.pem", "key": "/nonexistent/b.pem"}}, "cannot read /nonexistent/a.pem"),
    ],
)
async def test_what_keeps_the_server_from_starting_is_named(
    serve: Serve, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(StartError, match=message):
        await serve(**sections)


async def test_a_pump_without_ports_means_508_and_an_unserved_family_440(serve: Serve) -> None:
    application = await serve(relay={"addresses": ["127.0.0.1"], "ports": "49152-49152"}, pump={"kind": "portable"})
    clients = [await client_of(application) for _ in range(2)]
    await clients[0].allocate()
    with pytest.raises(ClientError, match="508"):
        await clients[1].allocate()
    with pytest.raises(ClientError, match="440"):
        await clients[1].allocate(AllocateOptions(family=Family.IPV6))
    for client in clients:
        await client.close()


async def test_a_fault_in_the_pump_costs_one_request(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    application = await serve(pump={"kind": "portable"})
    open_relay = application.pump.open

    def broken(request: OpenRelay) -> Opened:
        monkeypatch.setattr(application.pump, "open", open_relay)
        raise RuntimeError("a bug")

    monkeypatch.setattr(application.pump, "open", broken)
    client = await client_of(application)
    with capture_logs() as logs, pytest.raises(ClientError, match="508"):
        await client.allocate()
    assert [entry["event"] for entry in logs] == ["a command could not be carried out"]
    await client.allocate()
    await client.close()


async def test_a_pump_that_is_gone_does_not_seem_alive(serve: Serve) -> None:
    application = await serve()
    assert await application.rooms.is_alive()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        assert not await takes_packets(application.pump, Address(*deaf.getsockname()), within=0.05)
