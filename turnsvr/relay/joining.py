"""What a pump and the owner of an attached client's connection tell each other once that is joined with a peer's.

The pump has the Joint, the owner the JoinedClient (RFC 6062: after ConnectionBind bytes pass as they are).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class JoinedClient(Protocol):
    """An attached client's connection, once it is joined with a peer's."""

    def send(self, data: bytes) -> bool:
        """Write behind all that was written before; False when much waits: Joint.drained() tells when to go on."""

    def listen(self, wanted: bool) -> None:
        """Whether to read the client."""

    def finish(self) -> None:
        """Nothing more comes from the peer: say so behind what was written, as far as the transport can."""

    def close(self) -> None:
        """Both directions are over: close behind what was written."""

    def abort(self) -> None:
        """End it at once."""


class Joint(Protocol):
    """What a joined client's connection tells."""

    def received(self, data: bytes) -> None:
        """The client has sent this; listen() may be called meanwhile."""

    def ended(self) -> None:
        """The client sends no more."""

    def drained(self) -> None:
        """Little waits to be written again."""

    def lost(self) -> None:
        """The client's connection is gone: end the peer's, by a reset where the client did not say that it ends."""


Joiner = Callable[[Joint], JoinedClient | None]
"""Has an attached client's connection be joined: what it reads from here on, and has read and not handed on, is for
the Joint, as soon as the message that the Handler is judging is judged. None where the connection is gone."""
