"""Ends one direction of a connection that asyncio serves."""

from __future__ import annotations

import asyncio


def end_writing(transport: asyncio.Transport) -> None:
    """Say no more, behind what was written. asyncio cannot end one direction of TLS alone: there the connection ends.

    One that the other end has reset, of which the loop has yet to hear, ends as well.
    """
    if transport.is_closing():
        return
    if not transport.can_write_eof():
        transport.close()
        return
    try:
        transport.write_eof()
    except OSError:
        transport.abort()
