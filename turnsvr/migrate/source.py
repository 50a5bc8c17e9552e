"""What a turnserver.conf says, by coturn's own grammar: lines, keys and values, and nothing of what they mean."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_BYTES = 524_288

_BLANKS = " \t\n\v\f\r"
_OPTION = re.compile(r"([^ =\t]*)[ =\t]*(.*)", re.DOTALL)
_COMMENT = re.compile(r"(?:^|[ \t]+)#.*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_SHOWN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class SourceError(Exception):
    """A file that is no turnserver.conf: why, in one line."""


@dataclass(frozen=True, slots=True)
class Option:
    """One line that sets something; line counts from 1, value is empty when there is none."""

    line: int
    key: str
    value: str = field(default="", repr=False)
    """All that coturn takes for the value: to the end of the line, a comment there included."""
    exact: bool = True
    """Whether the line is UTF-8; otherwise value is its reading as Latin-1."""

    @property
    def text(self) -> str:
        """The value without a comment behind it, which users write and coturn takes for part of the value."""
        cut = _COMMENT.sub("", self.value)
        return self.value if cut == self.value else cut.rstrip(_BLANKS).removesuffix('"')

    @property
    def commented(self) -> bool:
        return self.text != self.value

    @property
    def number(self) -> int | None:
        """The number that the value begins with, as coturn reads it; None when there is none."""
        match = _NUMBER.match(self.value)
        return int(match[0]) if match else None

    @property
    def switch(self) -> bool | None:
        """Yes or no; None for a value with which coturn ends."""
        text = self.text
        if not text or text[0] in "yYtT123456789" or text.lower() == "on":
            return True
        return False if text[0] in "0nNfF" or text.lower() == "off" else None

    @property
    def shown_key(self) -> str:
        """The key for people; what looks like no key may be a misplaced secret and is not repeated."""
        return self.key if _SHOWN_KEY.fullmatch(self.key) else "?"


def read(data: bytes) -> tuple[Option, ...]:
    """Every line that sets something; raises SourceError."""
    if len(data) > MAX_BYTES:
        raise SourceError(f"is larger than {MAX_BYTES} bytes")
    if data.startswith(_UTF16):
        raise SourceError("is UTF-16 text; save it as UTF-8")
    return tuple(_options(data.removeprefix(codecs.BOM_UTF8)))


def _options(data: bytes) -> Iterator[Option]:
    for number, raw in enumerate(data.split(b"\n"), 1):
        line, exact = _decode(raw)
        line = line.strip(_BLANKS)
        if not line or line.startswith("#"):
            continue
        match = _OPTION.fullmatch(line)
        assert match is not None
        yield Option(number, match[1], _unquoted(match[2]), exact)


def _decode(raw: bytes) -> tuple[str, bool]:
    try:
        return raw.decode(), True
    except UnicodeDecodeError:
        return raw.decode("latin-1"), False


def _unquoted(value: str) -> str:
    return value[1:].rstrip(_BLANKS).removesuffix('"') if value.startswith('"') else value
