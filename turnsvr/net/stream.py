"""One TCP or TLS connection that asyncio reads and writes: bytes become frames, and frames bytes, whole ones only.

Frames that come for a connection in one turn of the loop leave together, in one write. Over TLS each is a record of
its own: there are clients that take what one read of a record brings for one message, coturn's among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import structlog

from turnsvr.net.arrival import LINGER, Speech, judge, last_word
from turnsvr.net.connections import Connection
from turnsvr.net.engine import Engine
from turnsvr.net.joined import Joined
from turnsvr.relay.joining import JoinedClient, Joint
from turnsvr.relay.moving import StreamRest
from turnsvr.stun.address import FiveTuple
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import StreamSplitter

_READ_SIZE = 65_536
_LAGGING = 16_384
"""Bytes that wait for a client, beyond those that the system has taken, from which on it is said to lag."""

_SILENCE = 0.2
"""Seconds without another byte, after which a client is taken to have read the last word."""
_HURRIED = 8
"""Messages that are judged out of turn when TLS ends, so that their answers still leave."""

_log = structlog.get_logger()


class ReadBuffer:
    """What one read takes in. All connections of a loop share it: each empties it before the next one reads."""

    def __init__(self, size: int = _READ_SIZE) -> None:
        self.view = memoryview(bytearray(size))


class Flushes:
    """What the connections of a loop have still to write: each that asks is called once, when the turn is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Callable[[], None]] = []

    def ask(self, flush: Callable[[], None]) -> None:
        """flush must not raise."""
        if not self._waiting:
            self._loop.call_soon(self._run)
        self._waiting.append(flush)

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        for flush in waiting:
            flush()


