"""What became of each line of a turnserver.conf, for people and for programs. No text repeats a secret."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

_WIDTH = 100
_INDENT = "  "


class Outcome(Enum):
    """What can become of a line; the value is its name."""

    TAKEN = "taken over"
    UNNEEDED = "not needed here"
    UNSUPPORTED = "not supported"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one line: the setting it became, why it is not needed, or what to do instead."""

    line: int
    key: str
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Every line that sets something, once; notes tell what changes in behaviour."""

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]

    def as_text(self, name: str) -> str:
        """For people; name is what the source is called."""
        counts = Counter(verdict.outcome for verdict in self.verdicts)
        summary = ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome)
        parts = [f"{name}: of {_lines_count(len(self.verdicts))} that set something {summary}"]
        for outcome in Outcome:
            if counts[outcome]:
                parts += ["", outcome.value, *self._paragraphs(outcome)]
        if self.notes:
            parts += ["", "what changes"]
            parts += [_wrapped(note, f"{_INDENT}- ") for note in self.notes]
        return "\n".join(parts) + "\n"

    def as_json(self, name: str) -> dict[str, object]:
        """For programs: lines in the source's order."""
        lines = [
            {"line": each.line, "key": each.key, "outcome": each.outcome.name.lower(), "text": each.text}
            for each in self.verdicts
        ]
        return {"source": name, "lines": lines, "notes": list(self.notes)}

    def _paragraphs(self, outcome: Outcome) -> Iterator[str]:
        """One a run of lines of which the same is to be said."""
        chosen = (verdict for verdict in self.verdicts if verdict.outcome is outcome)
        for (key, text), run in groupby(chosen, lambda verdict: (verdict.key, verdict.text)):
            where = line_numbers(verdict.line for verdict in run)
            yield _wrapped(f"{where}, {key}: {text}", _INDENT)


def line_numbers(lines: Iterable[int]) -> str:
    """`line 4`, `lines 4-9`, `lines 4, 7-9`."""
    spans: list[list[int]] = []
    for line in sorted(lines):
        if spans and line == spans[-1][1] + 1:
            spans[-1][1] = line
        else:
            spans.append([line, line])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    return f"{'line' if texts == [str(spans[0][0])] else 'lines'} {', '.join(texts)}"


def _lines_count(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _wrapped(text: str, start: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=_INDENT * 2,
        break_long_words=False,
        break_on_hyphens=False,
    )
