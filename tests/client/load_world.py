"""A network of our own between the load generator and its sink: it loses, doubles and swaps what it is told to."""

from __future__ import annotations

import importlib
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol, Self, cast

import pytest

from turnsvr.client.load_values import Load, LoadCounts, Receiver, Sender

_BUFFER = 4 * 1024 * 1024


class Exchange(Protocol):
    def __call__(
        self,
        senders: Sequence[Sender],
        receivers: Sequence[Receiver],
        load: Load,
        tls: tuple[int, int, int] | None = None,
    ) -> LoadCounts: ...


def core(name: str) -> Exchange:
    """The exchange() of _load or load_plain; a test without _load is skipped, or fails when all is due."""
    try:
        return cast(Exchange, importlib.import_module(f"turnsvr.client.{name}").exchange)
    except ImportError:
        if os.environ.get("TURNSVR_REQUIRE_ALL") == "1":
            pytest.fail("the compiled generator was not built")
        pytest.skip("the compiled generator was not built")


def patient(size: int, rate: float, seconds: float, *, burst: int = 1, segments: bool = False, run: int = 7) -> Load:
    """A load that waits long enough for what another thread forwards on a busy machine."""
    return Load(size, rate, seconds, burst, segments, settle=10, quiet=1.5, run=run)


@contextmanager
def udp_sockets(count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.bind(("127.0.0.1", 0))
            sockets.append(sock)
        yield sockets


class Forwarder:
    """A UDP relay in a thread of its own: what arrives goes to the sink, after `fault` has had its way."""

    def __init__(self, sink: tuple[str, int], fault: Callable[[int, bytes], Iterable[bytes]]) -> None:
        self._sink = sink
        self._fault = fault
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run)
        self.received = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.socket.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.socket.getsockname()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self.socket.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self.socket in ready:
                    data = self.socket.recv(65_536)
                    for forwarded in self._fault(self.received, data):
                        self.socket.sendto(forwarded, self._sink)
                    self.received += 1
                elif self._stopped in ready:
                    return
