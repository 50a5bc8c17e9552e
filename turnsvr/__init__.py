"""turnsvr: a STUN and TURN server (RFC 8489, RFC 8656)."""

from __future__ import annotations

from turnsvr import compiled_modules

__version__ = "0.1.0"

compiled_modules.install()
