"""coturn's options as a command line gives them, and where a compose file holds one, as lines of a turnserver.conf."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import yaml

from turnsvr.config.ranges import AUTO
from turnsvr.migrate.keys import SHORT

_DETECTING = {"DETECT_EXTERNAL_IP", "DETECT_EXTERNAL_IPV6"}
"""What has coturn's image find its public address."""
_DETECTED = re.compile(r"\$\(detect-external-ip[^)]*\)|`detect-external-ip[^`]*`")
_IN_COMPOSE = re.compile(
    r"\$\$|\$(?:\{(?P<braced>\w+)(?:(?P<how>:?[-?])(?P<other>[^}]*))?\}|(?P<bare>[A-Za-z_]\w*))", re.ASCII
)
_IN_SHELL = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", re.ASCII)
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


ReadText = Callable[[str], str]
"""The text of a file by its name, empty where there is none."""


def command_in_compose(data: bytes, read: ReadText = lambda name: "") -> list[str] | None:
    """The arguments of coturn in a compose file, as a list or as text for a shell; None where there is no such file.

    Variables are put in: those of `.env` where compose has them, and those of the service, its env_file among them,
    where the image's shell has. One that nobody has set stays as it is written.
    """
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return None
    services = document.get("services") if isinstance(document, dict) else None
    if not isinstance(services, dict):
        return None
    project = _assignments(read(".env"))
    for each in _coturn_first(services.values()):
        if isinstance(each, dict):
            words = _arguments(each, project, read)
            if any(word.startswith("-") for word in words):
                return words
    return None


def _arguments(service: Mapping[str, object], project: Mapping[str, str], read: ReadText) -> list[str]:
    own = {name: _composed(value, project) for name, value in _environment(service, read)}
    words = [_composed(word, project).replace("$$", "$") for word in _words(service.get("command"))]
    words = [_in_shell(word, own) for word in words]
    if _DETECTING & {name for name, value in own.items() if value.lower() not in ("", "no", "false", "0")}:
        words.append(f"--external-ip={AUTO}")
    return words


def _environment(service: Mapping[str, object], read: ReadText) -> Iterator[tuple[str, str]]:
    """Of the service; `environment` comes after `env_file`, over which it wins."""
    files = service.get("env_file") or ()
    for each in [files] if isinstance(files, (str, dict)) else files if isinstance(files, list) else ():
        name = each.get("path") if isinstance(each, dict) else each
        yield from _assignments(read(str(name))).items()
    given = service.get("environment")
    if isinstance(given, dict):
        yield from ((str(name), "" if value is None else str(value)) for name, value in given.items())
    elif isinstance(given, list):
        yield from _assignments("\n".join(map(str, given))).items()


def _assignments(text: str) -> dict[str, str]:
    """NAME=VALUE on lines of their own, the values perhaps in quotes."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name.strip()] = value[1:-1] if quoted else value
    return found


def _composed(text: str, variables: Mapping[str, str]) -> str:
    """As compose puts variables in; $$ stays for later."""

    def value(match: re.Match[str]) -> str:
        name = match["braced"] or match["bare"]
        if name is None:
            return match[0]
        found = variables.get(name)
        if found or (found is not None and not (match["how"] or "").startswith(":")):
            return found
        return match["other"] if match["how"] in ("-", ":-") else match[0]

    return _IN_COMPOSE.sub(value, text)


def _in_shell(text: str, variables: Mapping[str, str]) -> str:
    """As the shell of coturn's image puts variables in, and the address that it finds out."""
    text = _DETECTED.sub(AUTO, text)
    return _IN_SHELL.sub(lambda match: variables.get(match[1] or match[2], match[0]), text)


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
