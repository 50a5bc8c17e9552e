"""Text for terminals: figures that people read, hostile text made harmless, columns that fit.

Widths are cells of the terminal, of which East Asian characters take two and accents none.
"""

from __future__ import annotations

import unicodedata

_UNITS = ("", "k", "M", "G", "T", "P", "E")
_STEP = 1000


def printable(text: str) -> str:
    """The text on one line; characters that a terminal would obey or hide stand as \\x, \\u or \\U escapes."""
    return "".join(each if _is_plain(each) else each.encode("unicode_escape").decode() for each in text)


def _is_plain(character: str) -> bool:
    return character.isprintable() and not unicodedata.combining(character)


def width(text: str) -> int:
    """Cells that printable text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def fit(text: str, cells: int, *, right: bool = False) -> str:
    """Printable text in exactly so many cells, cut with … or filled with spaces."""
    missing = cells - width(text)
    if missing < 0:
        text = _cut(text, cells)
        missing = cells - width(text)
    return " " * missing + text if right else text + " " * missing


def _cut(text: str, cells: int) -> str:
    if cells <= 0:
        return ""
    kept, used = "", 0
    for each in text:
        used += width(each)
        if used > cells - 1:
            break
        kept += each
    return kept + "…"


def size(number: float, gap: str = "") -> str:
    """At most three digits, a gap and a unit of thousands: `0`, `999`, `1.2k`, `34k`, `5.6M`."""
    for unit in _UNITS:
        if number < _STEP - 0.5 or unit == _UNITS[-1]:
            break
        number /= _STEP
    return f"{number:.1f}{gap}{unit}" if unit and number < 9.95 else f"{number:.0f}{gap}{unit}"


def duration(seconds: float) -> str:
    """The two largest units: `5s`, `3m12s`, `1h02m`, `2d03h`."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
