"""Time-limited user names: the one place that makes and reads them.

Web applications write the expiry and the user in either order, with a separator of their own choice:
`EXPIRY`, `EXPIRY:user`, `user:EXPIRY` and `:EXPIRY`, EXPIRY in seconds since 1970.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

from turnsvr.credentials.api import MAX_USERNAME_BYTES, Refusal

DEFAULT_SEPARATOR: Final = ":"

_MAX_EXPIRY_DIGITS: Final = 12
"""The year 33658 and beyond is a mistake or an attempt."""
_MAX_DIGITS: Final = 20
"""Nanoseconds since 1970 have 19."""
_LEAST_PLAUSIBLE: Final = 1_000_000_000
"""Seconds since 1970, in 2001. What is less and stands beside a plausible expiry is a user's number."""
_MOST_PLAUSIBLE: Final = 4_102_444_800
"""The same in 2100. What is more and stands behind a number that is not in seconds is a user's number, as of a phone.
"""
_MILLISECONDS: Final = range(1_000_000_000_000, 4_102_444_800_000)
"""A number that is a time between 2001 and 2100 in milliseconds, and none in seconds."""


class TimedName(NamedTuple):
    """A time-limited user name taken apart; expiry in seconds since 1970, user empty when there is none."""

    expiry: int
    user: str


@final
class TimedNames:
    """Makes and reads such names with one separator.

    The first part is the expiry when it can be one, as coturn has it; a user's number of fewer than ten digits in
    front of a plausible expiry is none. Else it is the last part, or the one after the first separator.
    """

    def __init__(self, separator: str = DEFAULT_SEPARATOR) -> None:
        """Raises ValueError for a separator that is no single character, or is a digit."""
        if len(separator) != 1 or separator.isdigit():
            raise ValueError("a separator is one character and no digit")
        self.separator: Final = separator

    def parse(self, username: str) -> TimedName | None:
        """The parts of a time-limited name; None for any other, and for an expiry that is not in seconds."""
        if not _fits(username):
            return None
        leading, others = self._leading(username), self._others(username)
        if leading is not None and int(leading.digits) in _MILLISECONDS:
            return None
        if leading is not None and not _is_short(leading):
            others = [reading for reading in others if int(reading.digits) < _MOST_PLAUSIBLE]
        for reading in (leading, *others):
            if reading is not None and _is_short(reading) and int(reading.digits) >= _LEAST_PLAUSIBLE:
                return TimedName(int(reading.digits), reading.user)
        if leading is not None and all(map(_is_short, (leading, *others))):
            return TimedName(int(leading.digits), leading.user)
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        """Why a name is not accepted at this time by who knows all secrets; UNKNOWN for one that is not timed."""
        timed = self.parse(username)
        if timed is not None:
            return Refusal.EXPIRED if timed.expiry <= wall_time else Refusal.UNKNOWN
        if _fits(username):
            for reading in (self._leading(username), *self._others(username)):
                if reading is not None and not _is_short(reading):
                    return Refusal.NOT_IN_SECONDS
        return Refusal.UNKNOWN

    def make(self, user: str, expiry: int) -> str:
        """`EXPIRY:user`, or `EXPIRY` for an empty user; expiry in seconds since 1970.

        Raises ValueError when the name would be too long, or would not be read as it is meant.
        """
        username = f"{expiry}{self.separator}{user}" if user else str(expiry)
        if self.parse(username) != TimedName(expiry, user):
            raise ValueError(f"no user name of at most {MAX_USERNAME_BYTES} bytes with a sensible expiry")
        return username

    def _leading(self, username: str) -> _Reading | None:
        """The name as `EXPIRY`, `EXPIRY:user` or `:EXPIRY`."""
        digits, _, user = username.removeprefix(self.separator).partition(self.separator)
        return _Reading(digits, user) if _is_number(digits) else None

    def _others(self, username: str) -> list[_Reading]:
        """The name as `user:EXPIRY`, where the user's name may hold the separator, or something follows (coturn)."""
        before, found, last = username.rpartition(self.separator)
        first, _, rest = username.partition(self.separator)
        second = rest.partition(self.separator)[0]
        readings = [_Reading(last, before), _Reading(second, first)] if found else []
        return [reading for reading in readings if _is_number(reading.digits)]


class _Reading(NamedTuple):
    """What may be the expiry, and the user that goes with it."""

    digits: str
    user: str


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def _is_short(reading: _Reading) -> bool:
    return len(reading.digits) <= _MAX_EXPIRY_DIGITS


def _fits(username: str) -> bool:
    try:
        return len(username.encode()) <= MAX_USERNAME_BYTES
    except UnicodeEncodeError:
        return False
