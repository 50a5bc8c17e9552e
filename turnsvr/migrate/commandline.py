"""coturn's options as a command line gives them, and where a compose file holds one, as lines of a turnserver.conf."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

import yaml

from turnsvr.migrate.keys import SHORT

_PROGRAMS = ("turnserver", "coturn")


def lines_of(arguments: Sequence[str]) -> bytes:
    """`--key=value`, `--key value`, `-k value` and `--key`, each as a line; what is none of these is left out."""
    lines = []
    waiting: str | None = None
    for argument in arguments:
        if argument.startswith("-") and len(argument) > 1:
            if waiting is not None:
                lines.append(waiting)
            name, equals, value = argument.lstrip("-").partition("=")
            if not argument.startswith("--") and len(name) > 1:
                name, equals, value = name[0], "=", name[1:]
            key = SHORT.get(name, name)
            waiting = None if equals else key
            if equals:
                lines.append(f"{key}={value}")
        elif waiting is not None:
            lines.append(f"{waiting}={argument}")
            waiting = None
    if waiting is not None:
        lines.append(waiting)
    usual = (line for line in lines if not line.startswith("no configuration file"))
    return "".join(f"{' '.join(line.splitlines())}\n" for line in usual).encode()


def command_in_compose(data: bytes) -> list[str] | None:
    """The arguments of coturn in a compose file, as a list or as text for a shell; None where there is no such file."""
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return None
    services = document.get("services") if isinstance(document, dict) else None
    if not isinstance(services, dict):
        return None
    commands = [each.get("command") for each in _coturn_first(services.values()) if isinstance(each, dict)]
    for command in commands:
        words = _words(command)
        if any(word.startswith("-") for word in words):
            return words
    return None


def _coturn_first(services: Iterable[object]) -> list[object]:
    return sorted(services, key=lambda each: not (isinstance(each, dict) and "coturn" in str(each.get("image", ""))))


def _words(command: object) -> list[str]:
    """Those of a command, also behind `sh -c`."""
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError:
            return []
    elif isinstance(command, list):
        words = [str(each) for each in command]
    else:
        return []
    if "-c" in words and words.index("-c") + 1 < len(words) and " " in words[words.index("-c") + 1]:
        return _words(words[words.index("-c") + 1].removeprefix("exec "))
    return words[1:] if words and words[0].rpartition("/")[2] in _PROGRAMS else words
