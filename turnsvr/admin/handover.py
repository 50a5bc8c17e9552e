"""How a successor comes to a server: what it says first on the admin socket, where all others speak HTTP."""

from __future__ import annotations

from typing import Final

PREFACE: Final = b"\0turnsvr hand-over\n"
"""No HTTP begins so."""
