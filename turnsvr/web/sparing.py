"""Imports the servers of python-socketio and python-engineio without what their clients and brokers stand on.

Both import all of their own modules at once, and these whatever HTTP client or broker is installed: with redis and
aiohttp that is 17 MB and 150 ms of a server that uses neither. They do without each that is absent.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

_UNUSED = ("aio_pika", "aiohttp", "kafka", "kombu", "redis", "requests", "tornado", "valkey", "websocket", "zmq")


@contextlib.contextmanager
def absent(names: tuple[str, ...] = _UNUSED) -> Iterator[None]:
    """For as long as this lasts, packages that are not loaded yet cannot be imported."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None stands for "not to be found"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with absent():
    import engineio as engineio  # noqa: PLC0414
    import socketio as socketio  # noqa: PLC0414
