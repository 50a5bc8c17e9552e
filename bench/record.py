"""The file of a run that can be taken up again: written whole or not at all, read back only for the same setting."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import report
from bench.cases import Case
from bench.pairs import Result
from bench.statistics import Pair


class BadRecord(Exception):
    """The file is no record of the bench, or one of another setting; the text says which."""


def write(path: Path, results: Sequence[Result], setting: Mapping[str, Any]) -> None:
    """Replace the file by these results. Raises OSError and then leaves the file as it was."""
    save(path, report.as_json(results, setting))


def save(path: Path, record: Mapping[str, Any]) -> None:
    """Replace the file by a record of JSON values. Raises OSError and then leaves the file as it was."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps(record, indent=1) + "\n")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def read(path: Path, setting: Mapping[str, Any], cases: Sequence[Case]) -> list[Result]:
    """The cases that the file has whole; those that were stopped are left out. Raises BadRecord or OSError."""
    try:
        record = json.loads(path.read_text())
        there = dict(record["setting"])
        results = [
            (str(case["name"]), [Pair(*map(_reading, pair)) for pair in case["pairs"]])
            for case in record["cases"]
            if not case["error"]
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRecord(f"{path} is no JSON file of the bench: {error!r}") from None
    other = [
        f"{name} is {there.get(name)!r} there and {setting.get(name)!r} here"
        for name in sorted({*there, *setting})
        if there.get(name) != setting.get(name)
    ]
    if other:
        raise BadRecord(f"{path} was measured in another setting: {'; '.join(other)}")
    known = {case.name: case for case in cases}
    return [Result(known[name], pairs) for name, pairs in results if name in known]


def _reading(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}
