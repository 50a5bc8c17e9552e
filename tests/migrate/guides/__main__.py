from __future__ import annotations

from tests.migrate.conftest import SURROUNDINGS
from tests.migrate.guides import GUIDES, expected, source
from turnsvr.migrate import convert

for guide in GUIDES:
    expected(guide).write_text(convert(source(guide), f"{guide}.conf", SURROUNDINGS).text)
