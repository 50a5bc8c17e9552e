"""Sessions as a table that fits a terminal. Pure: what the admin interface answered goes in, lines come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from turnsvr.cli.text import duration, fit, printable, size, width

SessionFields = dict[str, Any]
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column; one with a least width may be cut down to it, one with a rank is left out where it is narrow.

    The lowest rank goes first.
    """

    title: str
    show: Callable[[SessionFields], str]
    right: bool = False
    least: int | None = None
    rank: int | None = None


def _total_bytes(session: SessionFields) -> int:
    traffic = session["traffic"]
    return int(traffic["from_client"]["bytes"] + traffic["to_client"]["bytes"])


COLUMNS = (
    Column("ID", lambda session: str(session["id"]), right=True),
    Column("USER", lambda session: printable(session["quota_user"] or session["user"]), least=8),
    Column("REALM", lambda session: printable(session["realm"]), least=8, rank=2),
    Column("CLIENT", lambda session: printable(session["client"]), least=21, rank=6),
    Column("VIA", lambda session: session["transport"], rank=5),
    Column("RELAYED", lambda session: ",".join(map(printable, session["relayed"])), least=21, rank=4),
    Column("PEERS", lambda session: str(session["permission_count"]), right=True, rank=3),
    Column("AGE", lambda session: duration(session["age"]), right=True, rank=8),
    Column("LEFT", lambda session: duration(session["remaining"]), right=True, rank=1),
    Column("UP b/s", lambda session: size(session["traffic"]["from_client"]["bits_per_second"]), right=True),
    Column("DOWN b/s", lambda session: size(session["traffic"]["to_client"]["bits_per_second"]), right=True),
    Column("BYTES", lambda session: size(_total_bytes(session)), right=True, rank=7),
    Column("DROPS", lambda session: size(session["traffic"]["dropped"]), right=True, rank=0),
)
"""UP is from the client to its peers; USER is the name that limits count by, NAME of EXPIRY:NAME."""


def table(sessions: Sequence[SessionFields], cells: int | None, *, least: dict[str, int] | None = None) -> list[str]:
    """Title and one line a session, none wider than so many cells; None for any width.

    least holds a column to a width, by its title, so that a table that is drawn again and again stays where it was.
    """
    columns: tuple[Column, ...] = COLUMNS
    if len({session["realm"] for session in sessions}) < 2:
        columns = tuple(column for column in columns if column.title != "REALM")
    texts = {column.title: [column.show(session) for session in sessions] for column in columns}
    held = least or {}
    widths = {
        column.title: max(width(column.title), held.get(column.title, 0), *map(width, texts[column.title]), 0)
        for column in columns
    }
    if cells is not None:
        widths = _fitted(columns, widths, cells)
    shown = [column for column in columns if column.title in widths]
    rows = zip(*(texts[column.title] for column in shown), strict=True)
    lines = [_line(shown, widths, [column.title for column in shown]), *(_line(shown, widths, row) for row in rows)]
    return lines if cells is None else [fit(line, cells).rstrip() for line in lines]


def _line(columns: Iterable[Column], widths: dict[str, int], texts: Iterable[str]) -> str:
    parts = (fit(text, widths[column.title], right=column.right) for column, text in zip(columns, texts, strict=True))
    return _GAP.join(parts).rstrip()


def _fitted(columns: Iterable[Column], widths: dict[str, int], cells: int) -> dict[str, int]:
    """Widths of the columns that fit, the wide ones cut."""
    least = {column.title: min(column.least or widths[column.title], widths[column.title]) for column in columns}
    leaving = sorted((column.rank, column.title) for column in columns if column.rank is not None)
    kept = dict(widths)
    for _, title in leaving:
        if _taken({name: least[name] for name in kept}) <= cells:
            break
        del kept[title]
    while _taken(kept) > cells:
        spare = {name: kept[name] - least[name] for name in kept}
        widest = max(spare, key=lambda name: spare[name])
        if spare[widest] <= 0:
            break
        kept[widest] -= 1
    return kept


def _taken(widths: dict[str, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)
