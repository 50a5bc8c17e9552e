"""Names proven on ports that TURN shares with HTTP, and with TLS servers of other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.app.test_certificates import DOMAINS, acme, issued, start_authority
from tests.conftest import Serve, free_port
from tests.net.test_sharing import backend


def shares(port: int) -> dict[str, dict[str, Any]]:
    """Sections of settings, with another server at this port."""
    place = f"tcp://127.0.0.1:{port}"
    return {
        "web": {"share": "web", "web": {"listen": "http://127.0.0.1:0"}},
        "another server": {"share": place},
        "names": {"share": {"pass_through": {"shop.example.org": place}}},
    }


@pytest.mark.parametrize(
    ("share", "challenge"),
    [
        ("web", "tls-alpn-01"),
        ("web", "http-01"),
        ("another server", "tls-alpn-01"),
        ("another server", "http-01"),
        ("names", "tls-alpn-01"),
    ],
)
async def test_names_are_proven(serve: Serve, tmp_path: Path, share: str, challenge: str) -> None:
    port, by_tls = free_port(), challenge == "tls-alpn-01"
    ports = {"tls_port": port} if by_tls else {"http_port": port}
    async with backend() as (behind, told):
        with start_authority(tmp_path, **ports) as authority:
            application = await serve(
                listen=["udp://127.0.0.1:0", f"{'tls' if by_tls else 'tcp'}://127.0.0.1:{port}"],
                tls=acme(authority, tmp_path, challenge=challenge, http_port=port),
                **shares(behind)[share],
            )
            await issued(application)
        assert told == []


async def test_a_name_that_is_passed_through_is_proven_by_its_server(serve: Serve, tmp_path: Path) -> None:
    """Unless it is one of ours."""
    port = free_port()
    async with backend(b"ok", always=True) as (behind, told):
        with start_authority(tmp_path, tls_port=port) as authority:
            names = dict.fromkeys((*DOMAINS, "shop.example.org"), f"tcp://127.0.0.1:{behind}")
            application = await serve(
                listen=["udp://127.0.0.1:0", f"tls://127.0.0.1:{port}"],
                tls=acme(authority, tmp_path),
                share={"pass_through": names},
            )
            await issued(application)
        assert told == []
