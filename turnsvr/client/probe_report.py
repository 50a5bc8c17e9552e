"""What a probe found: values, and their text for people and programs."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from turnsvr.client.credentials import BidDown
from turnsvr.client.libssl import TlsError
from turnsvr.client.outside_rules import NotReached
from turnsvr.client.transaction import TransactionFailed, TransactionTimeout
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.errors import ErrorCode

FROM_OUTSIDE = "reached from outside"
"""The step that tells whether others reach a relayed address."""


class StepOutcome(Enum):
    """What became of a step."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried on a leg."""

    name: str
    outcome: StepOutcome
    round_trip: float | None = None
    """Seconds."""
    detail: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class LegReport:
    """One transport to one address of the server."""

    transport: Transport
    server: Address
    steps: tuple[Step, ...]

    @property
    def works(self) -> bool:
        """Whether something was tried and nothing failed."""
        outcomes = {step.outcome for step in self.steps}
        return StepOutcome.OK in outcomes and StepOutcome.FAILED not in outcomes

    @property
    def untold(self) -> str:
        """Why it cannot be told from here whether others reach a relayed address; empty when that was found out."""
        step = next((step for step in self.steps if step.name == FROM_OUTSIDE), None)
        return step.detail if step is not None and step.outcome is StepOutcome.SKIPPED else ""

    @property
    def was_tried(self) -> bool:
        return any(step.outcome is not StepOutcome.SKIPPED for step in self.steps)

    def __str__(self) -> str:
        return f"{self.transport.value} {self.server}"


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Every leg of a server; problem says what kept the probe from trying any."""

    url: str
    legs: tuple[LegReport, ...]
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether every leg that this host can try works, and there was one."""
        tried = [leg for leg in self.legs if leg.was_tried]
        return bool(tried) and all(leg.works for leg in tried)


def render(report: ProbeReport) -> str:
    """A table with the steps down and the legs across, then what failed and what to do about it."""
    lines = [report.url]
    if report.problem:
        return f"{report.url}: {report.problem}"
    names = ["", *_step_names(report.legs)]
    columns = [[str(leg), *(_cells(leg).get(name, "") for name in names[1:])] for leg in report.legs]
    table = [names, *columns]
    widths = [max(map(len, column)) for column in table]
    lines += [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*table, strict=True)
    ]
    lines += _remarks(report)
    lines.append(_verdict(report))
    return "\n".join(lines)


def _verdict(report: ProbeReport) -> str:
    if not report.ok:
        return "not everything works"
    untold = list(dict.fromkeys(leg.untold for leg in report.legs if leg.was_tried and leg.untold))
    if not untold:
        return "all works"
    return "\n".join(
        (
            "what was tried works; whether others reach a relayed address cannot be told from here:",
            *(f"    {each}" for each in untold),
        )
    )


def to_json(report: ProbeReport) -> dict[str, Any]:
    """The report as JSON values; round-trip times in milliseconds."""
    return {
        "url": report.url,
        "ok": report.ok,
        "problem": report.problem,
        "reached_from_outside": _reached(report),
        "notes": list(report.notes),
        "legs": [
            {
                "transport": leg.transport.value,
                "server": str(leg.server),
                "works": leg.works,
                "steps": [
                    {
                        "name": step.name,
                        "outcome": step.outcome.value,
                        "round_trip_ms": None if step.round_trip is None else round(step.round_trip * 1000, 3),
                        "detail": step.detail,
                        "advice": step.advice,
                    }
                    for step in leg.steps
                ],
            }
            for leg in report.legs
        ],
    }


def _reached(report: ProbeReport) -> bool | None:
    """Whether others reach the relayed addresses; None when it cannot be told."""
    outcomes = {step.outcome for leg in report.legs for step in leg.steps if step.name == FROM_OUTSIDE}
    if StepOutcome.FAILED in outcomes:
        return False
    return True if StepOutcome.OK in outcomes else None


