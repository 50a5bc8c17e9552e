from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.credentials.service import Service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A web service that knows nobody."""
    found = Service()
    await found.start()
    yield found
    await found.stop()
