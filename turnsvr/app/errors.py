"""What keeps a server from starting, or from taking new settings."""

from __future__ import annotations


class StartError(Exception):
    """The server cannot start, or cannot take new settings; one line says why and what to do."""
