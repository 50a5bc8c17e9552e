"""User names as people may see them: in the log, in lists, figures, errors and the keys of Redis."""

from __future__ import annotations

import re
from hashlib import sha256

_TOKEN = re.compile(r"eyJ[\w-]*(?:\.[\w-]*){2,4}", re.ASCII)
"""A JSON Web Token in its compact form (RFC 7519): three parts in base64url, of which the first begins a JSON object;
an encrypted one has five."""


def shown(username: str) -> str:
    """The name, in which every part that looks like a token is replaced by a mark, the same each time."""
    return _TOKEN.sub(_mark, username) if "eyJ" in username else username


def _mark(token: re.Match[str]) -> str:
    return f"token sha256:{sha256(token[0].encode()).hexdigest()[:8]}"
