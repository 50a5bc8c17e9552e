"""Pebble, the ACME authority for tests (of Debian's package pebble), and the DNS server that it asks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import PATIENCE, free_port
from turnsvr.app.firstrun import write_self_signed

_QUESTION = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x04turn\x07example\x03org\x00\x00\x01\x00\x01"
"""Where turn.example.org leads (RFC 1035 section 4)."""


class Pebble:
    """An authority on 127.0.0.1; every name leads there. Entered, it takes orders."""

    def __init__(self, directory: Path, *, tls_port: int, http_port: int) -> None:
        """tls_port and http_port: where it comes for tls-alpn-01 and for http-01."""
        self._directory = directory
        self._port, self._dns, self._tls_port, self._http_port = free_port(), free_port(), tls_port, http_port
        self._exit = ExitStack()
        self.ca = write_self_signed(directory, ["127.0.0.1"])
        self.log = directory / "pebble.log"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}/dir"

    def __enter__(self) -> Pebble:
        settings = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": f"127.0.0.1:{free_port()}",
            "certificate": str(self.ca.certificate),
            "privateKey": str(self.ca.key),
            "httpPort": self._http_port,
            "tlsPort": self._tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        file = self._directory / "pebble.json"
        file.write_text(json.dumps({"pebble": settings}))
        none = [f"-{name}=" for name in ("http01", "https01", "tlsalpn01")]
        dns = f"127.0.0.1:{self._dns}"
        try:
            self._start(
                "pebble-challtestsrv", *none, f"-dns01={dns}", f"-management=127.0.0.1:{free_port()}", "-defaultIPv6="
            )
            self._wait_for_dns()
            self._start("pebble", "-config", str(file), "-dnsserver", dns, "-strict")
            self._wait(self._port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _start(self, *command: str) -> None:
        log = self._exit.enter_context(self.log.open("ab"))
        environ = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        self._exit.callback(process.wait)
        self._exit.callback(process.kill)

    def _wait_for_dns(self) -> None:
        deadline = time.monotonic() + PATIENCE
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.2)
            client.connect(("127.0.0.1", self._dns))
            while True:
                try:
                    client.send(_QUESTION)
                    client.recv(512)
                except OSError:
                    assert time.monotonic() < deadline, self.log.read_text()
                    time.sleep(0.02)
                else:
                    return

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)
            else:
                return
