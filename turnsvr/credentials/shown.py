"""User names that are secrets themselves, and what is shown of them."""

from __future__ import annotations

import re
from hashlib import sha256

_TOKEN = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*", re.ASCII)
"""A JSON Web Token in its compact form (RFC 7519): three parts in base64url, and the first begins a JSON object."""


def shown(username: str) -> str:
    """A user name as logs may show it: one that looks like a token becomes a mark that is the same each time."""
    if not _TOKEN.fullmatch(username):
        return username
    return f"token sha256:{sha256(username.encode()).hexdigest()[:8]}"
