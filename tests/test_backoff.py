"""Pauses between attempts that fail."""

from __future__ import annotations

from turnsvr.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    pauses = Backoff(0.1, 0.5)
    assert [pauses.pause() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_what_worked_begins_anew() -> None:
    pauses = Backoff(1.0, 300.0)
    pauses.pause()
    pauses.pause()
    pauses.reset()
    assert [pauses.pause(), pauses.pause()] == [1.0, 2.0]
