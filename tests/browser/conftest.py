"""The rig and the browsers, once for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.rig import Browser, Rig, need_rig, rig
from tests.conftest import need


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The server, and two places that reach each other through it alone."""
    need_rig()
    with rig(tmp_path_factory.mktemp("rig")) as found:
        yield found


@pytest.fixture(scope="session")
def here(lab: Rig) -> Iterator[Browser]:
    """Chromium in one place."""
    browser = Browser(lab.here, "chromium", need("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def there(lab: Rig) -> Iterator[Browser]:
    """Chromium in the other place."""
    browser = Browser(lab.there, "chromium", need("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def fox(lab: Rig) -> Iterator[Browser]:
    """Firefox in the other place."""
    browser = Browser(lab.there, "firefox", need("firefox-esr"))
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave no page that goes on playing and counting beside the tests that follow."""
    yield
    for name in ("here", "there", "fox"):
        if name in request.fixturenames:
            browser: Browser = request.getfixturevalue(name)
            browser.open("about:blank")
