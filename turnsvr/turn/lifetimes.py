"""How long what a client has lives: the lifetimes of RFC 8656, and what a request for one is granted.

All in seconds.
"""

from __future__ import annotations

from typing import Final

from turnsvr.stun import attributes as a
from turnsvr.stun.message import Message

DEFAULT_LIFETIME: Final = 600
"""Seconds (RFC 8656 section 3.2)."""
PERMISSION_LIFETIME: Final = 300
"""Seconds (RFC 8656 section 9)."""
CHANNEL_LIFETIME: Final = 600
"""Seconds (RFC 8656 section 12)."""
RESERVATION_LIFETIME: Final = 30
"""Seconds (RFC 8656 section 7.2)."""
FINISHED_LIFETIME: Final = 40.0
"""Seconds that a client may go on retransmitting a request (RFC 8489 section 6.2.1)."""


def read_lifetime(message: Message, maximum: int) -> int:
    """The desired lifetime in seconds: never below the default, nor above the maximum (section 7.2).

    An operator's maximum below the RFC's default wins. LIFETIME zero is Refresh's business, not looked at here.
    """
    asked = message.get(a.LIFETIME) or 0
    return min(max(asked, DEFAULT_LIFETIME), maximum)
