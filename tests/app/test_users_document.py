"""docs/users.md does what it says: its settings are settings, its snippets make credentials and answer the hook."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.test_identities import assert_refused, assert_relays
from tests.conftest import Serve, free_port, wait_until
from turnsvr import config

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "users.md"
SHARED = "0123456789abcdef0123456789abcdef"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def test_every_example_of_settings_is_one(tmp_path: Path) -> None:
    found = blocks("yaml")
    assert len(found) == 6
    environ = dict.fromkeys(("TURN_SECRET", "HOOK_SECRET", "SHOP_SECRET"), "north of the wall")
    environ |= dict.fromkeys(("OLD_KEY", "NEW_KEY"), b64encode(os.urandom(32)).decode())
    for text in found:
        file = tmp_path / "turnsvr.yaml"
        file.write_text(text)
        assert config.load(file, environ).has_credentials


@pytest.fixture
def made(tmp_path: Path) -> list[str]:
    """User name and password that the document's snippet makes with a key in tmp_path."""
    (tmp_path / "turn.key").write_text(SHARED + "\n")
    script = blocks("python")[0] + "print(ice_server['username'], ice_server['credential'])"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout.split()


async def test_the_token_that_the_snippet_makes_is_good(serve: Serve, made: list[str], tmp_path: Path) -> None:
    tokens = {"keys": tmp_path / "turn.key", "algorithms": ["HS256"], "audience": "turn.example.org"}
    application = await serve(credentials={"tokens": tokens})
    await assert_relays(application, *made)


@pytest.fixture
def receiver() -> Iterator[int]:
    """Port of the document's web service, which runs."""
    port = free_port()
    snippet = blocks("python")[1].replace("9000", str(port))
    with subprocess.Popen([sys.executable, "-c", snippet], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: listens(port) or None, "the web service of the document")
            yield port
        finally:
            process.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_web_service_of_the_snippet_serves(serve: Serve, receiver: int) -> None:
    hook = {"url": f"http://127.0.0.1:{receiver}/turn", "secret": "the secret of the hook", "timeout": "10s"}
    application = await serve(credentials={"hook": hook})
    await assert_relays(application, "alice", "wonderland")
    await assert_refused(application, "alice", "wrong", 401)
    await assert_refused(application, "eve", "wonderland", 401)


async def test_the_web_service_of_the_snippet_refuses_who_cannot_sign(serve: Serve, receiver: int) -> None:
    hook = {"url": f"http://127.0.0.1:{receiver}/turn", "secret": "another secret", "timeout": "10s"}
    application = await serve(credentials={"hook": hook})
    await assert_refused(application, "alice", "wonderland", 500)
    assert not application.rooms.identities.health[0].available
