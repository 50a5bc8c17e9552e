"""The one room that knows every other: build, start, reload, drain, stop; and the process around it."""

from __future__ import annotations

from turnsvr.sparing import absent

with absent("greenlet"):  # which structlog would ask for its threads' names: 1.5 MB, most of it libstdc++
    import structlog as structlog

from turnsvr.app.application import Application
from turnsvr.app.errors import StartError
from turnsvr.app.process import run

__all__ = ["Application", "StartError", "run"]
