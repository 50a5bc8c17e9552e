"""Which realm a request belongs to: the one it names, else that of its ORIGIN, of its listener, or the default one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from turnsvr import origin
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Message
from turnsvr.turn.config import Listener, RealmConfig, ServerConfig

_WILDCARDS: Final = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}


def of_request(config: ServerConfig, message: Message, five_tuple: FiveTuple) -> RealmConfig:
    """The realm that a request names; an attribute that cannot be read counts as absent."""
    named, origins = None, []
    with suppress(MalformedMessage):
        named = message.get(a.REALM)
    if config.origins and a.ORIGIN in message:
        with suppress(MalformedMessage):
            origins = list(message.all(a.ORIGIN))
    return choose(config, named, origins, five_tuple)


def choose(config: ServerConfig, named: str | None, origins: Iterable[str], five_tuple: FiveTuple) -> RealmConfig:
    """named: REALM; origins: values of ORIGIN as the client wrote them, of which the first that is known counts."""
    if named is not None:
        realm = config.find(named)
        if realm is not None:
            return realm
    for value in origins:
        realm = config.find(config.origins.get(origin.normal(value)))
        if realm is not None:
            return realm
    return _of_listener(config, five_tuple) or config.realm


def of_listener(config: ServerConfig, listener: Address) -> RealmConfig | None:
    """The realm of requests that come in there over UDP and name none; None where it depends on where they were sent.

    That is so at a wildcard listener where one of its addresses has a realm of its own.
    """
    family, port = listener.family, listener.port
    if listener.host == _WILDCARDS[family]:
        for is_stream, other in config.listeners:
            if not is_stream and other.port == port and other.family is family and other != listener:
                return None
    return _of_listener(config, FiveTuple(Transport.UDP, listener, listener)) or config.realm


def _of_listener(config: ServerConfig, five_tuple: FiveTuple) -> RealmConfig | None:
    """The realm of the listener at the very address, else of the wildcard one of its port."""
    if not config.listeners:
        return None
    is_stream, server = five_tuple.transport.is_stream, five_tuple.server
    name = config.listeners.get(Listener(is_stream, server))
    if name is None:
        name = config.listeners.get(Listener(is_stream, Address(_WILDCARDS[server.family], server.port)))
    return config.find(name)
