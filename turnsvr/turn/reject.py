"""How a handler refuses a request: one exception, made into an error response in one place."""

from __future__ import annotations

from collections.abc import Callable

from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message


class Reject(Exception):
    """Answer the request with this error.

    challenge adds REALM, NONCE and PASSWORD-ALGORITHMS. details adds what else the code calls for.
    """

    def __init__(
        self,
        code: ErrorCode,
        *,
        challenge: bool = False,
        details: Callable[[Message], object] | None = None,
    ) -> None:
        super().__init__(code.reason)
        self.code = code
        self.challenge = challenge
        self.details = details
