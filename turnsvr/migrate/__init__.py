"""From coturn's turnserver.conf to settings: pure, no file is read or written here."""

from __future__ import annotations

from dataclasses import dataclass, field

from turnsvr import config
from turnsvr.migrate import yamltext
from turnsvr.migrate.draft import Draft, Surroundings
from turnsvr.migrate.keys import KEYS, Into, judge_plain
from turnsvr.migrate.report import Outcome, Report, Verdict
from turnsvr.migrate.source import MAX_BYTES, SourceError, read

__all__ = [
    "MAX_BYTES",
    "Conversion",
    "Outcome",
    "Report",
    "SourceError",
    "Surroundings",
    "Verdict",
    "convert",
    "is_coturn_key",
    "is_turnserver_conf",
]


@dataclass(frozen=True, slots=True)
class Conversion:
    """A settings file's text, which holds the source's secrets, and what became of each line, which does not."""

    text: str = field(repr=False)
    report: Report


def convert(data: bytes, name: str, surroundings: Surroundings) -> Conversion:
    """Make settings of a turnserver.conf that is called name.

    The settings that come out are valid for all bytes; raises SourceError where nothing can come out.
    """
    options = read(data)
    draft = Draft(options, surroundings)
    for option in options:
        judge_plain(draft, option)
    for translate in dict.fromkeys(rule.translate for rule in KEYS.values() if isinstance(rule, Into)):
        translate(draft)
    return Conversion(_settled(draft, name), draft.report())


def is_coturn_key(name: str) -> bool:
    """Whether a name is a key of coturn's, in any section."""
    return name.rpartition(".")[2].replace("_", "-") in KEYS


def is_turnserver_conf(data: bytes) -> bool:
    """Whether this text is most likely coturn's configuration: half of its lines have coturn's keys."""
    try:
        options = read(data)
    except SourceError:
        return False
    return 0 < len(options) <= 2 * sum(option.key in KEYS for option in options)


def _settled(draft: Draft, name: str) -> str:
    """The text, without the sections that contradict others: a metrics listener on a port of clients, for example."""
    while True:
        text = yamltext.write(draft.made.values(), name)
        try:
            config.loads(text, name, environ={})
        except config.ConfigError as error:
            for mistake in error.mistakes:
                draft.withdraw(
                    mistake.setting.partition("[")[0], "; ".join(filter(None, (mistake.problem, mistake.hint)))
                )
        else:
            return text
