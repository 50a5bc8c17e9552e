"""A server with dtls:// listeners, from its settings to its end."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, ServerProcess, address_of, free_port
from turnsvr.app import firstrun, trial
from turnsvr.app.errors import StartError
from turnsvr.client.credentials import Login
from turnsvr.client.dtls import DtlsContext
from turnsvr.client.link import DtlsLink, LinkClosed, open_link, tls_context
from turnsvr.client.probe import probe
from turnsvr.client.probe_report import render
from turnsvr.client.transaction import Timers, TransactionFailed
from turnsvr.client.turn import TurnClient
from turnsvr.config.settings import Settings
from turnsvr.credentials import ice
from turnsvr.net.tls import TlsFiles
from turnsvr.relay import refuses_dtls
from turnsvr.stun.address import Address, Transport

TIMERS = Timers.within(PATIENCE)

needs_dtls = pytest.mark.skipif(bool(refuses_dtls("auto")), reason=refuses_dtls("auto"))


def settings_of(certificate: TlsFiles, **sections: object) -> Settings:
    tls = {"certificate": certificate.certificate, "key": certificate.key}
    return Settings.model_validate(
        {"listen": ["dtls://127.0.0.1:0"], "tls": tls, "credentials": {"users": {USER: PASSWORD}}} | sections
    )


async def client_at(server: Address, transport: Transport = Transport.DTLS) -> TurnClient:
    link = await open_link(transport, server, tls=tls_context(insecure=True), timers=TIMERS)
    client = TurnClient(link, Login(USER, PASSWORD), timers=TIMERS)
    await client.allocate()
    return client


async def test_the_portable_pump_refuses_it(serve: Serve, certificate: TlsFiles) -> None:
    """check and run say so in the same words."""
    (refusal,) = await asyncio.to_thread(trial.obstacles, settings_of(certificate, pump={"kind": "portable"}))
    assert refusal.setting == "listen"
    assert "the portable pump has no DTLS; set pump.kind to auto or compiled" in refusal.text
    with pytest.raises(StartError, match="the portable pump has no DTLS"):
        await serve(listen=["dtls://127.0.0.1:0"], pump={"kind": "portable"})


@needs_dtls
async def test_dtls_1_3_is_not_there(serve: Serve, certificate: TlsFiles) -> None:
    tls = {"certificate": certificate.certificate, "key": certificate.key, "minimum_version": "1.3"}
    (refusal,) = await asyncio.to_thread(trial.obstacles, settings_of(certificate, tls=tls))
    assert (refusal.setting, "has no DTLS 1.3" in refusal.text) == ("tls.minimum_version", True)
    with pytest.raises(StartError, match=r"has no DTLS 1\.3"):
        await serve(listen=["dtls://127.0.0.1:0"], tls=tls)
    assert not await asyncio.to_thread(trial.obstacles, settings_of(certificate))


@needs_dtls
@pytest.mark.parametrize("order", [("udp", "dtls"), ("dtls", "udp")])
async def test_udp_and_dtls_have_one_port(serve: Serve, order: tuple[str, str]) -> None:
    port = free_port()
    application = await serve(listen=[f"{each}://127.0.0.1:{port}" for each in order])
    assert [str(each) for each in application.listening] == [f"{each}://127.0.0.1:{port}" for each in order]
    assert ice.turn_urls("turn.example.org", application.listening) == [
        f"turn:turn.example.org:{port}?transport=udp",
        f"turns:turn.example.org:{port}?transport=udp",
    ]
    for url in (f"turn:127.0.0.1:{port}?transport=udp", f"turns:127.0.0.1:{port}?transport=udp"):
        report = await probe(url, USER, PASSWORD, insecure=True, timeout=PATIENCE)
        assert report.ok, render(report)
        assert len(report.legs) == 1
    assert await application.rooms.is_alive()


@needs_dtls
async def test_the_probe_says_what_is_wrong_with_the_certificate(serve: Serve) -> None:
    application = await serve(listen=["dtls://127.0.0.1:0"])
    url = f"turns:{address_of(application, 'dtls')}?transport=udp"
    report = await probe(url, USER, PASSWORD, timeout=PATIENCE)
    (step,) = (step for step in report.legs[0].steps if step.advice)
    assert step.name == "connect"
    assert "self-signed certificate" in step.detail
    assert "--insecure" in step.advice


async def test_the_probe_says_that_nobody_answers() -> None:
    report = await probe(f"turns:127.0.0.1:{free_port()}?transport=udp", USER, PASSWORD, timeout=0.5)
    assert not report.ok
    assert "nothing listens on this UDP port" in render(report)


@needs_dtls
async def test_the_client_sees_its_own_address(serve: Serve) -> None:
    application = await serve(listen=["dtls://127.0.0.1:0"])
    client = await client_at(address_of(application, "dtls"))
    assert client.mapped == client.link.local
    await client.link.close()


@needs_dtls
async def test_goodbye_ends_the_allocation(serve: Serve) -> None:
    application = await serve(listen=["dtls://127.0.0.1:0"])
    client = await client_at(address_of(application, "dtls"))
    assert len(application.server) == 1
    await client.link.close()
    async with asyncio.timeout(PATIENCE):
        while len(application.server):  # noqa: ASYNC110 - a pump's thread tells nobody
            await asyncio.sleep(0.001)


@needs_dtls
async def test_a_renewed_certificate_is_for_new_handshakes(serve: Serve, certificate: TlsFiles, tmp_path: Path) -> None:
    """Also where a reload brings it; what there is stays, and no client notices."""
    files = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    tls = {"certificate": files.certificate, "key": files.key}
    application = await serve(listen=["dtls://127.0.0.1:0"], tls=tls)
    server = address_of(application, "dtls")
    old = await client_at(server)
    for change in ("the file", "a reload"):
        (tmp_path / change).mkdir()
        renewed = firstrun.write_self_signed(tmp_path / change, ["127.0.0.1"])
        shutil.copy(renewed.certificate, files.certificate)
        shutil.copy(renewed.key, files.key)
        if change == "the file":
            application.rooms.tls.check()
        else:
            application.reload(application.settings)
        trusting = DtlsContext(ca_file=str(renewed.certificate))
        new = await DtlsLink.connect(server, trusting, timers=TIMERS)
        await new.close()
        await old.refresh()
    await old.link.close()


@needs_dtls
def test_sigterm_says_goodbye(certificate: TlsFiles, tmp_path: Path) -> None:
    port = free_port()
    settings = f"""
listen: ["dtls://127.0.0.1:{port}"]
tls: {{certificate: {certificate.certificate}, key: {certificate.key}}}
relay: {{addresses: [127.0.0.1]}}
credentials: {{users: {{{USER}: {PASSWORD}}}}}
"""

    async def refreshing(client: TurnClient) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(TransactionFailed):  # the allocation ends before the connection does
                    await client.refresh()

    async def scenario(process: ServerProcess) -> None:
        client = await client_at(Address("127.0.0.1", port))
        process.process.terminate()
        try:
            with pytest.raises((LinkClosed, OSError)):
                await refreshing(client)
        finally:
            await client.link.close()

    with ServerProcess(settings, tmp_path) as process:
        asyncio.run(scenario(process))
        assert process.process.wait(PATIENCE) == 0
