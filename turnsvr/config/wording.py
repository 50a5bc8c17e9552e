"""What the models refuse, in an operator's words: the setting's name, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import AliasChoices, BaseModel

from turnsvr.config import UNKNOWN
from turnsvr.config.document import Location
from turnsvr.config.settings import Settings
from turnsvr.config.units import BadValue

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_KEY_MARK = "[key]"
_MAX_NAME_CHARACTERS = 80
_NUMBER = ("is no number", "write digits")
_WHOLE_NUMBER = ("is no whole number", "write digits alone")
_TEXT = ("has no text", "write its value after the colon")
_SWITCH = ("is neither yes nor no", "write true or false")
_LIST = ("is no list", "write [first, second], or each on a line of its own after a dash")
_SECTION = ("is no group of settings", "write name: value lines below it")

_PHRASES = {
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": _WHOLE_NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "int_type": _WHOLE_NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "finite_number": _NUMBER,
    "bool_parsing": _SWITCH,
    "bool_type": _SWITCH,
    "string_type": _TEXT,
    "string_unicode": ("holds what is no text", "write it in UTF-8"),
    "path_type": _TEXT,
    "tuple_type": _LIST,
    "dict_type": _SECTION,
    "model_type": _SECTION,
    "missing": ("is missing", "add it"),
    "too_short": ("is empty", "name at least one"),
    "string_too_short": ("is empty", "write its value after the colon, or leave the setting out"),
}


def location_of(detail: ErrorDetails) -> Location:
    """Where in the document an error belongs: at a name itself when the name is wrong."""
    return tuple(part for part in detail["loc"] if part != _KEY_MARK)


def setting_name(location: Location) -> str:
    """`limits.allocations`, `listen[0]`; what is not printable is escaped."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            text = part if part.isprintable() and part else repr(part)
            name += f".{text}" if name else text
    return name if len(name) <= _MAX_NAME_CHARACTERS else name[: _MAX_NAME_CHARACTERS - 1] + "…"


def explain(detail: ErrorDetails, location: Location) -> tuple[str, str]:
    """What is wrong and what would be right, neither with the value itself."""
    kind = detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return UNKNOWN, _suggestion(location)
    if kind == "value_error" and isinstance(context["error"], BadValue):
        return context["error"].problem, context["error"].hint
    if kind == "greater_than_equal":
        return "is too small", f"the least is {_plain(context['ge'])}"
    if kind == "less_than_equal":
        return "is too large", f"the most is {_plain(context['le'])}"
    if kind == "string_too_long":
        return "is too long", f"the most is {context['max_length']} characters"
    if kind == "literal_error":
        return "is none of the known values", f"write {context['expected'].replace(chr(39), '')}"
    return _PHRASES.get(kind, ("is not valid", ""))


def _plain(number: float) -> str:
    return f"{number:.15g}"


def _suggestion(location: Location) -> str:
    """The known name that an unknown one most resembles: here, else anywhere."""
    *around, unknown = (str(part) for part in location)
    here = dict.fromkeys(_names(_section_at(tuple(around))))
    wanted = unknown.lower().replace("-", "_").strip()
    if close := difflib.get_close_matches(wanted, here, n=1):
        return f'did you mean "{close[0]}"?'
    paths: dict[str, str] = {}  # of each name the first of the least deep
    for path in sorted(_paths(Settings, ""), key=lambda path: path.count(".")):
        paths.setdefault(path.rpartition(".")[2], path)
    if close := difflib.get_close_matches(wanted, paths, n=1, cutoff=0.8):
        return f'did you mean "{paths[close[0]]}"?'
    return f"known here: {', '.join(here)}"


def _section_at(around: tuple[str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Settings
    for name in around:
        if name in section.model_fields:
            section = section_of(section.model_fields[name].annotation) or section
    return section


def section_of(annotation: object) -> type[BaseModel] | None:
    """The model that a field holds, also in `Model | None`."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _names(section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices):
            yield from map(str, field.validation_alias.choices)
        else:
            yield name


def _paths(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name in _names(section):
        yield prefix + name
        field = section.model_fields.get(name)
        inner = section_of(field.annotation) if field else None
        if inner is not None:
            yield from _paths(inner, f"{prefix}{name}.")
