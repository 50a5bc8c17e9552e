"""How long what a client has lives: the lifetimes of RFC 8656, and what a request for one is granted.

All in seconds.
"""

from __future__ import annotations

from typing import Final

from turnsvr.stun import attributes as a
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message
from turnsvr.turn.config import ServerConfig
from turnsvr.turn.reject import Reject

DEFAULT_LIFETIME: Final = 600
"""Seconds (RFC 8656 section 3.2)."""
PERMISSION_LIFETIME: Final = 300
"""Seconds (RFC 8656 section 9)."""
CHANNEL_LIFETIME: Final = 600
"""Seconds (RFC 8656 section 12)."""
RESERVATION_LIFETIME: Final = 30
"""Seconds (RFC 8656 section 7.2)."""
CONNECT_LIFETIME: Final = 30
"""Seconds that a connection to a peer may take: "at least 30 seconds" (RFC 6062 section 5.2)."""
UNBOUND_LIFETIME: Final = 30
"""Seconds that such a connection waits for ConnectionBind (RFC 6062 sections 5.2 and 5.3)."""
FINISHED_LIFETIME: Final = 40.0
"""Seconds that a client may go on retransmitting a request (RFC 8489 section 6.2.1)."""


def read_lifetime(message: Message, maximum: int) -> int:
    """The desired lifetime in seconds: never below the default, nor above the maximum (section 7.2).

    An operator's maximum below the RFC's default wins. LIFETIME zero is Refresh's business, not looked at here.
    """
    asked = message.get(a.LIFETIME) or 0
    return min(max(asked, DEFAULT_LIFETIME), maximum)


def most_lifetime(config: ServerConfig, left: float | None) -> int:
    """The longest lifetime that may be granted where the credential is good for so many seconds, None for any number.

    "The lifetime provided by the TURN server ... MUST be less than or equal to the lifetime of the token" (RFC 7635
    section 10). A token that ends within a second has ended: 401.
    """
    if left is None:
        return config.max_lifetime
    if left < 1:
        raise Reject(ErrorCode.UNAUTHENTICATED, challenge=True)
    return min(config.max_lifetime, int(left))
