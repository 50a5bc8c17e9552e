"""The file that a stopped bench is taken up from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench import record
from bench.cases import Case, Kind, all_cases
from bench.pairs import Result
from bench.statistics import Pair

SETTING = {"turnsvr": "1.0", "seconds": 1.5}
CASES = all_cases()


def results() -> list[Result]:
    return [
        Result(CASES[0], [Pair({"delivered": 2.0, "p99": math.nan}, {"delivered": 1.0, "p99": 1e-4})]),
        Result(Case("start", Kind.START), [Pair({"start": 0.5}, {"start": 0.1})], error="interrupted"),
    ]


def test_what_is_written_is_read_again_but_for_what_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    record.write(path, results(), SETTING)
    (found,) = record.read(path, SETTING, CASES)
    assert found.case is CASES[0]
    assert found.pairs[0].theirs == {"delivered": 1.0, "p99": 1e-4}
    assert math.isnan(found.pairs[0].ours["p99"])
    record.write(path, [found], SETTING)
    assert len(record.read(path, SETTING, CASES)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_another_setting_is_an_error_that_names_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    record.write(path, results(), SETTING)
    with pytest.raises(record.BadRecord) as refused:
        record.read(path, {"turnsvr": "1.0", "seconds": 0.5, "pump": "auto"}, CASES)
    said = (
        f"{path} was measured in another setting: pump is None there and 'auto' here; seconds is 1.5 there and 0.5 here"
    )
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"setting": {}}', '{"setting": {}, "cases": [{"name": "x"}]}', '{"setting": 1, "cases": []}'],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out.json"
    path.write_text(text)
    with pytest.raises(record.BadRecord, match="is no JSON file of the bench"):
        record.read(path, {}, CASES)


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    record.write(path, results(), SETTING)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        record.write(path, results(), {"seconds": object()})
    assert path.read_bytes() == before
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        record.write(path, results(), SETTING)
    assert list(tmp_path.iterdir()) == [path]
