"""What only a restart changes: a mark on a setting's field, from which report, copy-back and schema follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from turnsvr.config.fields import Section

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class OnRestart:
    """The mark, in a field's Annotated: its value holds until the server is started again."""

    presence: bool = False
    """Only whether it is set at all needs a restart; the fields inside have marks of their own."""
    meaning: str = ""
    """A method of the section that says what the field means, where an absent one has a default that depends."""

    def value(self, section: Section, name: str) -> Any:
        return getattr(section, self.meaning)() if self.meaning else getattr(section, name)


RESTART = OnRestart()
PRESENCE = OnRestart(presence=True)


def mark_of(section: type[Section], name: str) -> OnRestart | None:
    """The mark of a field, None where a reload changes it."""
    return next((each for each in section.model_fields[name].metadata if isinstance(each, OnRestart)), None)


def changed(old: Section, new: Section, prefix: str = "") -> Iterator[str]:
    """Names of the settings that differ and need a restart, with dots, in the settings' order."""
    for name in type(old).model_fields:
        mark, before, after = mark_of(type(old), name), getattr(old, name), getattr(new, name)
        if _differs(mark, old, new, name):
            yield f"{prefix}{name}"
        elif _goes_deeper(mark, before, after):
            yield from changed(before, after, f"{prefix}{name}.")


def kept(old: S, new: S) -> S:
    """The new settings, but for what needs a restart, which is as in the old ones."""
    update: dict[str, Any] = {}
    for name in type(old).model_fields:
        mark, before, after = mark_of(type(old), name), getattr(old, name), getattr(new, name)
        if mark is not None and (not mark.presence or _differs(mark, old, new, name)):
            update[name] = mark.value(old, name)
        elif _goes_deeper(mark, before, after):
            update[name] = kept(before, after)
    return new.model_copy(update=update)


def _differs(mark: OnRestart | None, old: Section, new: Section, name: str) -> bool:
    if mark is None:
        return False
    if mark.presence:
        return (getattr(old, name) is None) != (getattr(new, name) is None)
    return bool(mark.value(old, name) != mark.value(new, name))


def _goes_deeper(mark: OnRestart | None, before: Any, after: Any) -> bool:
    return (mark is None or mark.presence) and isinstance(before, Section) and isinstance(after, Section)