class StreamProtocol(asyncio.BufferedProtocol):
    """Serves one connection. A broken frame ends it; a slow reader loses frames, each as a whole."""

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        five_tuple: FiveTuple,
        reads: ReadBuffer,
        flushes: Flushes,
        limit: int,
        others: Callable[[asyncio.Transport, Speech, bytes], bool] = lambda *_: False,
        rest: StreamRest | None = None,
    ) -> None:
        """limit: bytes that may wait for a slow reader, here and in the transport.

        others: whether another protocol takes a transport over which this came first.

        rest: of a connection that another process has served until now.
        """
        self._rest = rest
        self._engine = engine
        self._connection = connection
        self._five_tuple = five_tuple
        self._view = reads.view
        self._flushes = flushes
        self._limit = limit
        self._others = others
        self._queue: list[bytes] = []
        self._room = 0
        self._frames: list[bytes] = []
        """What came behind a message that is yet to be judged."""
        self._reads = True
        self._end = ""
        """Why the connection ends once all frames have had their turn."""
        self._splitter = StreamSplitter()
        self._transport: asyncio.Transport | None = None
        self._tls = False
        self._is_fresh = True
        self._closing: asyncio.TimerHandle | None = None
        self._linger_until = 0.0
        self._joined: Joined | None = None
        self._has_ended = False
        """Whether the client sends no more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tls = transport.get_extra_info("ssl_object") is not None
        if self._connection.closed:  # dropped while asyncio was still at its handshake
            self._transport.abort()
            return
        self._connection.drop = self._drop
        self._transport.set_write_buffer_limits(high=_LAGGING)
        self._engine.pump.attach(self._five_tuple, self.write, self._go_on, self._join)
        if self._rest is not None:
            self._is_fresh = False
            self._transport.write(self._rest.output)
            self._received(self._rest.pending)
            self._rest = None

    def can_part(self) -> bool:
        """Whether another process may serve the connection: plain TCP, with nothing to be sent that waits here."""
        transport = self._transport
        if transport is None or self._joined is not None or self._tls or self._end or transport.is_closing():
            return False
        self._flush()
        return not transport.get_write_buffer_size()

    def part(self) -> None:
        """Read no more."""
        if self._transport is not None and self._reads:
            self._transport.pause_reading()

    def rest(self, waiting: Sequence[bytes]) -> StreamRest:
        """After part(): what was read and not judged, behind what waits in the pump."""
        return StreamRest(b"".join((*waiting, *self._frames, self._splitter.rest)), b"")

    def rejoin(self) -> None:
        """Go on after part()."""
        if self._transport is not None and self._reads and not self._transport.is_closing():
            self._transport.resume_reading()

    def descriptor(self) -> int:
        """Of the socket; -1 when it is closed."""
        connected = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if connected is None else int(connected.fileno())

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._view[:nbytes])
        if self._joined is not None:
            self._joined.joint.received(data)
            return
        if self._transport is None or self._transport.is_closing() or self._end:
            if self._closing is not None:
                self._linger()
            return
        self._received(data)

    def _received(self, data: bytes) -> None:
        if self._is_fresh:
            self._is_fresh = False
            speech = judge(data, self._protocol())
            if speech is not Speech.STUN and self._transport is not None:
                if self._leave(speech, data):
                    return
                self._say_last(last_word(speech), speech.value)
                return
        self._split(data)
        self._go_on()

    def _split(self, data: bytes) -> None:
        try:
            self._frames += self._splitter.feed(data)
        except MalformedMessage as error:
            self._end = f"broken frame: {error}"

    def _join(self, joint: Joint) -> JoinedClient | None:
        """From here on bytes are the peer's; those that wait behind the message being judged go when that is over."""
        if self._transport is None:
            return None
        self._flush()
        self._joined = Joined(self._transport, joint)
        return self._joined

    def _protocol(self) -> str:
        """What ALPN has agreed upon."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return (tls.selected_alpn_protocol() or "") if tls is not None else ""

    def _leave(self, speech: Speech, data: bytes) -> bool:
        """Whether another protocol has taken the transport, which is not ours then."""
        transport = self._transport
        assert transport is not None
        self._transport = None
        if self._others(transport, speech, data):
            self._forget()
            self._connection.close()
            return True
        self._transport = transport
        return False

    def eof_received(self) -> bool:
        """Whether asyncio is to keep the connection, for what came before its end.

        It never does so over TLS: there the answers to a few messages still leave, as those are judged out of turn, and
        the others are judged without, although the connection be gone by then. A joined one is kept for what its peer
        still sends.
        """
        if self._joined is not None:
            self._joined.joint.ended()
            return not self._tls
        self._has_ended = True
        if self._tls:
            self._hurry()
        self._flush()
        if not self._waits:
            return False
        self._end = "closed by the client"
        return not self._tls

    def _hurry(self) -> None:
        for _ in range(_HURRIED):
            behind = len(self._frames)
            self._engine.pump.hurry(self._five_tuple)
            if len(self._frames) == behind:
                return  # there was none, it was the last one, or the rules have to look for its credential

    def _say_last(self, word: bytes, reason: str) -> None:
        """Say this and close, once the client has said nothing for a while, or some time has passed.

        What it still sends is thrown away meanwhile: TLS that is ended while more comes resets the connection, and the
        last word may be lost with it.
        """
        if not word or self._transport is None:
            self._close(reason)
            return
        self._transport.write(word)
        self._end = reason
        self._linger_until = asyncio.get_running_loop().time() + LINGER
        self._linger()

    def _linger(self) -> None:
        """Close when nothing has come for a while."""
        loop = asyncio.get_running_loop()
        if self._closing is not None:
            self._closing.cancel()
        self._closing = loop.call_at(min(loop.time() + _SILENCE, self._linger_until), self._close, self._end)

    def pause_writing(self) -> None:
        self._connection.lag(True)
        if self._joined is not None:
            self._joined.pause()

    def resume_writing(self) -> None:
        self._connection.lag(False)
        if self._joined is not None:
            self._joined.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._go_when_judged()

    def _go_when_judged(self) -> None:
        """The connection is gone; what came before still has its turn."""
        if not self._waits:
            self._forget()
            self._connection.close()

    @property
    def _waits(self) -> bool:
        """Whether something that came has not had its turn yet."""
        return bool(self._frames) or self._engine.pump.waits(self._five_tuple)

    def _drop(self) -> None:
        """End the connection for the other rooms now, and have asyncio close it in this turn or the next."""
        if self._transport is not None:
            self._transport.abort()
        self._forget()
        if self._transport is None:
            self._connection.close()

    def _forget(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._queue.clear()
        self._frames.clear()
        if self._joined is not None:
            self._joined.joint.lost()
        self._engine.pump.detach(self._five_tuple)
        self._engine.disconnected(self._five_tuple)

    def _go_on(self) -> None:
        """Hand on what came, as far as a message that is yet to be judged; until then no more than that is read."""
        if self._joined is not None:
            self._hand_to_peer(self._joined)
        elif self._frames:
            del self._frames[: self._engine.stream_frames(self._five_tuple, self._frames)]
        if self._transport is None:
            self._go_when_judged()
            return
        if self._joined is not None or self._transport.is_closing():
            return
        if self._splitter.pending and not self._end and not self._waits:
            self._split(b"")
        if self._end and not self._waits:
            self._close(self._end)
        elif self._reads is bool(self._frames or self._end):
            self._reads = not self._reads
            if self._reads:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _hand_to_peer(self, joined: Joined) -> None:
        """What came behind the message that has joined the connection, though it may look like frames."""
        rest = b"".join(self._frames) + self._splitter.take()
        self._frames.clear()
        if not self._reads and self._transport is not None and not self._transport.is_closing():
            self._reads = True
            self._transport.resume_reading()
        joined.joint.received(rest)
        if self._has_ended:
            joined.joint.ended()

    def write(self, frame: bytes) -> bool:
        """Queue one whole frame; False when too much waits already and it was dropped."""
        size = len(frame)
        if not self._queue or size > self._room:
            self._flush()
            transport = self._transport
            if transport is None or transport.is_closing():
                return False
            self._room = self._limit - transport.get_write_buffer_size()
            if size > self._room:
                return False
            self._flushes.ask(self._flush)
        self._room -= size
        self._queue.append(frame)
        return True

    def _flush(self) -> None:
        queue, transport = self._queue, self._transport
        if queue and transport is not None and not transport.is_closing():
            if self._tls:
                transport.writelines(queue)  # asyncio makes a record of each item, and sends them together
            else:
                transport.write(b"".join(queue))
        queue.clear()

    def _close(self, reason: str) -> None:
        _log.debug("connection closed", client=str(self._five_tuple.client), reason=reason)
        self._flush()
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # close() would wait for a client that may never read
        else:
            self._transport.close()
