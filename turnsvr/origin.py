"""How values of ORIGIN compare: where a web page came from, in one spelling. Imports nothing of ours."""

from __future__ import annotations

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def normal(text: str) -> str:
    """Scheme and host in lower case, without the scheme's default port and without a trailing slash.

    Never fails: a text that is no origin is compared as it stands.
    """
    scheme, separator, rest = text.removesuffix("/").partition("://")
    if not separator:
        return scheme
    host, slash, path = rest.partition("/")
    scheme = scheme.lower()
    return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ''))}{slash}{path}"