def _step_names(legs: Sequence[LegReport]) -> list[str]:
    """Of all legs, each once: of the leg with most steps, which has those of the others."""
    return [step.name for step in max((leg.steps for leg in legs), key=len, default=())]


def _cells(leg: LegReport) -> dict[str, str]:
    return {step.name: _cell(step) for step in leg.steps}


def _cell(step: Step) -> str:
    if step.outcome is StepOutcome.OK:
        return "ok" if step.round_trip is None else f"{step.round_trip * 1000:.1f} ms"
    return "FAILED" if step.outcome is StepOutcome.FAILED else "-"


def _remarks(report: ProbeReport) -> list[str]:
    remarks = []
    for leg in report.legs:
        if not leg.was_tried:
            remarks.append(f"{leg}: not tried: {leg.steps[0].detail}")
        for step in leg.steps:
            if step.outcome is StepOutcome.FAILED:
                remarks.append(f"{leg}: {step.name}: {step.detail}")
                if step.advice:
                    remarks.append(f"    {step.advice}")
    return [*remarks, *report.notes]


_BY_CODE: dict[int, str] = {
    ErrorCode.TRY_ALTERNATE: "the server sends its clients to another one: probe that one",
    ErrorCode.UNAUTHENTICATED: "user name or password is wrong, or time-limited credentials have expired;"
    " the server's log says which",
    ErrorCode.WRONG_CREDENTIALS: "the allocation belongs to another user: credentials changed on the way",
    ErrorCode.FORBIDDEN: "the server refuses this peer, which is its own relayed address:"
    " allow that range (peers.allow; in coturn allowed-peer-ip), or two of its clients cannot meet",
    ErrorCode.ALLOCATION_MISMATCH: "an older allocation still holds this port: try again",
    ErrorCode.STALE_NONCE: "the server takes none of its own nonces: its clock jumps,"
    " or several servers answer at one address",
    ErrorCode.ADDRESS_FAMILY_NOT_SUPPORTED: "the server has no relay address of this family: set relay.addresses",
    ErrorCode.UNSUPPORTED_TRANSPORT_PROTOCOL: "the server does not relay UDP",
    ErrorCode.ALLOCATION_QUOTA_REACHED: "this user has too many allocations: wait for old ones to expire,"
    " or raise limits.allocations_per_user",
    ErrorCode.INSUFFICIENT_CAPACITY: "the server has no free relay port: widen relay.ports,"
    " or check that it can bind its relay address",
    ErrorCode.SERVER_ERROR: "the server's log says what went wrong",
}


def advice_for(error: Exception, leg: Transport, *, insecure: bool = False) -> str:
    """What a user can do about an error on a leg; empty when there is nothing to add."""
    match error:
        case NotReached():
            return error.advice
        case TransactionFailed(code=400) | TransactionFailed(code=420):
            return "the server does not understand the request: is it a TURN server?"
        case TransactionFailed():
            return _BY_CODE.get(error.code, "")
        case TransactionTimeout(refused=refused) if refused:
            return "answers came, signed with another key: the password is wrong, or another host answers in its place"
        case BidDown():
            return "a host between here and the server weakens the authentication"
        case ssl.SSLCertVerificationError():
            return "use the name that the certificate is for, or skip the verification with --insecure"
        case TlsError() if "certificate" in str(error) or "ostname" in str(error) or "IP address" in str(error):
            return "use the name that the certificate is for, or skip the verification with --insecure"
        case ssl.SSLError() | TlsError():
            return "what listens there speaks no TLS, or no version that this host takes"
        case TransactionTimeout() | TimeoutError():
            return _no_answer(leg)
        case ConnectionRefusedError():
            return f"nothing listens on this {_port_kind(leg)} port: is the server running with that listener?"
        case _:
            return ""


def _port_kind(leg: Transport) -> str:
    return "TCP" if leg.is_stream else "UDP"


def _no_answer(leg: Transport) -> str:
    kind = _port_kind(leg)
    return f"is {kind} blocked on the way? Open the {kind} port in the server's firewall or security group"
