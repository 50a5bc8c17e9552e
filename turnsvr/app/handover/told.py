"""What a process counts, for another one that shows it with its own: figures of all rooms, without single sessions.

Counters begin at the hand-over: what was counted before has been handed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

from turnsvr.app.figures import SessionCounter
from turnsvr.app.handover import document
from turnsvr.relay.counts import Associations, Totals
from turnsvr.turn.snapshot import Document, check_names, read_document, read_int, read_list, read_row

_ASSOCIATIONS = len(astuple(Associations()))
_GAUGES = 2
"""The first fields of Associations, which count what there is now."""


@dataclass(frozen=True, slots=True)
class Told:
    """Figures of one process, or the sum of several."""

    totals: Totals
    """Of the pump, without sessions that have moved."""
    sessions: Document = field(default_factory=dict)
    """Counters of sessions, as SessionCounter.write() returns them."""
    answers: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Requests by method and outcome."""
    connections: int = 0
    """TCP and TLS connections now."""
    peer_connections: int = 0
    """The same to peers."""
    associations: Associations = field(default_factory=Associations)

    def __add__(self, other: Told) -> Told:
        sessions = SessionCounter()
        sessions.read(self.sessions)
        sessions.read(other.sessions)
        answers = dict(self.answers)
        for what, count in other.answers.items():
            answers[what] = answers.get(what, 0) + count
        both = zip(astuple(self.associations), astuple(other.associations), strict=True)
        return Told(
            document.sum_totals(self.totals, other.totals),
            sessions.write(),
            answers,
            self.connections + other.connections,
            self.peer_connections + other.peer_connections,
            Associations(*map(sum, both)),
        )

    def left(self) -> Told:
        """What is left of it when the process has ended: what it has counted, and nothing that is there now."""
        associations = Associations(*[0] * _GAUGES, *astuple(self.associations)[_GAUGES:])
        return Told(self.totals, self.sessions, self.answers, associations=associations)

    def write(self) -> Document:
        return {
            "totals": document.write_totals(self.totals),
            "sessions": self.sessions,
            "answers": [[method, code, count] for (method, code), count in sorted(self.answers.items())],
            "connections": [self.connections, self.peer_connections],
            "associations": list(astuple(self.associations)),
        }


def read(value: object) -> Told:
    """What write() returned. Raises Unreadable."""
    written = read_document(value, "figures")
    check_names(written, "totals sessions answers connections associations")
    answers = {}
    for each in read_list(written["answers"], "answers"):
        method, code, count = [read_int(number, "answers") for number in read_row(each, 3, "answers")]
        answers[method, code] = count
    connections, to_peers = [read_int(each, "connections") for each in read_row(written["connections"], 2, "figures")]
    associations = read_row(written["associations"], _ASSOCIATIONS, "associations")
    return Told(
        document.read_totals(written["totals"]),
        read_document(written["sessions"], "sessions"),
        answers,
        connections,
        to_peers,
        Associations(*[read_int(each, "associations") for each in associations]),
    )
