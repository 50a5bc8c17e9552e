"""How a database or web service that has credentials is: whether it answers, and how long that takes."""

from __future__ import annotations

import structlog

from turnsvr.histogram import Histogram

_log = structlog.get_logger()


_QUIET = 30.0
"""Seconds after the end of some trouble was told in which its return is not."""


class Trouble:
    """When to tell of trouble: as it begins and as it ends, and of what comes and goes only a pair in a while.

    Times are those of one monotonic clock.
    """

    def __init__(self) -> None:
        self._told = False
        self._quiet_until = float("-inf")

    def begins(self, now: float) -> bool:
        """Whether to tell of it, also where it began a while ago."""
        if self._told or now < self._quiet_until:
            return False
        self._told = True
        return True

    def ends(self, now: float) -> bool:
        """Whether to tell that it is over."""
        if not self._told:
            return False
        self._told = False
        self._quiet_until = now + _QUIET
        return True


class Health:
    """One remote source. Going away and coming back are logged as Trouble says; the texts must hold no secret."""

    def __init__(self, kind: str, name: str) -> None:
        """kind for logs and readers of /readyz, as "credential store"; name is where it is, for the log alone."""
        self.kind = kind
        self.name = name
        self.available = True
        self.queries = 0
        self.errors = 0
        self.latency = Histogram()
        """Seconds of the queries that were answered, waiting among them."""
        self._asked_at = float("-inf")
        self._trouble = Trouble()

    def answered(self, asked_at: float, now: float) -> None:
        """A question that was put at asked_at has its answer; both on one monotonic clock."""
        self.queries += 1
        self.latency.add(now - asked_at)
        if self._decides(asked_at):
            self.available = True
            if self._trouble.ends(now):
                _log.info(f"{self.kind} available again", name=self.name)

    def failed(self, asked_at: float, reason: str) -> None:
        """A question that was put at asked_at got no answer. The log leaves out a name that the reason begins with."""
        self.queries += 1
        self.errors += 1
        if self._decides(asked_at):
            self.available = False
            if self._trouble.begins(asked_at):
                _log.warning(f"{self.kind} unavailable", name=self.name, reason=reason.removeprefix(f"{self.name}: "))

    def _decides(self, asked_at: float) -> bool:
        """Whether no question that was put later has told more."""
        if asked_at < self._asked_at:
            return False
        self._asked_at = asked_at
        return True
