"""`turnsvr trace` against a server in a process of its own, and its captures as other programs read them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_control import Served, off_loop, settings
from tests.conftest import PATIENCE, USER, ServerProcess, free_port, need
from turnsvr.cli.capture import Capture
from turnsvr.cli.tracetext import Lines
from turnsvr.stun import attributes as a
from turnsvr.stun.message import Class, Message, Method


@pytest.fixture
def traced(tmp_path: Path, run: Run) -> Iterator[Served]:
    port = free_port()
    with ServerProcess(settings(port), tmp_path) as process:
        yield Served(process, port, run)


def dissected(file: Path, *fields: str) -> list[str]:
    """These fields of each packet, as Wireshark sees them, with semicolons between."""
    options = ["-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-T", "fields", "-E", "separator=;"]
    wanted = [word for field in fields for word in ("-e", field)]
    command = [need("tshark"), "-n", "-r", str(file), *options, *wanted]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


async def watch(served: Served, *arguments: str) -> asyncio.Task[str]:
    """Begins a trace of two seconds; ends with what it printed."""
    task = asyncio.create_task(off_loop(served.run, "trace", "--for", "2s", *arguments))
    await asyncio.sleep(0.5)
    return task


async def test_a_client_in_words_and_in_a_capture(traced: Served, tmp_path: Path) -> None:
    file = tmp_path / "call.pcapng"
    task = await watch(traced, "--client", "127.0.0.1", "--pcap", str(file), "--data")
    one, other = await traced.client(), await traced.client()
    await one.bind_channel(other.relayed[0], 0x4000)
    await other.permit(one.relayed[0])
    one.send_channel(0x4000, b"hello over there")
    await other.receive()
    near, far = one.relayed[0].port, other.relayed[0].port
    await one.refresh(0)
    text = await asyncio.wait_for(task, PATIENCE)
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3}  → Allocate request$", text, re.MULTILINE)
    assert "← Allocate error 401 Unauthenticated  (after " in text
    assert f"USERNAME {USER}; " in text
    assert "credentials right" in text
    assert f"-- udp {one.link.local} to 127.0.0.1:{traced.port}, no session yet" in text
    assert "→ ChannelBind request" in text
    assert "→ data, 16 bytes" in text
    assert file.stat().st_mode & 0o777 == 0o600
    seen = await off_loop(
        dissected, file, "udp.srcport", "udp.dstport", "stun.type", "stun.att.error", "udp.checksum.status", "data.data"
    )
    client, server = one.link.local.port, traced.port
    assert seen[0].startswith(f"{client};{server};0x0003;")
    assert seen[1].startswith(f"{server};{client};0x0113;1;")
    assert seen[3].startswith(f"{server};{client};0x0103;")
    assert {line.split(";")[4] for line in seen} <= {"1", "Good"}
    assert f"{near};{far};;;" in "\n".join(seen)
    assert b"hello over there".hex() in "\n".join(seen).replace(":", "")
    await other.close()
    one.relayed = ()
    await one.close()


async def test_json_lines_of_a_session(traced: Served) -> None:
    client = await traced.client()
    task = await watch(traced, "--session", "1", "--json")
    await client.refresh(0)
    events = [json.loads(line) for line in (await asyncio.wait_for(task, PATIENCE)).splitlines()]
    assert [(each["method"], each["kind"]) for each in events] == [("Refresh", "request"), ("Refresh", "success")]
    assert "bytes" not in events[0]
    client.relayed = ()
    await client.close()


def test_mistakes_of_the_command_line(traced: Served) -> None:
    assert "name one client" in traced.run("trace", status=2)
    assert "name one client" in traced.run("trace", "--user", "a", "--session", "1", status=2)
    assert "--pcap" in traced.run("trace", "--user", "a", "--data", status=2)
    assert "there is no session 99" in traced.run("trace", "--session", "99", status=1)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "dtls"])
@pytest.mark.parametrize(
    ("client", "server"),
    [("192.0.2.7:50000", "198.51.100.1:5349"), ("[2001:db8::7]:50000", "[2001:db8::1]:5349")],
)
def test_other_programs_read_every_kind_of_capture(tmp_path: Path, transport: str, client: str, server: str) -> None:
    request = Message(Method.ALLOCATE, Class.REQUEST, b"transaction1").add(a.REQUESTED_TRANSPORT, 17)
    answer = request.reply(Class.ERROR).add(a.ERROR_CODE, a.Error(508, "Insufficient Capacity"))
    file = tmp_path / "capture"
    with file.open("wb") as target:
        capture = Capture(target)
        for from_client, message in ((True, request), (False, answer), (True, request)):
            capture.add(
                {
                    "what": "message", "at": 1_700_000_000.25, "transport": transport, "client": client,
                    "server": server, "from_client": from_client, "session": 3, "bytes": message.encode(),
                }
            )  # fmt: skip
        capture.add(
            {
                "what": "packet", "at": 1_700_000_001.0, "relayed": "[2001:db8::1]:50001", "peer": "[2001:db8::9]:9",
                "from_client": False, "session": 3, "bytes": b"x" * 100, "size": 3_000,
            }
        )  # fmt: skip
    fields = [
        row.split(";")
        for row in dissected(
            file, "frame.time_epoch", "frame.protocols", "stun.type", "tcp.checksum.status", "udp.checksum.status",
            "tcp.seq_raw", "frame.len", "frame.cap_len",
        )
    ]  # fmt: skip
    assert len(fields) == 4
    assert fields[0][0].startswith("1700000000.25")
    assert [each[1].endswith(":stun") for each in fields[:3]] == [True, True, True]
    assert [each[2] for each in fields[:3]] == ["0x0003", "0x0113", "0x0003"]
    assert {each[3] or each[4] for each in fields[:3]} <= {"1", "Good"}
    if transport in ("tcp", "tls"):
        assert [each[5] for each in fields[:3]] == ["1", "1", str(1 + len(request.encode()))]
    assert fields[3][6:] == [str(40 + 8 + 3_000), str(40 + 8 + 100)]
    subprocess.run([need("tcpdump"), "-n", "-r", file], check=True, capture_output=True)


def test_hostile_text_is_harmless() -> None:
    event = {
        "what": "message", "at": 0.0, "transport": "udp", "client": "192.0.2.1:1", "server": "192.0.2.2:3478",
        "from_client": True, "session": None, "method": "Allocate", "kind": "request", "transaction": "00",
        "proven": None, "problem": "",
        "attributes": [{"name": "SOFTWARE", "value": "\x1b]0;owned\x07\n"}],
    }  # fmt: skip
    (_, _, said) = Lines().of(event)
    assert said.strip() == "SOFTWARE \\x1b]0;owned\\x07\\n"
