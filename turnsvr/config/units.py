"""How the settings file writes quantities: durations, sizes, bandwidths, rates, keys.

Each `parse_…` takes the text or a plain number and raises BadValue; each `format_…` writes what parses back
to the same value. No error text repeats the value: it may have come from a secret.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

DURATION_PATTERN = r"^(?=.)([0-9.]+ ?d)? ?([0-9.]+ ?h)? ?([0-9.]+ ?m(in)?)? ?([0-9.]+ ?s?)?$"
SIZE_PATTERN = r"^[0-9.]+ ?([kKMG]i?)?B?$"
BANDWIDTH_PATTERN = r"^[0-9.]+ ?([kKMG]?(bit/s|bps)|([kKMG]i?)?B/s)$"
RATE_PATTERN = r"^[0-9.]+ ?(/ ?(s|min|h))?$"

_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,24})?"
_DURATION = re.compile(
    rf"(?:({_NUMBER}) ?d)? ?(?:({_NUMBER}) ?h)? ?(?:({_NUMBER}) ?m(?:in)?)? ?(?:({_NUMBER}) ?s)?", re.ASCII
)
_DURATION_SECONDS = (86_400, 3_600, 60, 1)
_PLAIN = re.compile(_NUMBER, re.ASCII)
_SIZE = re.compile(rf"({_NUMBER}) ?([kmg]i?)?b?", re.ASCII | re.IGNORECASE)
_BITS = re.compile(rf"({_NUMBER}) ?([kmg])?(?:bit/s|bps)", re.ASCII | re.IGNORECASE)
_BYTES = re.compile(rf"({_NUMBER}) ?([kKMG]i?)?B/s", re.ASCII)
_RATE = re.compile(rf"({_NUMBER}) ?(?:/ ?(s|sec|min|m|h))?", re.ASCII)
_RATE_SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3_600}
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_KEY_PREFIX = "0x"
_KEY = re.compile(r"0x((?:[0-9a-f]{2}){16}|(?:[0-9a-f]{2}){32})", re.IGNORECASE)


class BadValue(ValueError):
    """A setting's text that means nothing: what is wrong, and what would be right."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


def parse_duration(value: object) -> float:
    """Seconds from `30s`, `10m`, `1h`, `1h30m`, `2d` or a number of seconds."""
    bad = BadValue("is not a duration", "write it as 30s, 10m, 1h, 1h30m or as a number of seconds")
    if not isinstance(value, str):
        return _number(value, bad)
    text = value.strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise bad
    parts = zip(match.groups(), _DURATION_SECONDS, strict=True)
    return math.fsum(float(number) * seconds for number, seconds in parts if number)


def format_duration(seconds: float) -> str:
    if seconds != int(seconds):
        return f"{Decimal(repr(seconds)):f}s"
    rest = int(seconds)
    text = ""
    for unit, size in zip("dhms", _DURATION_SECONDS, strict=True):
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_size(value: object) -> int:
    """Bytes from `256 KiB`, `1.5 MB` or a number of bytes."""
    bad = BadValue("is not a size", "write it as 256 KiB, 1 MB or as a number of bytes")
    if not isinstance(value, str):
        return round(_number(value, bad))
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise bad
    return round(Decimal(match[1]) * _FACTORS[(match[2] or "").lower()])


def format_size(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def parse_bandwidth(value: object) -> int:
    """Bytes per second from `4 Mbit/s`, `500 kB/s`, `8 Mbps`; a number that is no text is that already."""
    bad = BadValue("is not a bandwidth", "write it with its unit: 4 Mbit/s, 500 kbit/s or 500 kB/s")
    if not isinstance(value, str):
        return round(_number(value, bad))
    text = value.strip()
    if match := _BYTES.fullmatch(text):
        return round(Decimal(match[1]) * _FACTORS[(match[2] or "").lower()])
    if match := _BITS.fullmatch(text):
        return round(Decimal(match[1]) * _FACTORS[(match[2] or "").lower()] / 8)
    raise bad


def format_bandwidth(bytes_per_second: int) -> str:
    bits = bytes_per_second * 8
    for unit, factor in (("Gbit/s", 10**9), ("Mbit/s", 10**6), ("kbit/s", 10**3)):
        if bits and bits % factor == 0:
            return f"{bits // factor} {unit}"
    return f"{bytes_per_second} B/s"


def parse_rate(value: object) -> float:
    """Events per second from `100/s`, `600/min`, `10/h` or a number per second."""
    bad = BadValue("is not a rate", "write it as 100/s, 600/min or as a number per second")
    if not isinstance(value, str):
        return _number(value, bad)
    match = _RATE.fullmatch(value.strip())
    if match is None:
        raise bad
    return float(match[1]) / _RATE_SECONDS[match[2] or "s"]


def format_rate(per_second: float) -> str:
    return f"{Decimal(repr(float(per_second))):f}".removesuffix(".0") + "/s"


def parse_hex_key(text: str) -> bytes | None:
    """The key that `0x` and 32 (MD5) or 64 (SHA-256) hex digits state; None for any other password.

    Raises BadValue for another text that begins with `0x`: a mistyped key never serves as a password.
    """
    if not text.startswith(_KEY_PREFIX):
        return None
    match = _KEY.fullmatch(text)
    if match is None:
        raise BadValue(
            "begins with 0x but is no key",
            "a key has 32 (MD5) or 64 (SHA-256) hex digits of user:realm:password",
        )
    return bytes.fromhex(match[1])


def _number(value: object, bad: BadValue) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad
    if not 0 <= value < 2**63:
        raise bad
    return float(value)
