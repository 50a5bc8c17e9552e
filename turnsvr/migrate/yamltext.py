"""Settings as commented YAML, in the order in which the settings' models name them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

import yaml
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from turnsvr.config.descriptions import description
from turnsvr.config.settings import Settings
from turnsvr.config.wording import section_of
from turnsvr.migrate.draft import Made, SettingValue
from turnsvr.migrate.report import line_numbers

_WIDTH = 110
_GUESSES = [pattern for known in yaml.SafeLoader.yaml_implicit_resolvers.values() for _, pattern in known]
"""What a YAML reader may take for a number, a date, yes or no."""
_PLAIN = re.compile(r"[A-Za-z0-9/](?:[A-Za-z0-9_./+ -]*[A-Za-z0-9_/+-])?")

_HEAD = """\
turnsvr: made from {name} by "turnsvr import-coturn".

Above each setting stands what it means and which lines it came from. What is not here has its default;
conf/turnsvr.yaml states every setting. "turnsvr check" says what this file means, and what is wrong with it.
"""
_SECRETS = """
Secrets stand here as they stood there, so that this file is for its owner's eyes alone. To keep one elsewhere
write !file NAME (a file beside this one that holds nothing else) or !env NAME (an environment variable) in its
place.
"""
_SECRET_SETTINGS = ("credentials.", "status.")


def write(made: Iterable[Made], name: str) -> str:
    """The text of a settings file; name is what the source is called."""
    by_setting = {each.setting: each for each in made}
    head = _HEAD.format(name=name if name.isprintable() else ascii(name))
    if any(setting.startswith(_SECRET_SETTINGS) for setting in by_setting):
        head += _SECRETS
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for top in Settings.model_fields:
        block = list(_block(Settings, top, (), by_setting))
        if block:
            lines += ["", *block]
    return "\n".join(lines) + "\n"


def _block(model: type[BaseModel], name: str, above: tuple[str, ...], made: Mapping[str, Made]) -> Iterator[str]:
    """The lines of one setting, or of a section with those in it that were made."""
    indent = "  " * len(above)
    field = model.model_fields[name]
    for written in _spellings(name, field):
        path = (*above, written)
        if each := made.get(".".join(path)):
            yield from _comment(description(model, name), each, indent)
            yield from _setting(written, each.value, indent)
    section = section_of(field.annotation)
    if section is not None:
        inner = [line for part in section.model_fields for line in _block(section, part, (*above, name), made)]
        if inner:
            yield f"{indent}{name}:"
            yield from inner


def _spellings(name: str, field: FieldInfo) -> tuple[str, ...]:
    if isinstance(field.validation_alias, AliasChoices):
        return tuple(map(str, field.validation_alias.choices))
    return (name,)


def _comment(meaning: str, made: Made, indent: str) -> Iterator[str]:
    keys = ", ".join(dict.fromkeys(option.shown_key for option in made.options))
    origin = f"From {keys}, {line_numbers(option.line for option in made.options)}." if made.options else ""
    text = " ".join(filter(None, (meaning, origin, made.remark)))
    for line in textwrap.wrap(text, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"


def _setting(name: str, value: SettingValue, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield f"{indent}{name}:"
        for key, item in value.items():
            yield f"{indent}  {scalar(key)}: {scalar(item)}"
    elif isinstance(value, Sequence) and not isinstance(value, str):
        short = f"{indent}{name}: [{', '.join(map(scalar, value))}]"
        if len(short) <= _WIDTH:
            yield short
        else:
            yield f"{indent}{name}:"
            yield from (f"{indent}  - {scalar(item)}" for item in value)
    else:
        yield f"{indent}{name}: {scalar(value)}"


def scalar(value: str | int | bool | None) -> str:
    """One value: a text that any YAML reader takes for that text, quoted where it has to be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and not any(guess.match(value) for guess in _GUESSES):
        return value
    return f'"{"".join(map(_escaped, value))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
