"""Where a compose file says what coturn is told: its command, and the turnserver.conf that is mounted for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import yaml

from turnsvr.config.ranges import AUTO
from turnsvr.migrate.commandline import CoturnCommand, command_of, detecting
from turnsvr.migrate.source import SourceError

_DETECTED = re.compile(r"\$\(detect-external-ip[^)]*\)|`detect-external-ip[^`]*`")
_IN_COMPOSE = re.compile(
    r"\$\$|\$(?:\{(?P<braced>\w+)(?:(?P<how>:?[-?])(?P<other>[^}]*))?\}|(?P<bare>[A-Za-z_]\w*))", re.ASCII
)
_IN_SHELL = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", re.ASCII)
_PROGRAMS = ("turnserver", "coturn")
_FILES = ("/etc/coturn/turnserver.conf", "/etc/turnserver.conf", "/etc/turnserver/turnserver.conf")
"""Where coturn's images look for one."""

ReadText = Callable[[str], str]
"""The text of a file by its name, empty where there is none."""


def command_in_compose(data: bytes, read: ReadText = lambda name: "") -> CoturnCommand | None:
    """What coturn is told in a compose file; None where the data are no such file.

    The command may be a list or text for a shell. Variables are put in: those of `.env` where compose has them, and
    those of the service, its env_file among them, where the image's shell has. One that is not set stays as it is
    written. Raises SourceError where coturn is told nothing.
    """
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return None
    services = document.get("services") if isinstance(document, dict) else None
    if not isinstance(services, dict):
        return None
    project = _assignments(read(".env"))
    for name, service in sorted(services.items(), key=lambda each: not _is_coturn(*each)):
        if isinstance(service, dict):
            found = _command(service, project, read)
            if found.file or (found.lines and (_is_coturn(name, service) or b"realm" in found.lines)):
                return found
    raise SourceError("no service of this compose file has options of coturn's, or a turnserver.conf")


def _is_coturn(name: object, service: object) -> bool:
    if not isinstance(service, dict):
        return False
    said = [name, *(service.get(key, "") for key in ("image", "container_name", "command", "entrypoint"))]
    return any(program in str(each) for each in said for program in _PROGRAMS)


def _command(service: Mapping[str, object], project: Mapping[str, str], read: ReadText) -> CoturnCommand:
    own = {name: _composed(value, project) for name, value in _environment(service, read)}
    entry, command = (_words(service.get(key)) for key in ("entrypoint", "command"))
    words = [_in_shell(_composed(word, project).replace("$$", "$"), own) for word in (*entry, *command)]
    found = command_of([*words, *detecting(own)])
    return replace(found, file=_configuration(found, dict(_volumes(service, project))))


def _configuration(command: CoturnCommand, volumes: Mapping[str, str]) -> str:
    """The file as it is called outside of the container, empty where there is none. Raises SourceError."""
    if command.alone:
        return ""
    for path in [command.file] if command.file else _FILES:
        for target, source in volumes.items():
            if target and (path == target or path.startswith(f"{target}/")):
                return source + path[len(target) :]
    if command.file:
        raise SourceError(f"coturn is told to read {command.file}, which is not mounted; import that file")
    return ""


def _volumes(service: Mapping[str, object], project: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is mounted: its place in the container, and what it is."""
    volumes = service.get("volumes")
    for each in volumes if isinstance(volumes, list) else ():
        if isinstance(each, dict):
            source, target = str(each.get("source", "")), str(each.get("target", ""))
        else:
            source, _, rest = _composed(str(each), project).partition(":")
            target = rest.partition(":")[0]
        yield target.rstrip("/"), _composed(source, project).rstrip("/")


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


def _words(command: object) -> list[str]:
    """Those of a command, also behind `sh -c`, without the program."""
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
