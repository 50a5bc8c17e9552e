"""SIGTERM ends the server within five seconds, whatever is passed on to other servers or awaited of balancers."""

from __future__ import annotations

import re
import signal
import socket
import time
from contextlib import ExitStack

import pytest

from tests.app.test_ending import WITHIN, Start, busy
from tests.app.test_ending import held as held  # noqa: PLC0414 - connections that stay open
from tests.conftest import PASSWORD, PATIENCE, USER, free_port
from tests.net.test_clienthello import hello
from tests.net.test_proxied import CLIENT, version_2
from tests.net.test_streams import insecure
from turnsvr.net.tls import TlsFiles

REQUEST = b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("kind", ["auto", "portable"])
def test_sigterm_with_open_backends(server_process: Start, certificate: TlsFiles, held: ExitStack, kind: str) -> None:
    """One that never answers, one that pours, one that takes no connection; half a header, half a ClientHello."""
    silent, pouring, full = (held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0)) for _ in range(3))
    port, tls, behind = free_port(), free_port(), free_port()
    server = server_process(f"""
realm: example.org
listen: [tcp://127.0.0.1:{port}, tls://127.0.0.1:{tls}, tcp://127.0.0.1:{behind}]
tls: {{certificate: {certificate.certificate}, key: {certificate.key}}}
relay: {{addresses: [127.0.0.1]}}
credentials: {{users: {{{USER}: {PASSWORD}}}}}
pump: {{kind: {kind}}}
proxy: {{trusted: 127.0.0.1, listen: ["tcp://127.0.0.1:{behind}"]}}
share:
  http: tcp://127.0.0.1:{silent.getsockname()[1]}
  pass_through:
    pouring.example: tcp://127.0.0.1:{pouring.getsockname()[1]}
    full.example: proxy+tcp://127.0.0.1:{full.getsockname()[1]}
""")

    def hold(port: int, said: bytes, sealed: bool = False) -> None:
        connected: socket.socket = held.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        if sealed:
            connected = held.enter_context(insecure().wrap_socket(connected))
        connected.sendall(said)

    hold(port, REQUEST)
    hold(tls, REQUEST, sealed=True)
    hold(behind, version_2(CLIENT) + REQUEST)
    for _ in range(3):
        silent.settimeout(PATIENCE)
        held.enter_context(silent.accept()[0])
    hold(tls, hello("pouring.example"))
    pouring.settimeout(PATIENCE)
    poured = held.enter_context(pouring.accept()[0])
    poured.setblocking(False)
    while True:
        try:
            poured.send(bytes(65_536))
        except BlockingIOError:
            break
    for _ in range(4):
        hold(tls, hello("full.example"))
    hold(tls, hello("pouring.example")[:50])
    for said in (b"", b"PROXY TCP4", version_2(CLIENT)[:14], version_2(CLIENT)):
        hold(behind, said)
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait_end() == 0
    assert time.monotonic() - began < WITHIN * busy(), server.log[-3000:]
    assert not re.search("Traceback|Exception|Warning", server.log), server.log[-3000:]
