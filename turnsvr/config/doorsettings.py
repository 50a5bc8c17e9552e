"""The settings of what stands in front of the stream listeners: balancers that speak the PROXY protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from turnsvr.config import fields


class ProxySettings(fields.Section):
    """Balancers in front that tell where connections come from (PROXY protocol, versions 1 and 2)."""

    trusted: Annotated[fields.Ranges, Field(min_length=1)]
    """Addresses of the balancers. Others are refused where a header is asked for."""
    listen: fields.ListenAddresses = ()
    """TCP and TLS listeners, of those that serve, whose connections begin with a header; all of them when empty."""
