"""`turnsvr run` as a process, and `turnsvr probe` against it."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run

SECRET = "north-north-north"
PATIENCE = 30


class Served:
    """A running server: its settings file, its UDP port, its process."""

    def __init__(self, file: Path, process: subprocess.Popen[str], port: int) -> None:
        self.file = file
        self.process = process
        self.url = f"turn:127.0.0.1:{port}?transport=udp"
        self.stun_url = f"stun:127.0.0.1:{port}"


def start(file: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "turnsvr", "run", "-c", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return process, wait_for_port(process)


def wait_for_port(process: subprocess.Popen[str]) -> int:
    """The UDP port that the log names."""
    assert process.stdout is not None
    deadline = time.monotonic() + PATIENCE
    seen = ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline and process.poll() is None:
            if selector.select(timeout=0.5):
                seen += os.read(process.stdout.fileno(), 65_536).decode()
                if match := re.search(r"udp://127\.0\.0\.1:([1-9]\d*)", seen):
                    return int(match[1])
    process.kill()
    pytest.fail(f"no listening port in the log:\n{seen}")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    file = tmp_path / "turnsvr.yaml"
    file.write_text(
        f"listen: 'udp://127.0.0.1:0'\nrelay: {{addresses: 127.0.0.1}}\n"
        f"credentials: {{secret: {SECRET}, users: {{alice: wonderland}}}}\n"
    )
    process, port = start(file)
    try:
        yield Served(file, process, port)
    finally:
        process.kill()
        process.communicate()


def test_a_server_is_probed_with_its_own_file(run: Run, served: Served) -> None:
    result = run("probe", "-c", served.file, "--json", served.url)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ok"] is True


def test_a_server_is_probed_as_a_static_user(run: Run, served: Served, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wonderland\n")
    assert run("probe", "-c", served.file, "--user", "alice", served.url).exit_code == 0
    assert run("probe", "--password-file", tmp_path / "password", "--user", "alice", served.url).exit_code == 0
    assert run("probe", "--user", "alice", served.url, TURN_PASSWORD="wonderland").exit_code == 0


def test_wrong_credentials_fail_the_probe(run: Run, served: Served) -> None:
    result = run("probe", "--user", "alice", "--timeout", "2s", served.url, TURN_PASSWORD="jabberwocky")
    assert result.exit_code == 1
    assert "jabberwocky" not in result.output
    assert run("probe", "--timeout", "2s", served.url, TURN_SECRET="south-south").exit_code == 1


def test_stun_needs_no_credentials(run: Run, served: Served) -> None:
    legs = json.loads(run("probe", "--json", "--timeout", "2s", served.stun_url).stdout)["legs"]
    assert [leg["works"] for leg in legs if leg["transport"] == "udp"] == [True]


def test_sigterm_ends_the_server_cleanly(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(PATIENCE) == 0


def test_an_address_of_another_host_is_told_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "turnsvr.yaml"
    file.write_text(f"listen: 'udp://192.0.2.77:0'\ncredentials: {{secret: {SECRET}}}\n")
    command = [sys.executable, "-m", "turnsvr", "run", "-c", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 1
    assert "192.0.2.77" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "text"),
    [
        (["turn:127.0.0.1"], {}, "name the secret's place"),
        (["turn:127.0.0.1"], {"TURN_PASSWORD": "x"}, "a password needs its --user"),
        (["--timeout", "0", "turn:127.0.0.1"], {"TURN_SECRET": "x"}, "longer than nothing"),
        ([], {}, "Missing argument"),
        (["http://127.0.0.1"], {}, "is no server"),
    ],
)
def test_probe_usage(run: Run, arguments: list[str], environ: dict[str, str], text: str) -> None:
    result = run("probe", *arguments, **environ)
    assert result.exit_code == 2
    assert text in result.output


def test_a_stored_key_is_no_password_to_probe_with(run: Run, settings_file: Path) -> None:
    settings_file.write_text(f"credentials: {{users: {{alice: 0x{'ab' * 16}}}}}")
    result = run("probe", "-c", settings_file, "--user", "alice", "turn:127.0.0.1")
    assert result.exit_code == 1
    assert "the file has a key for alice, not the password" in result.stderr
    assert "abab" not in result.output
