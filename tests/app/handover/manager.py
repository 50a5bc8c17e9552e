"""A service manager: it starts a server, listens to it, keeps its descriptors, and starts it again."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from tests.conftest import PASSWORD, PATIENCE, USER, free_port
from turnsvr.admin.client import AdminClient
from turnsvr.net.tls import TlsFiles

_START = (
    r'for each in $PASSED; do eval "exec ${each#*:}<&${each%:*} ${each%:*}<&-"; done; export LISTEN_PID=$$; exec "$@"'
)
"""For bash: descriptors get the numbers that the protocol gives them, and the variables name this process."""


class Manager:
    """Entered, the server serves; left, it has ended. What it may keep, and what is kept, can be changed by tests."""

    def __init__(
        self,
        directory: Path,
        tls: TlsFiles | None = None,
        *,
        more: str = "",
        most: int = 16,
        pump: str = "auto",
        environ: dict[str, str] | None = None,
    ) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self.most = most
        self._environ = environ or {}
        self.kept: list[tuple[str, int]] = []
        """Names and descriptors."""
        self.told: list[str] = []
        """All assignments, in their order."""
        listen = [f"udp://127.0.0.1:{self.port}", f"tcp://127.0.0.1:{self.port}"]
        text = f"""
realm: example.org
relay: {{addresses: [127.0.0.1]}}
peers: {{allow: [127.0.0.1]}}
credentials: {{users: {{{USER}: {PASSWORD}}}}}
pump: {{kind: {pump}}}
{more}
"""
        if tls is not None:
            listen.append(f"tls://127.0.0.1:{self.tls_port}")
            text += f"tls: {{certificate: {tls.certificate}, key: {tls.key}}}\n"
        self.file = directory / "turnsvr.yaml"
        self.file.write_text(text + f"listen: [{', '.join(listen)}]\n")
        self._directory = directory
        self._errors = directory / "stderr"
        self._name = f"turnsvr-test-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self._name}")
        self._socket.settimeout(0.1)
        self._lock = threading.Condition()
        self._ended = False
        self._listening = threading.Thread(target=self._listen)
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._listening.start()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._ended = True
        self._listening.join()
        self._socket.close()
        self.drop()

    @property
    def log(self) -> str:
        return self._errors.read_text()

    @property
    def admin(self) -> AdminClient:
        return AdminClient.on_socket(self._directory / "admin.sock")

    def start(self, environ: dict[str, str] | None = None, *, serves: bool = True) -> None:
        """With all that is kept. serves: wait until it does."""
        with self._lock:
            kept = list(self.kept)
            before = self.told.count("READY=1")
        variables = os.environ | {
            "NOTIFY_SOCKET": f"@{self._name}",
            "PYTHONWARNINGS": "error",
            "RUNTIME_DIRECTORY": str(self._directory),
            "LISTEN_FDS": str(len(kept)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in kept),
            "PASSED": " ".join(f"{descriptor}:{3 + at}" for at, (_, descriptor) in enumerate(kept)),
        }
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                ["bash", "-c", _START, "-", sys.executable, "-m", "turnsvr", "run", "-c", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**variables, **self._environ, **(environ or {})},
                pass_fds=[descriptor for _, descriptor in kept],
            )
        if serves:
            self.wait(lambda: self.told.count("READY=1") > before)

    def stop(self, *, for_restart: bool) -> int:
        """End the server as systemd does; returns its exit status."""
        if for_restart:
            self.process.send_signal(signal.SIGURG)
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def restart(self) -> None:
        status = self.stop(for_restart=True)
        assert status == 0, self.log
        self.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def drop(self) -> None:
        """Close what is kept, as systemd does when a service is stopped for good."""
        with self._lock:
            for _, descriptor in self.kept:
                os.close(descriptor)
            self.kept.clear()

    def replace(self, name: str, descriptor: int) -> None:
        """Keep this under the name, in place of what was there."""
        with self._lock:
            self._forget(name)
            self.kept.append((name, descriptor))

    def rewrite(self, old: str, new: str) -> None:
        """Change the settings file."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def wait(self, condition: object) -> None:
        """Until a condition on what was told holds."""
        deadline = time.monotonic() + 3 * PATIENCE
        with self._lock:
            while not condition():  # type: ignore[operator]
                self._lock.wait(0.1)
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"the server does not serve:\n{self.log}")

    def wait_logged(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.log):
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def _listen(self) -> None:
        while not self._ended:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 16)
            except TimeoutError:
                continue
            with self._lock:
                self._take(data.decode().split("\n"), list(descriptors))
                self._lock.notify_all()

    def _take(self, assignments: list[str], descriptors: list[int]) -> None:
        self.told += assignments
        name = next((each.partition("=")[2] for each in assignments if each.startswith("FDNAME=")), "stored")
        if "FDSTOREREMOVE=1" in assignments:
            self._forget(name)
        if "FDSTORE=1" in assignments:
            assert "FDPOLL=0" in assignments  # else systemd drops a socket whose other end has gone
            while descriptors and len(self.kept) < self.most:
                self.kept.append((name, descriptors.pop(0)))
        for each in descriptors:
            os.close(each)

    def _forget(self, name: str) -> None:
        for each in [each for each in self.kept if each[0] == name]:
            os.close(each[1])
            self.kept.remove(each)
