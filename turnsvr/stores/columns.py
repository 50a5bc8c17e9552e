"""What texts a store can hold: as long as coturn's columns are wide, and without what C or UTF-8 cannot say."""

from __future__ import annotations

from turnsvr.stores.api import NotStorable

MAX_CHARACTERS = {
    "realm": 127,
    "user name": 512,
    "secret": 256,
    "origin": 127,
    "peer range": 256,
    "key id": 128,
}
"""Widths of coturn's columns, by what stands in them."""


def holds(**texts: str) -> bool:
    """Whether a store could hold all of these, so that it is worth asking for them; `user_name` is "user name"."""
    return all(_flaw(kind.replace("_", " "), text) is None for kind, text in texts.items())


def check(**texts: str) -> None:
    """Raises NotStorable for the first of these that a store cannot hold."""
    for name, text in texts.items():
        kind = name.replace("_", " ")
        flaw = _flaw(kind, text)
        if flaw is not None:
            raise NotStorable(f"the {kind} {flaw}")


def _flaw(kind: str, text: str) -> str | None:
    if len(text) > MAX_CHARACTERS[kind]:
        return f"has more than {MAX_CHARACTERS[kind]} characters"
    if "\0" in text:
        return "has a NUL in it"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is no Unicode text"
    return None
