"""Usage records: what is in one, that the service has each at least once, that nothing grows without bound."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import hmac
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, ServerProcess, address_of, free_port, wait_until
from tests.credentials.service import Request, Service, answer
from turnsvr.app.errors import StartError
from turnsvr.app.snapshot import figures
from turnsvr.app.trial import obstacles
from turnsvr.app.usage.recordfile import RecordFile
from turnsvr.app.usage.sender import UsageSender
from turnsvr.app.usage.spool import Spool
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.turn import TurnClient
from turnsvr.config.settings import Settings
from turnsvr.stun.address import Address

SECRET = "a secret that both sides know"
SHOP_KEY, APP_KEY = "Yq2nVt8rLw4sXz6k", "Bd7mHc3pFj9gTe5a"


def lines(text: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class Receiver(Service):
    """Takes records, unless `status` says otherwise."""

    status = 200
    retry_after = ""

    @property
    def taken(self) -> list[dict[str, Any]]:
        return [record for request, status in self._answered if status == 200 for record in lines(request.body)]

    def __init__(self) -> None:
        super().__init__()
        self._answered: list[tuple[Request, int]] = []
        self._come = asyncio.Event()

    async def respond(self, request: Request) -> bytes:
        self._answered.append((request, self.status))
        self._come.set()
        return answer(self.status, **({"Retry_After": self.retry_after} if self.retry_after else {}))

    async def wait_requests(self, number: int) -> None:
        """Until so many have come."""
        await self._wait(lambda: len(self.requests) >= number)

    async def wait_taken(self, number: int) -> list[dict[str, Any]]:
        """The records, once there are so many."""
        await self._wait(lambda: len(self.taken) >= number)
        return self.taken

    async def _wait(self, is_there: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_there():
                self._come.clear()
                await self._come.wait()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    service = Receiver()
    await service.start()
    yield service
    await service.stop()


def spool_of(directory: Path, limit: int = 2**20, woken: Callable[[], None] = lambda: None) -> Spool:
    return Spool(directory / "spool", limit, woken)


def count_of(spool: Path) -> int:
    return sum(len(lines(file.read_bytes())) for file in spool.glob("*.jsonl"))


async def session(server: Address, login: Login | None = None, *, pings: int = 3) -> None:
    """One that sends so many packets of 100 bytes to itself over its own relay, and ends."""
    client = TurnClient(await DatagramLink.open(server), login or Login(USER, PASSWORD))
    await client.allocate()
    (relayed,) = client.relayed
    await client.permit(relayed)
    for _ in range(pings):
        client.send(relayed, b"x" * 100)
        async with asyncio.timeout(PATIENCE):
            await client.receive()
    await client.refresh(0)
    await client.close()


async def test_a_record_says_who_relayed_what(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    application = await serve(usage={"file": file})
    server = address_of(application, "udp")
    await session(server, pings=3)
    await asyncio.sleep(0)
    (record,) = lines(file.read_text())
    (process, count), (run, number) = record.pop("id").split("-"), record.pop("session").split("-")
    assert (len(process), count, len(run), number) == (12, "1", 12, "s1")
    assert record.pop("time") > 1_700_000_000
    assert record.pop("duration") < PATIENCE
    assert record.pop("client").startswith("127.0.0.1:")
    assert [each.startswith("127.0.0.1:") for each in record.pop("relayed")] == [True]
    assert record == {
        "kind": "end",
        "realm": "example.org",
        "user": USER,
        "tag": None,
        "server": str(server),
        "transport": "udp",
        "path": application.rooms.pump.name,
        "bytes_from_client": 300,
        "bytes_to_client": 300,
        "packets_from_client": 3,
        "packets_to_client": 3,
        "packets_dropped": 0,
        "reason": "client ended it",
    }
    assert (file.stat().st_mode & 0o777) == 0o640


async def test_the_tag_is_that_of_the_key_that_made_the_name(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    application = await serve(
        credentials={"secret": "north of the wall"},
        web={
            "listen": "http://127.0.0.1:0",
            "public": True,
            "keys": [{"name": "shop", "key": SHOP_KEY}, {"name": "app", "tag": "mobile", "key": APP_KEY}],
        },
        usage={"file": file},
    )
    assert application.web is not None
    async with httpx.AsyncClient(base_url=str(application.web.listening[0]), trust_env=False) as http:
        for key in (SHOP_KEY, APP_KEY, None):
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            given = (await http.get("/ice-servers", headers=headers)).json()
            (relay,) = [each for each in given["iceServers"] if "username" in each]
            await session(address_of(application, "udp"), Login(relay["username"], relay["credential"]))
    await asyncio.sleep(0)
    assert [record["tag"] for record in lines(file.read_text())] == ["shop", "mobile", "public"]


async def test_a_session_that_lasts_has_records_in_between(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "usage.jsonl"
    application = await serve(usage={"file": file})
    client = TurnClient(await DatagramLink.open(address_of(application, "udp")), Login(USER, PASSWORD))
    await client.allocate()
    accounting = application.rooms.accounting
    assert accounting is not None
    await accounting.usage.tell_live()
    await accounting.usage.tell_live()
    await client.close()
    await accounting.usage.tell_live()
    await asyncio.sleep(0)
    records = lines(file.read_text())
    assert [(record["kind"], record["reason"]) for record in records] == [
        ("interim", None),
        ("interim", None),
        ("end", "client ended it"),
    ]
    assert len({record["session"] for record in records}) == 1
    assert len({record["id"] for record in records}) == 3


async def test_requests_are_signed_and_one_for_many(serve: Serve, tmp_path: Path, receiver: Receiver) -> None:
    usage = {"url": receiver.url, "secret": SECRET, "spool": tmp_path / "spool", "batch": 4}
    application = await serve(usage=usage)
    await asyncio.gather(*(session(address_of(application, "udp")) for _ in range(6)))
    records = await receiver.wait_taken(6)
    assert len({record["id"] for record in records}) == len(records) == 6
    for request in receiver.requests:
        assert request.headers["content-type"] == "application/x-ndjson"
        assert len(lines(request.body)) <= 4
        signed = request.headers["x-turnsvr-timestamp"].encode() + b"." + request.body
        wanted = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert request.headers["x-turnsvr-signature"] == f"v1={wanted}"
    shown = figures(application.rooms)
    assert (shown.usage_records, shown.usage_records_left_out, shown.usage_requests_failed) == (6, 0, 0)
    await application.stop()
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_service_that_dies_misses_nothing(serve: Serve, tmp_path: Path, receiver: Receiver) -> None:
    application = await serve(usage={"url": receiver.url, "secret": SECRET, "spool": tmp_path / "spool"})
    server = address_of(application, "udp")
    await session(server)
    await receiver.wait_taken(1)
    await receiver.stop()
    for _ in range(5):
        await session(server)
    await receiver.start()
    records = await receiver.wait_taken(6)
    assert len({record["id"] for record in records}) == 6
    assert application.rooms.accounting is not None
    sender = application.rooms.accounting.sender
    assert sender is not None
    assert sender.failures >= 1


def test_a_server_that_is_killed_sends_what_it_left_after_the_next_start(
    server_process: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    async def run() -> None:
        receiver = Receiver()
        await receiver.start()
        await receiver.stop()  # the port is known, and nobody answers there
        port = free_port()
        settings = json.dumps(
            {
                "realm": "example.org",
                "listen": [f"udp://127.0.0.1:{port}"],
                "relay": {"addresses": ["127.0.0.1"]},
                "credentials": {"users": {USER: PASSWORD}},
                "peers": {"allow": ["127.0.0.1"]},
                "admin": {"socket": "off"},
                "usage": {"url": receiver.url, "secret": SECRET, "spool": str(tmp_path / "spool")},
            }
        )
        first = await asyncio.to_thread(server_process, settings)
        for _ in range(3):
            await session(Address("127.0.0.1", port))
        await asyncio.to_thread(wait_until, lambda: count_of(tmp_path / "spool") == 3, "three records in the spool")
        first.signal(signal.SIGKILL)
        await asyncio.to_thread(first.wait_end)
        await receiver.start()
        await asyncio.to_thread(server_process, settings)
        try:
            await session(Address("127.0.0.1", port))
            records = await receiver.wait_taken(4)
        finally:
            await receiver.stop()
        assert len({record["id"] for record in records}) == 4
        assert SECRET not in first.log

    asyncio.run(run())


async def test_a_service_that_wants_less_gets_less(tmp_path: Path, receiver: Receiver) -> None:
    sender = UsageSender(
        receiver.url, SECRET, lambda woken: spool_of(tmp_path, woken=woken), batch=8, timeout=PATIENCE, first_pause=0.01
    )
    accepted = receiver.respond

    async def small(request: Request) -> bytes:
        return answer(413) if len(lines(request.body)) > 2 else await accepted(request)

    receiver.respond = small  # type: ignore[method-assign]
    sender.put([b'{"n": %d}\n' % number for number in range(7)])
    sender.start()
    assert [record["n"] for record in await receiver.wait_taken(7)] == list(range(7))
    await sender.stop()


@pytest.mark.parametrize("status", [301, 400, 403, 404, 413, 429, 500, 503])
async def test_only_a_2xx_takes_records(tmp_path: Path, receiver: Receiver, status: int) -> None:
    receiver.status = status
    sender = UsageSender(
        receiver.url, SECRET, lambda woken: spool_of(tmp_path, woken=woken), batch=8, timeout=PATIENCE, first_pause=0.01
    )
    sender.put([b"{}\n"])
    sender.start()
    await receiver.wait_requests(3)
    receiver.status = 200
    assert await receiver.wait_taken(1) == [{}]
    await sender.stop()
    assert sender.sent == 1
    assert sender.failures >= 3


async def test_the_service_says_when_to_come_again(tmp_path: Path, receiver: Receiver) -> None:
    receiver.status, receiver.retry_after = 503, "3600"
    sender = UsageSender(
        receiver.url, SECRET, lambda woken: spool_of(tmp_path, woken=woken), batch=8, timeout=PATIENCE, first_pause=0.01
    )
    sender.put([b"{}\n"])
    sender.start()
    await receiver.wait_requests(1)
    await asyncio.sleep(0.2)
    assert len(receiver.requests) == 1
    await sender.stop()


class TestSpool:
    def test_gives_what_was_put_in_order_and_once(self, tmp_path: Path) -> None:
        spool = spool_of(tmp_path)
        spool.put([b"1\n", b"2\n"])
        spool.put([b"3\n"])
        batch = spool.next(2)
        assert batch is not None
        assert batch.lines == (b"1\n", b"2\n")
        assert spool.next(2) == batch
        spool.taken(batch)
        last = spool.next(2)
        assert last is not None
        assert last.lines == (b"3\n",)
        spool.taken(last)
        assert spool.next(2) is None
        spool.close()

    def test_what_is_left_is_there_for_the_next(self, tmp_path: Path) -> None:
        first = spool_of(tmp_path)
        first.put([b"1\n", b"2\n", b"3\n"])
        batch = first.next(1)
        assert batch is not None
        first.taken(batch)
        first.close()
        second = spool_of(tmp_path)
        second.put([b"4\n"])
        found: list[bytes] = []
        while (batch := second.next(10)) is not None:
            found += batch.lines
            second.taken(batch)
        assert found == [b"2\n", b"3\n", b"4\n"]
        second.close()

    def test_two_processes_do_not_send_the_same(self, tmp_path: Path) -> None:
        first, second = spool_of(tmp_path), spool_of(tmp_path)
        first.put([b"1\n"])
        second.put([b"2\n"])
        of_first, of_second = first.next(10), second.next(10)
        assert of_first is not None
        assert of_second is not None
        assert (of_first.lines, of_second.lines) == ((b"1\n",), (b"2\n",))
        first.close()
        second.taken(of_second)
        left = second.next(10)
        assert left is None or left.lines == (b"1\n",)
        second.close()

    def test_a_file_that_another_process_takes_for_an_empty_one_is_made_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is there before it is locked."""
        first, second = spool_of(tmp_path), spool_of(tmp_path)
        lock = fcntl.flock

        def flock(descriptor: int, operation: int) -> None:
            monkeypatch.setattr(fcntl, "flock", lock)
            assert second.next(10) is None
            lock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        first.put([b"1\n"])
        first.close()
        batch = second.next(10)
        assert batch is not None
        assert batch.lines == (b"1\n",)
        second.close()

    def test_a_line_that_was_not_ended_is_no_record(self, tmp_path: Path) -> None:
        (tmp_path / "spool").mkdir()
        torn = tmp_path / "spool" / "00000000000000000001-aa.jsonl"
        torn.write_bytes(b'{"whole": 1}\n{"torn": ')
        spool = spool_of(tmp_path)
        batch = spool.next(10)
        assert batch is not None
        assert batch.lines == (b'{"whole": 1}\n',)
        spool.taken(batch)
        assert spool.next(10) is None
        assert not torn.exists()
        spool.close()

    @pytest.mark.parametrize("position", ["", "x", "-5", "999999999"])
    def test_a_position_that_makes_no_sense_loses_no_file(self, tmp_path: Path, position: str) -> None:
        (tmp_path / "spool").mkdir()
        (tmp_path / "spool" / "00000000000000000001-aa.jsonl").write_bytes(b"1\n2\n")
        (tmp_path / "spool" / "00000000000000000001-aa.sent").write_text(position)
        spool = spool_of(tmp_path)
        batch = spool.next(10)
        assert batch is not None
        assert batch.lines == (b"1\n", b"2\n")
        spool.close()

    def test_it_is_bounded_and_counts_what_it_leaves_out(self, tmp_path: Path) -> None:
        spool = spool_of(tmp_path, limit=1000)
        line = b"x" * 99 + b"\n"
        for _ in range(15):
            spool.put([line])
        assert (spool.size, spool.left_out) == (1000, 5)
        batch = spool.next(100)
        assert batch is not None
        assert len(batch.lines) == 10
        spool.taken(batch)
        spool.close()
        again = spool_of(tmp_path, limit=1000)
        again.put([line])
        assert again.left_out == 0
        again.close()

    def test_files_are_small_and_go_when_they_are_sent(self, tmp_path: Path) -> None:
        spool = spool_of(tmp_path, limit=2**24)
        line = b"x" * 99_999 + b"\n"
        for _ in range(35):
            spool.put([line])
        assert len(list((tmp_path / "spool").iterdir())) == 4
        count = 0
        while (batch := spool.next(10)) is not None:
            count += len(batch.lines)
            spool.taken(batch)
        assert count == 35
        spool.close()
        assert list((tmp_path / "spool").iterdir()) == []


