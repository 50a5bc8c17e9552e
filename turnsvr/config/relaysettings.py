"""What can be set of relayed transport addresses, and of the peers that they reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from turnsvr.config import fields
from turnsvr.config.ranges import PortRange, parse_external_source, parse_host

_DAY = 86_400.0


class RelaySettings(fields.Section):
    """Where relayed transport addresses come from."""

    addresses: Annotated[fields.IpTexts, Field(min_length=1)] | None = None
    """Local addresses that relay; found by itself when absent."""
    external: fields.External = Field(default_factory=dict)
    """What one-to-one NAT puts in place of relay addresses: one, one a family, relay: external, auto, or a name."""
    external_stun: Annotated[fields.StunServers, Field(max_length=8)] = ()
    """STUN servers that `external: auto` asks where no cloud tells; two well-known ones when absent."""
    external_interval: Annotated[fields.Seconds, Field(ge=1, le=_DAY)] = 300.0
    """How often an external address that is found by itself is looked at again, 1 s to 1 day."""
    ports: fields.PortSpan = PortRange(49_152, 65_535)
    """Ports of relayed transport addresses."""
    default_family: Literal["ipv4", "ipv6", "client"] = "ipv4"
    """Family of the relayed address of a client that names none; client: that of its own address, where served."""
    tcp: bool = False
    """Relay over TCP to peers too (RFC 6062), for TCP and TLS clients that ask for it."""

    _external_source: str | None = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _take_source(cls, value: Any, handler: ModelWrapValidatorHandler[RelaySettings]) -> RelaySettings:
        """What finds the external address by itself stands beside the addresses that are written down."""
        source = parse_external_source(value.get("external")) if isinstance(value, Mapping) else None
        if source is None:
            return handler(value)
        made = handler({**value, "external": {}})
        made._external_source = source
        return made

    @model_serializer(mode="wrap")
    def _write_source(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return written if self._external_source is None else {**written, "external": self._external_source}

    @property
    def external_source(self) -> str | None:
        """`auto`, or the DNS name of the external address; None where addresses are written down, or none is."""
        return self._external_source

    def external_for(self, address: str) -> str | None:
        """The address that is written down for this relay address, None when none is."""
        relay = parse_host(address)
        return self.external.get(relay) or self.external.get(fields.ANY_OF_FAMILY[fields.family_of(relay)])


class PeerSettings(fields.Section):
    """Which peers may be reached beyond the safe default, which refuses private and other special-purpose ranges."""

    allow: fields.PeerRanges = ()
    """What may be reached although the default or `deny` refuses it; this host only by addresses, best with ports."""
    deny: fields.Ranges = ()
    """Ranges that are refused besides the default ones."""
