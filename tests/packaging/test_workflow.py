"""The workflow that builds wheels, read as GitHub would: it has never run here, so what it names has to be there.

It builds for every Python that the metadata name, on both processors, and all that it refers to is defined.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".github" / "workflows" / "wheels.yml"
PROCESSORS = {"x86_64": "ubuntu-24.04", "aarch64": "ubuntu-24.04-arm"}
EXPRESSION = re.compile(r"\$\{\{ *([\w.]+) *\}\}")

if not FILE.exists():
    pytest.skip("needs the source tree", allow_module_level=True)

WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text())
JOBS: dict[str, Any] = WORKFLOW["jobs"]


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in JOBS.items():
        yield from ((name, step) for step in job["steps"])


def runs(job: dict[str, Any]) -> list[dict[str, str]]:
    """What each run of a job has in `matrix`, as GitHub combines it: an include that fits adds to a combination."""
    matrix = dict(job.get("strategy", {}).get("matrix", {}))
    extra = matrix.pop("include", [])
    combined = [dict(zip(matrix, values, strict=True)) for values in product(*matrix.values())]
    for one in combined:
        for each in extra:
            if all(one.get(key, value) == value for key, value in each.items() if key in matrix):
                one.update(each)
    return combined


def filled(text: str, run: dict[str, str]) -> str:
    """A text with the run's part of the matrix in it."""
    return EXPRESSION.sub(lambda match: run[match[1].partition(".")[2]], text)


def test_it_starts_by_tag_and_by_hand_and_may_only_read() -> None:
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}  # YAML takes `on` for a truth
    assert WORKFLOW["permissions"] == {"contents": "read"}


def test_it_builds_for_every_python_of_the_metadata_on_both_processors() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    minors = {match[1] for each in classifiers if (match := re.fullmatch(r".*Python :: 3\.(\d+)", each))}
    built = {(each["python"], each["processor"], each["runner"]) for each in runs(JOBS["wheels"])}
    assert built == {(f"cp3{minor}", *each) for minor in minors for each in PROCESSORS.items()}


def test_every_step_runs_something_or_uses_a_named_version() -> None:
    for job, step in steps():
        assert ("run" in step) != ("uses" in step), (job, step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]), step["uses"]


def test_every_job_has_a_runner_and_needs_a_job_that_exists() -> None:
    for job in JOBS.values():
        needs = job.get("needs", [])
        assert job["runs-on"]
        assert {needs} if isinstance(needs, str) else set(needs) <= set(JOBS)


def test_every_expression_is_defined_in_every_run() -> None:
    for job in JOBS.values():
        for expression in EXPRESSION.findall(yaml.safe_dump(job)):
            context, _, name = expression.partition(".")
            assert context == "matrix"
            assert all(name in each for each in runs(job)), expression


def test_what_is_downloaded_was_uploaded_and_no_name_is_uploaded_twice() -> None:
    uploaded: list[str] = []
    downloaded: set[str] = set()
    for job, step in steps():
        if step.get("uses", "").startswith("actions/upload-artifact"):
            uploaded += [filled(step["with"]["name"], each) for each in runs(JOBS[job])]
        elif step.get("uses", "").startswith("actions/download-artifact"):
            downloaded.add(step["with"]["name"])
    assert len(uploaded) == len(set(uploaded)) == 9
    assert downloaded <= set(uploaded)


def test_a_shell_can_read_every_script() -> None:
    for _, step in steps():
        if "run" in step:
            script = EXPRESSION.sub("x", step["run"])
            subprocess.run(["bash", "-n"], input=script, text=True, check=True, capture_output=True)
