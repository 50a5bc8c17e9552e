"""A reverse proxy as some networks have it: HTTP passes, a request to become a WebSocket is refused.

usage: no_upgrade.py ADDRESS PORT SERVER SERVER_PORT
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

_REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_MAX_HEAD = 65_536


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_MAX_HEAD):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: tuple[str, int]) -> None:
    """One request a connection, so that every head is seen."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"\nupgrade:" in head.lower():
            writer.write(_REFUSAL)
            await writer.drain()
            writer.close()
            return
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        lines.insert(1, b"Connection: close")
        inner_reader, inner_writer = await asyncio.open_connection(*server)
        inner_writer.write(b"\r\n".join(lines))
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def main(address: str, port: int, server: tuple[str, int]) -> None:
    listener = await asyncio.start_server(lambda r, w: _serve(r, w, server), address, port)
    print("no upgrades here", flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    _, own_address, own_port, server_address, server_port = sys.argv
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(own_address, int(own_port), (server_address, int(server_port))))
