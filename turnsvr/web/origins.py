"""Which web pages may call: this server's own, and those of the configured origins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from turnsvr.config.websettings import WebSettings

ReadOnlyScope = Mapping[str, Any]


def all_origins(settings: WebSettings) -> tuple[str, ...]:
    """Every origin that is named anywhere, for preflight requests, which carry no key."""
    named = (origin for key in settings.keys for origin in key.origins)
    return tuple(dict.fromkeys((*settings.origins, *named)))


def header(scope: ReadOnlyScope, name: str) -> str | None:
    """The first header of that lower-case name, None when absent."""
    wanted = name.encode()
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == wanted), None)


def may_call(origin: str | None, host: str | None, origins: Iterable[str]) -> bool:
    """Whether a page of this origin may call a server that it knows by this Host header.

    No origin means no browser, which nothing here could hold back.
    """
    return origin is None or origin in origins or (host is not None and _authority(origin) == host)


def _authority(origin: str) -> str | None:
    """Host and port of an origin, None of what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
