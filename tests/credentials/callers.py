"""A client that asks, where it does not matter which."""

from __future__ import annotations

from turnsvr.credentials.api import Caller

CALLER = Caller("192.0.2.1", secure=False)
