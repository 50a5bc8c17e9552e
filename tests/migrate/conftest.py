from __future__ import annotations

import pytest

from tests.interop.conftest import peer_port
from tests.migrate.guides import GUIDES
from turnsvr import config
from turnsvr.config.settings import Settings
from turnsvr.migrate import Conversion, Outcome, Surroundings, convert

__all__ = ["NEW_SECRET", "SURROUNDINGS", "imported", "outcomes", "peer_port", "settings_of"]

NEW_SECRET = "0123456789abcdef0123456789abcdef"
SURROUNDINGS = Surroundings(new_secret=NEW_SECRET, database="/var/lib/turn/turndb")


def imported(text: str | bytes) -> Conversion:
    """What becomes of a turnserver.conf; credentials that the case does not care for are added."""
    data = text if isinstance(text, bytes) else text.encode()
    return convert(data, "turnserver.conf", SURROUNDINGS)


def settings_of(text: str | bytes) -> Settings:
    """The settings that come of a turnserver.conf, by the reader of settings files."""
    return config.loads(imported(text).text, "turnsvr.yaml", environ={})


def outcomes(text: str | bytes) -> list[tuple[Outcome, str]]:
    """The verdict on each line that sets something."""
    return [(each.outcome, each.text) for each in imported(text).report.verdicts]


@pytest.fixture(params=GUIDES)
def guide(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
