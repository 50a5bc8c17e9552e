"""How a handler refuses a request: one exception, made into an error response in one place."""

from __future__ import annotations

from collections.abc import Callable

from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message


class Reject(Exception):
    """Answer the request with this error.

    challenge adds REALM, NONCE and PASSWORD-ALGORITHMS. details adds what else the code calls for. limit is the bound
    that was met, in words for the operator: the name of its setting where it has one.
    """

    def __init__(
        self,
        code: ErrorCode,
        *,
        challenge: bool = False,
        details: Callable[[Message], object] | None = None,
        limit: str | None = None,
    ) -> None:
        super().__init__(code.reason)
        self.code = code
        self.challenge = challenge
        self.details = details
        self.limit = limit
