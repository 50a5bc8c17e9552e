"""What is being made of a turnserver.conf: settings with where each came from, and a verdict on every line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import ValidationError

from turnsvr.config import wording
from turnsvr.config.settings import Settings
from turnsvr.migrate.report import Outcome, Report, Verdict
from turnsvr.migrate.source import Option

SettingValue: TypeAlias = "str | int | bool | Sequence[str] | Mapping[str, str] | None"

MAX_PORT = 65_535
AS_DEFAULT = "that is the default"
NOT_UTF8 = "is not UTF-8, so that its bytes cannot stand in YAML; choose a new one"
_WEIGHT = {Outcome.UNNEEDED: 0, Outcome.TAKEN: 1, Outcome.UNSUPPORTED: 2}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the file does not say."""

    new_secret: str = field(repr=False)
    """For a server whose file lets every client relay."""
    database: str
    """The SQLite file that coturn takes when its file names none."""


@dataclass(frozen=True, slots=True)
class Made:
    """One setting of the new file; remark says what its lines do not."""

    setting: str
    value: SettingValue = field(repr=False)
    options: tuple[Option, ...]
    remark: str = ""


class Draft:
    """Settings as they grow. Of several verdicts on a line the heaviest stays: not supported, taken, not needed."""

    def __init__(self, options: Iterable[Option], surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.made: dict[str, Made] = {}
        self.notes: list[str] = []
        self._options = tuple(options)
        self._verdicts: dict[int, tuple[Outcome, str]] = {}
        self._by_key: dict[str, list[Option]] = {}
        for option in self._options:
            self._by_key.setdefault(option.key, []).append(option)

    def every(self, *keys: str) -> list[Option]:
        """All lines of some keys, in order."""
        return sorted((option for key in keys for option in self._by_key.get(key, ())), key=lambda each: each.line)

    def last(self, *keys: str) -> Option | None:
        """The line that counts where keys can be said once; those before it are not needed."""
        *before, last = [None, *self.every(*keys)]
        for option in before:
            if option is not None and last is not None:
                self.unneeded(option, f"line {last.line} says it again, and the last one counts")
        return last

    def is_on(self, key: str) -> bool:
        """Whether a switch is on; one whose value means nothing is off and not supported."""
        option = self.last(key)
        if option is None:
            return False
        if option.switch is None:
            self.unsupported(option, "its value is neither yes nor no, and coturn does not start with it")
        return bool(option.switch)

    def port(self, key: str, default: int) -> int:
        """The port that a key names; 0 stands for the default, as in coturn, and so does what is no port."""
        option = self.last(key)
        if option is None or option.number == 0:
            return default
        if option.number is None or not 0 < option.number <= MAX_PORT:
            self.unsupported(option, f"is no port; {default} is taken")
            return default
        return option.number

    def taken(self, setting: str, *options: Option) -> None:
        for option in options:
            self._decide(option, Outcome.TAKEN, setting)

    def unneeded(self, option: Option, why: str) -> None:
        self._decide(option, Outcome.UNNEEDED, why)

    def unsupported(self, option: Option, instead: str) -> None:
        self._decide(option, Outcome.UNSUPPORTED, instead)

    def put(self, setting: str, value: SettingValue, *options: Option, remark: str = "") -> bool:
        """Set `limits.allocations` from lines; where the settings refuse the value the lines are not supported."""
        mistake = NOT_UTF8 if any(map(_is_garbled, options)) else mistake_in(setting, value)
        if mistake is not None:
            for option in options:
                self.unsupported(option, mistake)
            return False
        self.made[setting] = Made(setting, value, options, remark)
        self.taken(setting, *options)
        for option in options:
            if option.commented and option.text and option.key != "user" and option.value not in _texts(value):
                self._tell_comment(option)
        return True

    def withdraw(self, setting: str, mistake: str) -> None:
        """Take back a setting and all of its section, since it makes no sense beside the others."""
        section = setting.partition(".")[0]
        for name in [name for name in self.made if name.partition(".")[0] == section]:
            for option in self.made.pop(name).options:
                self.unsupported(option, mistake)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def report(self) -> Report:
        verdicts = tuple(Verdict(each.line, each.shown_key, *self._verdicts[each.line]) for each in self._options)
        return Report(verdicts, tuple(dict.fromkeys(self.notes)))

    def _decide(self, option: Option, outcome: Outcome, text: str) -> None:
        known = self._verdicts.get(option.line)
        if known is not None:
            if known[0] is outcome is Outcome.TAKEN and text not in known[1].split(", "):
                text = f"{known[1]}, {text}"
            elif _WEIGHT[known[0]] >= _WEIGHT[outcome]:
                return
        self._verdicts[option.line] = (outcome, text)

    def _tell_comment(self, option: Option) -> None:
        if option.number is None:
            self.note(
                f"line {option.line}: what stands behind # in {option.key} is left out as a comment; "
                "coturn takes it for part of the value"
            )


def mistake_in(setting: str, value: SettingValue) -> str | None:
    """What the settings have against a value, without the value itself; None when they accept it."""
    path = tuple(setting.split("."))
    document: object = value
    for name in reversed(path):
        document = {name: document}
    try:
        Settings.model_validate(document)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            location = wording.location_of(detail)
            if location[: len(path)] == path:
                return "; ".join(filter(None, wording.explain(detail, location)))
    return None


def _is_garbled(option: Option) -> bool:
    return not option.exact and not option.text.isascii()


def _texts(value: SettingValue) -> Iterable[str]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, Sequence) else ()
