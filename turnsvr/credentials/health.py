"""What is known of somebody elsewhere who is asked for credentials: whether they answer, and how long it takes."""

from __future__ import annotations

import structlog

from turnsvr.histogram import Histogram

_log = structlog.get_logger()


class Health:
    """One remote source. Going away and coming back are logged once each; the texts must hold no secret."""

    def __init__(self, kind: str, name: str) -> None:
        """kind for logs and readers of /readyz, as "credential store"; name is where it is, for the log alone."""
        self.kind = kind
        self.name = name
        self.available = True
        self.queries = 0
        self.errors = 0
        self.latency = Histogram()
        """Seconds of the queries that were answered."""

    def answered(self, seconds: float) -> None:
        self.queries += 1
        self.latency.add(seconds)
        if not self.available:
            self.available = True
            _log.info(f"{self.kind} available again", name=self.name)

    def failed(self, reason: str) -> None:
        self.queries += 1
        self.errors += 1
        if self.available:
            self.available = False
            _log.warning(f"{self.kind} unavailable", name=self.name, reason=reason)
