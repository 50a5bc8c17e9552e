"""Why a caller gets nothing: one error for all dialects."""

from __future__ import annotations


class Refused(Exception):
    """The caller's doing or our state; status is HTTP's, the text is for the caller and tells no secret."""

    def __init__(self, status: int, text: str, *, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after = retry_after
        """Seconds after which it may work."""
