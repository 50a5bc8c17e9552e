"""Mobility tickets (RFC 8016): sealed, so that a client can neither read nor make one; good for one move.

A ticket says which allocation it is for, and which of that one's tickets it is. Both are sealed together by AES-SIV
(RFC 5297), which needs no nonce as no two tickets say the same. In base64 that is 32 characters: coturn's clients keep
no more, and take them for text.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import blake2b
from typing import Final, NamedTuple, final

_KEY_SIZE: Final = 64
_NUMBER_SIZE: Final = 5
_SERIAL_SIZE: Final = 3
TICKET_SIZE: Final = 32
"""Characters."""
MAX_SERIAL: Final = (1 << 8 * _SERIAL_SIZE) - 1


class Ticket(NamedTuple):
    """An allocation's number, and how many tickets it had before."""

    allocation: int
    serial: int


@final
class Tickets:
    """Seals and opens tickets under a secret of the server's."""

    def __init__(self, secret: bytes) -> None:
        """secret: at most 64 bytes, of which the key of tickets is made."""
        self._key: Final = blake2b(b"mobility tickets", key=secret, digest_size=_KEY_SIZE).digest()

    def seal(self, ticket: Ticket) -> bytes:
        # Loaded where tickets are wanted, which is seldom.
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        plain = ticket.allocation.to_bytes(_NUMBER_SIZE, "big") + ticket.serial.to_bytes(_SERIAL_SIZE, "big")
        return b64encode(AESSIV(self._key).encrypt(plain, None))

    def open(self, sealed: bytes) -> Ticket | None:
        """None for what was not sealed here."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        if len(sealed) != TICKET_SIZE:
            return None
        try:
            plain = AESSIV(self._key).decrypt(b64decode(sealed, validate=True), None)
        except (InvalidTag, Base64Error):
            return None
        return Ticket(int.from_bytes(plain[:_NUMBER_SIZE], "big"), int.from_bytes(plain[_NUMBER_SIZE:], "big"))
