"""Imports the servers of python-socketio and python-engineio without what their clients and brokers stand on.

Both import all of their own modules at once, and these whatever HTTP client or broker is installed: with redis and
aiohttp that is 17 MB and 150 ms of a server that uses neither. They do without each that is absent.
"""

from __future__ import annotations

from turnsvr.sparing import absent

with absent("aio_pika", "aiohttp", "kafka", "kombu", "redis", "requests", "tornado", "valkey", "websocket", "zmq"):
    import engineio as engineio  # noqa: PLC0414
    import socketio as socketio  # noqa: PLC0414
