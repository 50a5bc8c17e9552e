"""YAML text to plain values with the line of each: mappings, lists, texts and None, nothing else.

A plain scalar stays the text that was written and the setting's type decides what it means, so YAML's own
guesses (`no`, `12:30`, `0755`) surprise no operator. Names of settings are texts in the same way. Tags: `!env NAME`
and `!file PATH` take a text from elsewhere. No problem's text repeats a value, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

Location: TypeAlias = tuple[str | int, ...]
YamlValue: TypeAlias = "str | list[YamlValue] | dict[str, YamlValue] | None"

_MAX_DEPTH = 20
_MAX_VALUES = 100_000
_MAX_INCLUDED_BYTES = 65_536

_YAML = "tag:yaml.org,2002:"
_NULL = f"{_YAML}null"
_MERGE = f"{_YAML}merge"
_TEXT_TAGS = frozenset(_YAML + kind for kind in ("str", "int", "float", "bool", "timestamp", "value", "merge"))
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIALS = "/run/credentials/"
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_HARMLESS = re.compile(r"'(?:.|\\.|<[a-z ]+>)?'")


@dataclass(frozen=True)
class Problem:
    """What is wrong at a location of the document; line counts from 1."""

    location: Location
    line: int
    problem: str
    hint: str = ""


@dataclass
class YamlDocument:
    """What a text holds; a value with a problem is an empty text. `lines` has the line of every location."""

    value: YamlValue = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, location: Location) -> int:
        """The line of a location, or of the closest one around it that the text has; 1 at the least."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read(text: str, directory: Path, environ: Mapping[str, str]) -> YamlDocument:
    """The document that the text holds; `!file` paths count from directory. Never raises for bad text."""
    reader = _Reader(directory, environ)
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            reader.document.value = reader.convert(node, (), ())
    except yaml.YAMLError as error:
        return YamlDocument(problems=[_syntax_problem(error, text)])
    except (ValueError, OverflowError):
        # PyYAML lets chr() and int() fail on escapes and directives that name no character or number.
        line = loader.get_mark().line + 1 if loader else 1
        return YamlDocument(problems=[Problem((), line, "is no YAML: an escape or directive makes no sense")])
    except _TooMuch as excess:
        return YamlDocument(problems=[Problem((), excess.line, str(excess))])
    return reader.document


class _TooMuch(Exception):
    def __init__(self, problem: str, node_line: int) -> None:
        super().__init__(problem)
        self.line = node_line


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with a bound on nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _TooMuch("is nested too deeply", self.get_mark().line + 1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Reader:
    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.document = YamlDocument()
        self._directory = directory
        self._environ = environ
        self._left = _MAX_VALUES

    def convert(self, node: yaml.Node, location: Location, around: tuple[yaml.Node, ...]) -> YamlValue:
        """The value of a node; `around` are the nodes that contain it, which an alias may not name again."""
        self._left -= 1
        line = node.start_mark.line + 1
        self.document.lines.setdefault(location, line)
        if self._left < 0:
            raise _TooMuch("holds too many values, counting each use of an alias", line)
        if node in around:
            return self._problem(location, line, "contains itself", "an alias cannot name what it stands in")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, location, line)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_YAML}seq":
            return [self.convert(item, (*location, i), (*around, node)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_YAML}map":
            return self._mapping(node, location, (*around, node))
        return self._unknown_tag(location, line)

    def _mapping(self, node: yaml.MappingNode, location: Location, around: tuple[yaml.Node, ...]) -> YamlValue:
        values: dict[str, YamlValue] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _TEXT_TAGS | {_NULL}:
                self._problem((*location, "?"), line, "has a name that is no text", "write name: value")
                continue
            if key.tag == _MERGE:
                self._problem(
                    (*location, "<<"), line, "merges with <<, which is not known here", "write the settings out"
                )
                continue
            name = key.value
            if name in values:
                first = self.document.lines[(*location, name)]
                self._problem((*location, name), line, f"stands twice, first in line {first}", "keep one")
                continue
            self.document.lines[(*location, name)] = line
            values[name] = self.convert(item, (*location, name), around)
        return values

    def _scalar(self, node: yaml.ScalarNode, location: Location, line: int) -> YamlValue:
        if node.tag == _NULL:
            return None
        if node.tag == "!env":
            return self._variable(node.value, location, line)
        if node.tag == "!file":
            return self._file(node.value, location, line)
        if node.tag in _TEXT_TAGS:
            return str(node.value)
        return self._unknown_tag(location, line)

    def _variable(self, name: str, location: Location, line: int) -> YamlValue:
        if not _VARIABLE.fullmatch(name):
            return self._problem(location, line, "has no variable's name after !env", "write !env NAME")
        if name not in self._environ:
            return self._problem(location, line, f"takes the environment variable {name}, which is not set")
        return self._environ[name]

    def _file(self, name: str, location: Location, line: int) -> YamlValue:
        problem = f"takes the file {name!a}, which"
        try:
            with (self._directory / name).open("rb") as file:
                content = file.read(_MAX_INCLUDED_BYTES + 1)
            text = content.decode()
        except OSError as error:
            hint = "systemd has it there while the service runs" if name.startswith(_CREDENTIALS) else ""
            return self._problem(location, line, f"{problem} cannot be read: {error.strerror}", hint)
        except ValueError:
            return self._problem(location, line, f"{problem} is no UTF-8 text")
        if len(content) > _MAX_INCLUDED_BYTES:
            return self._problem(location, line, f"{problem} is larger than {_MAX_INCLUDED_BYTES} bytes")
        return text.removesuffix("\n").removesuffix("\r")

    def _unknown_tag(self, location: Location, line: int) -> YamlValue:
        return self._problem(
            location,
            line,
            "has an unknown tag",
            "known are !env and !file; a text that begins with ! stands in quotes",
        )

    def _problem(self, location: Location, line: int, problem: str, hint: str = "") -> str:
        self.document.problems.append(Problem(location, line, problem, hint))
        return ""


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.composer.ComposerError):
        if error.context and "single document" in error.context:
            return Problem((), _line(error), "begins a second document", "one file holds one server's settings")
        return Problem(
            (),
            _line(error),
            "is no YAML: an alias or anchor fits nothing",
            "a text that begins with * or & stands in quotes",
        )
    if isinstance(error, yaml.MarkedYAMLError):
        what = ", ".join(part for part in (error.problem, error.context) if part)
        return Problem((), _line(error), f"is no YAML: {_QUOTED.sub(_hidden, what)}", _syntax_hint(what))
    if isinstance(error, yaml.reader.ReaderError):
        return Problem((), text.count("\n", 0, error.position) + 1, "has a character that YAML does not allow")
    return Problem((), 1, "is no YAML")


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _hidden(quoted: re.Match[str]) -> str:
    """A piece of the file in PyYAML's text: a single character or a token's name may show, anything else not."""
    return quoted[0] if _HARMLESS.fullmatch(quoted[0]) else "…"


def _syntax_hint(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "check the indentation; a text with a colon and a space stands in quotes"
    if r"'\t'" in problem:
        return "indent with spaces"
    if "could not find expected ':'" in problem:
        return "write name: value, with a space after the colon"
    if "cannot start any token" in problem or "tag" in problem:
        return "a text that begins with a special character stands in quotes"
    if "but found ':'" in problem:
        return "an IPv6 address stands in quotes"
    return "check indentation, brackets and quotes around this line"
