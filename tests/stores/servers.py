"""Database servers of the system, started on loopback with data of their own, and what coturn is told of them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

import pytest

from tests.conftest import PATIENCE, free_port, need
from tests.processes import children, wait_for
from turnsvr.app import firstrun

USER = "turnsvr"
PASSWORD = "p@ss/w:rd%20"
"""What a URL has to quote. coturn's connection strings end a word at a space."""


_START = 3 * PATIENCE
"""Seconds that a server may take to start."""
_ATTEMPTS = 3


class Server:
    """A database server with data of its own; started, it takes connections."""

    programs: ClassVar[tuple[str, ...]]
    account: ClassVar[str]

    def __init__(self) -> None:
        self.choose_ports()
        self.directory = Path(tempfile.mkdtemp(prefix="turnsvr-"))
        self._account = _account(self.account)
        if self._account is not None:
            os.chown(self.directory, self._account.pw_uid, self._account.pw_gid)
        self._certify()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    @property
    def certificate(self) -> Path:
        """What a client trusts that is to trust this server."""
        return self.directory / "certificate.pem"

    def set_up(self) -> None:
        """Make the data directory."""

    def _certify(self) -> None:
        """Make a certificate for 127.0.0.1."""
        firstrun.write_self_signed(self.directory, ["127.0.0.1"])
        if self._account is not None:
            os.chown(self._key, self._account.pw_uid, self._account.pw_gid)
        self.certificate.chmod(0o644)
        self._key.chmod(0o600)

    @property
    def _key(self) -> Path:
        return self.directory / "key.pem"

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        if not self._launch():
            self._fail()

    def start_anew(self) -> None:
        """Start for the first time, on other ports when somebody was faster to take one."""
        for _ in range(_ATTEMPTS):
            if self._launch():
                return
            self.choose_ports()
        self._fail()

    def choose_ports(self) -> None:
        self.port = free_port()

    def _launch(self) -> bool:
        """Whether it is there."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_account(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START
        while self._process.poll() is None and time.monotonic() < deadline:
            # Another server may answer on the port that this one did not get, until this one ends.
            if self.answers() and self._process.poll() is None:
                return True
            time.sleep(0.05)
        self.stop()
        return False

    def _fail(self) -> NoReturn:
        log = (self.directory / "log").read_text(errors="replace")
        pytest.fail(f"{self.programs[0]} did not start:\n{log[-4000:]}")

    def signal(self, number: signal.Signals) -> None:
        """To it and the processes that it has started, each of which may lead a session of its own."""
        assert self._process is not None
        for process in (self._process.pid, *children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self) -> None:
        """End it as a crash does, with all that it has started: PostgreSQL refuses to start beside one that is left."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)
        wait_for((self._process.pid,), "TZX")  # so that it starts no further ones
        processes = (self._process.pid, *children(self._process.pid))
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        wait_for(processes, "ZX")

    def stop(self) -> None:
        self.kill()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, *command: str) -> None:
        result = subprocess.run(
            self._as_account(command),
            check=False,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if result.returncode:
            pytest.fail(f"{command[0]} failed:\n{result.stdout.decode(errors='replace')[-4000:]}")

    def _as_account(self, command: Sequence[str]) -> Sequence[str]:
        """As another account than root, which these servers refuse."""
        if self._account is None:
            return command
        who = self._account
        return (need("setpriv"), f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", *command)


def _account(name: str) -> pwd.struct_passwd | None:
    if os.geteuid() != 0 or not name:
        return None
    for each in (name, "nobody"):
        try:
            return pwd.getpwnam(each)
        except KeyError:
            continue
    return None


class PostgresqlServer(Server):
    programs = ("postgres", "initdb", "pg_isready")
    account = "postgres"

    def __init__(self) -> None:
        self._programs = {name: _postgresql(name) for name in self.programs}
        super().__init__()

    def set_up(self) -> None:
        secret = self.directory / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.run(
            *(self._programs["initdb"], "-D", str(self.directory / "data"), "-U", USER, "-E", "UTF8", "--no-locale"),
            *("-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"),
        )

    def command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "30",
            "ssl": "on",
            "ssl_cert_file": str(self.certificate),
            "ssl_key_file": str(self._key),
        }
        return (
            self._programs["postgres"],
            *("-D", str(self.directory / "data")),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        )

    def answers(self) -> bool:
        command = (self._programs["pg_isready"], "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1")
        return subprocess.run(command, check=False).returncode == 0


def _postgresql(program: str) -> str:
    """Debian keeps them aside, one directory a version."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(versions[-1]) if versions else need(program)


class MariadbServer(Server):
    programs = ("mariadbd", "mariadb-install-db")
    account = "mysql"

    def __init__(self) -> None:
        for program in self.programs:
            need(program)
        super().__init__()

    def set_up(self) -> None:
        self.run(
            need("mariadb-install-db"),
            *("--no-defaults", f"--datadir={self.directory / 'data'}", "--skip-test-db"),
            f"--tmpdir={self.directory}",  # names of temporary tables collide in a shared one
            "--auth-root-authentication-method=normal",
        )
        (self.directory / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO '{USER}'@'%';\n"
        )

    def command(self) -> Sequence[str]:
        return (
            need("mariadbd"),
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--tmpdir={self.directory}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--init-file={self.directory / 'init.sql'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--ssl-cert={self.certificate}",
            f"--ssl-key={self._key}",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-log-file-size=8M",
        )

    def answers(self) -> bool:
        return greets(self.port)


class RedisServer(Server):
    programs = ("redis-server",)
    account = "redis"

    def __init__(self) -> None:
        need("redis-server")
        super().__init__()

    def choose_ports(self) -> None:
        super().choose_ports()
        self.tls_port = free_port()

    def command(self) -> Sequence[str]:
        return (
            need("redis-server"),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
            *("--tls-port", str(self.tls_port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(self.certificate), "--tls-key-file", str(self._key)),
            *("--tls-ca-cert-file", str(self.certificate)),
            *("--requirepass", PASSWORD, "--save", "", "--appendonly", "yes", "--appendfsync", "no"),
        )

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {PASSWORD}\r\nPING\r\n".encode())
                return connection.makefile("rb").read(len("+OK\r\n+PONG")).endswith(b"PONG")
        except OSError:
            return False


def greets(port: int) -> bool:
    """Whether a server there says the first word, as MariaDB does once it is ready."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            return bool(connection.recv(1))
    except OSError:
        return False
