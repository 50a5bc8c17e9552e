"""A bar on standard error and a line a case on standard output, which do not write over each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_CLEAR_LINE = "\r\033[K"


class Progress:
    def __init__(self, bar: ProgressBar[int]) -> None:
        self._bar = bar
        self.current = ""

    def tick(self, name: str) -> None:
        """One more run begins."""
        self.current = name
        self._bar.update(1)

    def say(self, line: str) -> None:
        """Print a line where the bar stands; the bar comes back below it with the next tick."""
        if sys.stderr.isatty():
            click.echo(_CLEAR_LINE, nl=False, err=True)
        click.echo(line)


@contextmanager
def progress(length: int) -> Iterator[Progress]:
    """The bar is drawn only on a terminal."""
    shown: Progress | None = None
    bar: ProgressBar[int] = click.progressbar(
        length=length, file=sys.stderr, item_show_func=lambda _: shown.current if shown else ""
    )
    with bar:
        shown = Progress(bar)
        yield shown
