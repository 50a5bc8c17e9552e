"""Keys of tokens in a file that changes, and at an address that comes and goes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from tests.conftest import PATIENCE
from tests.credentials.service import Request, Service, answer
from turnsvr.credentials.keyrings import KeyFile, KeyUrl
from turnsvr.credentials.tokenkeys import BadKeys

SHARED = "0123456789abcdef0123456789abcdef"
HS = frozenset({"HS256"})
ES = frozenset({"ES256"})


class Clock:
    now = 5_000.0

    def __call__(self) -> float:
        return self.now


def document(*kids: str) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key))
    return {"keys": [{**jwk, "kid": kid} for kid in kids]}


def kids(ring: KeyFile | KeyUrl) -> list[str | None]:
    return [key.kid for key in ring.current]


def replace(path: Path, text: str) -> None:
    """As careful programs do, so that even within a clock's tick the file is another."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(SHARED)
    ring = KeyFile(path, HS)
    first = ring.current
    with capture_logs() as logs:
        await ring.look_again()
        assert ring.current is first
        os.utime(path)
        await ring.look_again()
        assert ring.current is first
        replace(path, SHARED[::-1])
        await ring.look_again()
    assert ring.current[0].shared == SHARED[::-1].encode()
    assert [entry["event"] for entry in logs] == ["keys of tokens reloaded"]


async def test_a_broken_file_leaves_the_keys_and_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(SHARED)
    ring = KeyFile(path, HS)
    first = ring.current
    with capture_logs() as logs:
        for _ in range(3):
            replace(path, "short") if not logs else None
            await ring.look_again()
        path.unlink()
        await ring.look_again()
    assert ring.current is first
    assert [entry["event"] for entry in logs] == ["keys of tokens not reloaded"] * 2
    assert "short" not in repr(logs)
    replace(path, SHARED[::-1])
    await ring.look_again()
    assert ring.current is not first


def test_a_file_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(BadKeys, match=r"none: No such file"):
        KeyFile(tmp_path / "none", HS)
    (tmp_path / "keys").write_text("short")
    with pytest.raises(BadKeys, match=r"keys: holds a shared key of less"):
        KeyFile(tmp_path / "keys", HS)


async def test_a_file_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnsvr.credentials.keyrings._FILE_SECONDS", 0.01)
    path = tmp_path / "keys"
    path.write_text(SHARED)
    ring = KeyFile(path, HS)
    await ring.start()
    first = ring.current
    replace(path, SHARED[::-1])
    async with asyncio.timeout(PATIENCE):
        while ring.current is first:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await ring.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ring(service: Service, clock: Clock) -> AsyncIterator[KeyUrl]:
    found = KeyUrl(service.url, ES, timeout=PATIENCE, clock=clock)
    yield found
    await found.close()


def publish(service: Service, body: object, status: int = 200) -> None:
    async def respond(request: Request) -> bytes:
        return answer(status, body)

    service.respond = respond  # type: ignore[method-assign]


async def test_a_document_is_fetched_at_the_start(service: Service, ring: KeyUrl) -> None:
    publish(service, document("one", "two"))
    assert ring.current == ()
    await ring.start()
    assert kids(ring) == ["one", "two"]
    assert [request.method for request in service.requests] == ["GET"]


async def test_an_unknown_key_has_it_fetched_again_now_and_then(service: Service, ring: KeyUrl, clock: Clock) -> None:
    publish(service, document("one"))
    await ring.start()
    first = ring.current
    clock.now += 29.9
    await ring.look_again()
    assert len(service.requests) == 1
    clock.now += 0.1
    for _ in range(10):
        await ring.look_again()
    assert len(service.requests) == 2
    assert ring.current is first
    publish(service, document("one", "two"))
    clock.now += 30
    await asyncio.gather(*(ring.look_again() for _ in range(10)))
    assert len(service.requests) == 3
    assert kids(ring) == ["one", "two"]


async def test_whoever_needs_a_document_that_is_on_its_way_waits_for_it(
    service: Service, ring: KeyUrl, clock: Clock
) -> None:
    publish(service, document("one"))
    await ring.start()
    publish(service, document("one", "two"))
    clock.now += 30

    async def known() -> list[str | None]:
        await ring.look_again()
        return kids(ring)

    assert list(await asyncio.gather(known(), known(), known())) == [["one", "two"]] * 3
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"", "status 500"),
        (302, b"", "status 302"),
        (200, b"<html>", "shared key of less"),
        (200, b"a shared key and no document: " * 3, "no key for the algorithms ES256"),
        (200, {"keys": []}, "no key for"),
        (200, {"keys": [{"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}, "no key for"),
        (200, b" " * 300_000, "more than 262144 bytes"),
    ],
)
async def test_what_is_no_document_leaves_the_keys(
    service: Service, ring: KeyUrl, clock: Clock, status: int, body: object, reason: str
) -> None:
    publish(service, document("one"))
    await ring.start()
    publish(service, body, status)
    with capture_logs() as logs:
        for _ in range(3):
            clock.now += 30
            await ring.look_again()
    assert kids(ring) == ["one"]
    assert [entry["event"] for entry in logs] == ["token keys unavailable"]
    assert reason in logs[0]["reason"]
    assert repr(logs).count(service.url) == 1
    assert not ring.health.available


async def test_a_service_that_is_away_at_the_start_is_asked_again(
    service: Service, ring: KeyUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnsvr.credentials.keyrings._RETRY_SECONDS", 0.01)
    await service.stop()
    await ring.start()
    assert ring.current == ()
    assert not ring.health.available
    publish(service, document("one"))
    await service.start()
    async with asyncio.timeout(PATIENCE):
        while not ring.current:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert ring.health.available


async def test_keys_stay_while_the_service_is_away(service: Service, ring: KeyUrl, clock: Clock) -> None:
    publish(service, document("one"))
    await ring.start()
    await service.stop()
    clock.now += 30
    await ring.look_again()
    assert kids(ring) == ["one"]
    assert not ring.health.available
