"""coturn's options as a command line gives them, as lines of a turnserver.conf."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from turnsvr.config.ranges import AUTO
from turnsvr.migrate.keys import SHORT

NO_FILE = "no configuration file"
_FILE = "configuration file"
_DETECTING = {"DETECT_EXTERNAL_IP", "DETECT_EXTERNAL_IPV6"}
"""What has coturn's image find its public address."""
_IMAGE = re.compile(r"(?:[\w.-]+(?::\d+)?/)*[\w.-]*coturn[\w.-]*(?::[\w.-]+)?(?:@sha256:\w+)?", re.ASCII)
_ENGINES = ("docker", "podman", "nerdctl")


@dataclass(frozen=True, slots=True)
class CoturnCommand:
    """Options, each as a line of a turnserver.conf, which count after those of the file that they name."""

    lines: bytes
    file: str = ""
    """Of `-c`; empty where there is none."""
    alone: bool = False
    """Whether `-n` says that there is no file."""


def command_of(arguments: Sequence[str]) -> CoturnCommand:
    """What coturn is told: the words behind its name, or those of `docker run` with its image among them."""
    if not arguments or arguments[0].rpartition("/")[2] not in _ENGINES:
        return _command(arguments)
    image = max((place for place, word in enumerate(arguments) if _IMAGE.fullmatch(word)), default=len(arguments))
    options = arguments[:image]
    given = [each.removeprefix("--env=") for each in options if each.startswith("--env=")]
    given += [value for option, value in pairwise(options) if option in ("-e", "--env")]
    return _command([*arguments[image + 1 :], *detecting(dict(each.partition("=")[::2] for each in given))])


def detecting(environment: dict[str, str]) -> list[str]:
    """The option that stands for what the environment of coturn's image asks for."""
    asked = {name for name, value in environment.items() if value.lower() not in ("", "no", "false", "0")}
    return [f"--external-ip={AUTO}"] if asked & _DETECTING else []


def _command(arguments: Sequence[str]) -> CoturnCommand:
    options = _options(arguments)
    lines = (f"{key}={value}" if value is not None else key for key, value in options if key not in (NO_FILE, _FILE))
    return CoturnCommand(
        "".join(f"{' '.join(line.splitlines())}\n" for line in lines).encode(),
        next((value for key, value in reversed(options) if key == _FILE and value), ""),
        any(key == NO_FILE for key, _ in options),
    )


def _options(arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    """`--key=value`, `--key value`, `-k value` and `--key`; what is none of these is left out."""
    found: list[tuple[str, str | None]] = []
    waiting = False
    for argument in arguments:
        if argument.startswith("-") and len(argument) > 1:
            name, equals, value = argument.lstrip("-").partition("=")
            if not argument.startswith("--") and len(name) > 1:
                name, equals, value = name[0], "=", argument[2:]
            found.append(({"c": _FILE, "n": NO_FILE, **SHORT}.get(name, name), value if equals else None))
            waiting = not equals
        elif waiting:
            found[-1] = (found[-1][0], argument)
            waiting = False
    return found