async def test_the_file_is_opened_again(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "usage.jsonl")
    file.put([b"1\n"])
    (tmp_path / "usage.jsonl").rename(tmp_path / "usage.jsonl.1")
    file.reopen()
    file.put([b"2\n"])
    file.close()
    assert (tmp_path / "usage.jsonl.1").read_bytes() == b"1\n"
    assert (tmp_path / "usage.jsonl").read_bytes() == b"2\n"


async def test_a_place_that_cannot_be_written_is_said_at_start(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    for usage in (
        {"file": tmp_path / "none" / "usage.jsonl"},
        {"url": "http://127.0.0.1:1/", "secret": SECRET, "spool": tmp_path / "plain" / "spool"},
    ):
        with pytest.raises(StartError, match="usage: "):
            await serve(usage=usage)


def test_check_says_what_would_keep_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    settings = Settings.model_validate(
        {
            "credentials": {"users": {USER: PASSWORD}},
            "usage": {"file": tmp_path, "url": "http://127.0.0.1:1/", "secret": SECRET, "spool": tmp_path / "plain"},
        }
    )
    found = {each.setting: each.text for each in obstacles(settings) if each.setting.startswith("usage")}
    assert found.keys() == {"usage.file", "usage.spool"}


@pytest.mark.parametrize(
    ("usage", "problem"),
    [
        ({}, "says nowhere to put records"),
        ({"url": "http://127.0.0.1:1/"}, "url without secret"),
        ({"file": "/tmp/x", "secret": SECRET}, "secret without url"),
        ({"file": "/tmp/x", "every": "5s"}, "less than 10 s"),
    ],
)
def test_settings_that_make_no_sense_are_refused(usage: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Settings.model_validate({"usage": usage})
