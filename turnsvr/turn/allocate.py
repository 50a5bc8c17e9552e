"""What an Allocate request asks for, by the numbered steps of RFC 8656 section 7.2."""

from __future__ import annotations

from typing import Final, final

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Family
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Message
from turnsvr.turn.config import DEFAULT_LIFETIME, ServerConfig
from turnsvr.turn.reject import Reject

UDP_PROTOCOL: Final = 17
"""REQUESTED-TRANSPORT for UDP: the IANA protocol number."""

RESERVATION_TOKEN_SIZE: Final = 8


@final
class Wish:
    """What the client wants, once it is known to be well formed and served here."""

    def __init__(
        self,
        families: tuple[Family, ...],
        lifetime: int,
        *,
        even_port: bool = False,
        reserve: bool = False,
        token: bytes | None = None,
        dual: bool = False,
        missing: Family | None = None,
    ) -> None:
        """lifetime in seconds.

        dual: whether a relayed transport address of each family was asked for. missing: a family of a dual allocation
        that is not served here; it gets ADDRESS-ERROR-CODE 440.
        """
        self.families: Final = families
        self.lifetime: Final = lifetime
        self.even_port: Final = even_port
        self.reserve: Final = reserve
        self.token: Final = token
        self.dual: Final = dual
        self.missing: Final = missing


def read_wish(message: Message, config: ServerConfig) -> Wish:
    """Steps 3 to 9; raises Reject 400, 440 or 442, or MalformedMessage."""
    _check_transport(message)
    lifetime = read_lifetime(message, config)
    token = message.get(a.RESERVATION_TOKEN)
    even_port = message.get(a.EVEN_PORT)
    requested = message.get(a.REQUESTED_ADDRESS_FAMILY)
    additional = message.get(a.ADDITIONAL_ADDRESS_FAMILY)
    if additional is None:
        additional = message.get(a.DRAFT_ADDITIONAL_ADDRESS_FAMILY)
    if token is not None:
        if even_port is not None or requested is not None or additional is not None:
            raise Reject(ErrorCode.BAD_REQUEST)
        return Wish((), lifetime, token=token)
    if requested is not None and additional is not None:
        raise Reject(ErrorCode.BAD_REQUEST)
    if additional is not None:
        return _dual_wish(additional, even_port, lifetime, config)
    family = _family(requested) if requested is not None else Family.IPV4
    if family not in config.families:
        raise Reject(ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED)
    return Wish(
        (family,),
        lifetime,
        even_port=even_port is not None,
        reserve=even_port is not None and even_port.reserve,
    )


def read_lifetime(message: Message, config: ServerConfig) -> int:
    """The desired lifetime in seconds: never below the default, nor above the maximum (section 7.2).

    An operator's maximum below the RFC's default wins. LIFETIME zero is Refresh's business, not looked at here.
    """
    asked = message.get(a.LIFETIME) or 0
    return min(max(asked, DEFAULT_LIFETIME), config.max_lifetime)


def _check_transport(message: Message) -> None:
    transport = message.get(a.REQUESTED_TRANSPORT)
    if transport is None:
        raise Reject(ErrorCode.BAD_REQUEST)
    if transport != UDP_PROTOCOL:
        raise Reject(ErrorCode.UNSUPPORTED_TRANSPORT_PROTOCOL)


def _family(number: int) -> Family:
    try:
        return Family(number)
    except ValueError:
        raise Reject(ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED) from None


def _dual_wish(additional: int, even_port: a.EvenPort | None, lifetime: int, config: ServerConfig) -> Wish:
    if additional != Family.IPV6 or (even_port is not None and even_port.reserve):
        raise Reject(ErrorCode.BAD_REQUEST)
    served = tuple(family for family in (Family.IPV4, Family.IPV6) if family in config.families)
    if not served:
        raise Reject(ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED)
    missing = next((family for family in Family if family not in served), None)
    return Wish(served, lifetime, even_port=even_port is not None, dual=True, missing=missing)
