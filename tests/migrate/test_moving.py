"""A directory of coturn's, its turnserver.conf and its database, moves: the users of before relay."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.client.coturn import listens, running
from tests.conftest import ServerProcess, free_port, need, wait_until
from tests.interop.uclient import Case, Expect, command, verdict
from turnsvr.credentials import shared_secret
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address

pytest.importorskip("aiosqlite")

_REALM = "turn.matrix.example.org"
_USER = Case("user", "-X", user="ninefingers", password="youhavetoberealistic", messages=5)
_STRANGER = Case("stranger", "-X", Expect.NOTHING, user="ninefingers", password="guessed", messages=2)

_CONF = """\
# as the guide of Synapse has it, with users in a database
{credentials}
realm={realm}
userdb={database}
listening-ip=127.0.0.1
listening-port={port}
tls-listening-port={tls_port}
cert={certificate}
pkey={key}
no-tcp-relay
no-multicast-peers
no-cli
no-dtls
allow-loopback-peers
denied-peer-ip=10.0.0.0-10.255.255.255
user-quota=12 # four streams a call
total-quota=1200
simple-log
log-file=stdout
pidfile={directory}/pid
"""


def _turnadmin(database: Path, *arguments: str) -> None:
    line = [need("turnadmin"), *arguments, "-b", str(database)]
    subprocess.run(line, check=True, capture_output=True, timeout=30)


def _directory(directory: Path, certificate: TlsFiles, credentials: str) -> tuple[Path, int, int]:
    """A turnserver.conf beside a database with a user; its ports."""
    database, port, tls_port = directory / "turndb", free_port(), free_port()
    _turnadmin(database, "-a", "-u", _USER.user, "-r", _REALM, "-p", str(_USER.password))
    conf = directory / "turnserver.conf"
    conf.write_text(
        _CONF.format(
            credentials=credentials,
            realm=_REALM,
            database=database,
            port=port,
            tls_port=tls_port,
            certificate=certificate.certificate,
            key=certificate.key,
            directory=directory,
        )
    )
    return conf, port, tls_port


def _relays(case: Case, port: int, peer_port: int) -> str | None:
    """What is wrong with a run of coturn's client, or None."""
    need("turnutils_uclient")
    line = command(case, port=port, tls_port=port, peer_port=peer_port)
    result = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, errors="replace")
    if "channel bind: error 400" in result.stdout:  # the client drew one channel for two peers
        result = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, errors="replace")
    problem = verdict(case, result)
    return problem and f"{problem}\n{result.stdout[-2000:]}"


def _moved(conf: Path, more: str = "") -> ServerProcess:
    """What `import-coturn` and `run` make of a turnserver.conf, as an operator calls them; more lines at the end."""
    settings = conf.with_name("moved.yaml")
    _turnsvr("import-coturn", conf, "-o", settings)
    return ServerProcess(settings.read_text() + more, conf.parent)


def _turnsvr(*arguments: str | Path) -> str:
    """Standard output of a command that succeeds."""
    line = [sys.executable, "-m", "turnsvr", *map(str, arguments)]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_users_of_the_database_relay_before_and_after(tmp_path: Path, certificate: TlsFiles, peer_port: int) -> None:
    conf, port, _ = _directory(tmp_path, certificate, "lt-cred-mech")
    with running(
        [need("turnserver"), "-c", str(conf)], tmp_path / "coturn.log", lambda: listens(Address("127.0.0.1", port))
    ):
        assert _relays(_USER, port, peer_port) is None
    with _moved(conf):
        assert _relays(_USER, port, peer_port) is None
        assert _relays(_STRANGER, port, peer_port) is None
        password = tmp_path / "password"
        password.write_text(str(_USER.password))
        said = _turnsvr("probe", "--user", _USER.user, "--password-file", password, f"turn:127.0.0.1:{port}")
        assert "what was tried works" in said, said


@pytest.mark.parametrize("place", ["file", "database", "both"])
def test_the_shared_secret_serves_beside_users(
    place: str, tmp_path: Path, certificate: TlsFiles, peer_port: int
) -> None:
    in_file, in_database = "secret of the file", "secret of the database"
    lines = "use-auth-secret" if place == "database" else f"use-auth-secret\nstatic-auth-secret={in_file}"
    conf, port, _ = _directory(tmp_path, certificate, lines)
    if place != "file":
        _turnadmin(tmp_path / "turndb", "-s", in_database, "-r", _REALM)
    secrets = {"file": [in_file], "database": [in_database], "both": [in_file, in_database]}[place]
    with _moved(conf):
        assert _relays(_USER, port, peer_port) is None
        for secret in secrets:
            assert _relays(_timed(secret), port, peer_port) is None
        assert _relays(_timed("secret of nobody", Expect.NOTHING), port, peer_port) is None


def _timed(secret: str, expect: Expect = Expect.ALL) -> Case:
    name, password = shared_secret.make(secret, "alice", 600, time.time())
    return Case("timed", "-X", expect, user=name, password=password, messages=5)


def test_a_moved_server_is_seen_and_steered_while_its_users_relay(
    tmp_path: Path, certificate: TlsFiles, peer_port: int
) -> None:
    conf, port, _ = _directory(tmp_path, certificate, "lt-cred-mech")
    socket = tmp_path / "admin.sock"

    def steer(command: str, *arguments: str) -> str:
        return _turnsvr(command, "--socket", socket, *arguments)

    def sessions() -> dict[int, float]:
        """Packets a second from the client, by the ID of the session."""
        found = json.loads(steer("sessions", "--user", _USER.user, "--json"))["sessions"]
        return {each["id"]: each["traffic"]["from_client"]["packets_per_second"] for each in found}

    def relaying() -> dict[int, float] | None:
        found = sessions()
        return found if sum(rate > 10 for rate in found.values()) >= 4 else None

    with _moved(conf, f"admin: {{socket: {socket}}}\n") as server:
        line = command(replace(_USER, messages=5000, clients=4), port=port, tls_port=port, peer_port=peer_port)
        load = subprocess.Popen([*line[:-1], "-c", line[-1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            before = wait_until(relaying, "four sessions that relay")
            first = min(before)
            assert steer("kick", str(first)) == f"ended session {first}\n"
            assert first not in sessions()

            (tmp_path / "turnsvr.yaml").write_text(
                server.file.read_text().replace("realm:", "stun_only: false\nrealm:", 1)
            )
            assert "reloaded" in steer("reload")
            after = sessions()
            assert after.keys() == before.keys() - {first}

            assert steer("drain") == f"draining; {len(after)} sessions to end\n"
            assert _relays(replace(_USER, expect=Expect.NOTHING), port, peer_port) is None
            assert max(wait_until(sessions, "sessions that live on").values()) > 10
            assert "draining" in server.log
            assert steer("kick", "--user", _USER.user).startswith(f"ended {len(after)} sessions of")
            assert server.wait_end() == 0
        finally:
            load.kill()
            load.wait()
