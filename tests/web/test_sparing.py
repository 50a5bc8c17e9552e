"""What Socket.IO's clients and brokers stand on is left out while its server is imported, and only then."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from turnsvr.sparing import absent

FRESH = """
import sys, json
from turnsvr.web import sparing
loaded = [name for name in ("redis", "aiohttp", "requests") if name in sys.modules]
import redis, requests  # the store's client and others find them
print(json.dumps([loaded, sparing.socketio.__name__, redis.__name__]))
"""


def test_nothing_is_left_hidden() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == '[[], "socketio", "redis"]\n'


def test_a_package_is_absent_for_as_long_as_it_lasts_unless_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with absent("colorsys", "sys"):
        with pytest.raises(ImportError):
            import_module("colorsys")
        assert import_module("sys") is sys
    assert import_module("colorsys").rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
