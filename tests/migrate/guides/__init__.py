"""The turnserver.conf that each project's guide tells people to write, and the settings that are made of it.

`python -m tests.migrate.guides` writes the expected settings anew.
"""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent

GUIDES = sorted(path.stem for path in DIRECTORY.glob("*.conf"))


def source(guide: str) -> bytes:
    return (DIRECTORY / f"{guide}.conf").read_bytes()


def expected(guide: str) -> Path:
    return DIRECTORY / f"{guide}.yaml"
