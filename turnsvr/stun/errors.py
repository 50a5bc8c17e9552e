"""What can be wrong with bytes from the network, and the error codes that answer a request."""

from __future__ import annotations

from enum import IntEnum


class MalformedMessage(ValueError):
    """They sent bytes that are not what they claim to be. The only error that parsing raises."""


class ErrorCode(IntEnum):
    """ERROR-CODE values with their reason phrase (RFC 8489 section 14.8, RFC 8656 section 19, RFC 6156, 6062, 8016)."""

    reason: str

    def __new__(cls, value: int, reason: str) -> ErrorCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.reason = reason
        return member

    TRY_ALTERNATE = 300, "Try Alternate"
    BAD_REQUEST = 400, "Bad Request"
    UNAUTHENTICATED = 401, "Unauthenticated"
    FORBIDDEN = 403, "Forbidden"
    MOBILITY_FORBIDDEN = 405, "Mobility Forbidden"
    UNKNOWN_ATTRIBUTE = 420, "Unknown Attribute"
    ALLOCATION_MISMATCH = 437, "Allocation Mismatch"
    STALE_NONCE = 438, "Stale Nonce"
    ADDRESS_FAMILY_NOT_SUPPORTED = 440, "Address Family not Supported"
    WRONG_CREDENTIALS = 441, "Wrong Credentials"
    UNSUPPORTED_TRANSPORT_PROTOCOL = 442, "Unsupported Transport Protocol"
    PEER_ADDRESS_FAMILY_MISMATCH = 443, "Peer Address Family Mismatch"
    CONNECTION_ALREADY_EXISTS = 446, "Connection Already Exists"
    CONNECTION_TIMEOUT_OR_FAILURE = 447, "Connection Timeout or Failure"
    ALLOCATION_QUOTA_REACHED = 486, "Allocation Quota Reached"
    SERVER_ERROR = 500, "Server Error"
    INSUFFICIENT_CAPACITY = 508, "Insufficient Capacity"
