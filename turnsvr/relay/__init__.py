"""The data plane: moves the packets that a rule already covers. api.py states what every pump promises."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from turnsvr.limits import ANSWERS_SAVED, AdjustableAnswerLimit, AnswerLimit, AnswerLimiter
from turnsvr.relay.api import Handler, PumpSettings
from turnsvr.relay.compiled import tls
from turnsvr.relay.moving import MovablePump
from turnsvr.relay.portable.group import GROUP

if TYPE_CHECKING:
    from turnsvr.relay.offload.settings import OffloadSettings, OffloadStatus

PumpKind = Literal["auto", "compiled", "portable"]


class PumpUnavailable(RuntimeError):
    """The pump that was asked for cannot be loaded here."""


def make(
    settings: PumpSettings,
    handler: Handler,
    kind: PumpKind = "auto",
    *,
    loop: asyncio.AbstractEventLoop | None = None,
    limiter: AnswerLimit | None = None,
    is_armed: bool = True,
    offload: OffloadSettings | None = None,
) -> MovablePump:
    """The pump of that kind, on the running loop unless told another; "auto" is the compiled one where it loads.

    Raises PumpUnavailable when the compiled pump is asked for and cannot be loaded. limiter: of budget() for the
    same kind, where others spend it as well. is_armed: else it serves nothing before arm(). offload: have programs of
    the kernel carry channels, where they can.
    """
    loop = loop or asyncio.get_running_loop()
    look(kind)
    pump = _make(settings, handler, kind, loop, limiter, is_armed)
    if offload is None:
        return pump
    from turnsvr.relay.offload.pump import OffloadedPump  # which a server without it starts without

    return cast(MovablePump, OffloadedPump(pump, settings, offload, loop=loop, is_armed=is_armed))


def _make(
    settings: PumpSettings,
    handler: Handler,
    kind: PumpKind,
    loop: asyncio.AbstractEventLoop,
    limiter: AnswerLimit | None,
    is_armed: bool,
) -> MovablePump:
    if kind != "portable" and not isinstance(_compiled(), str):
        compiled: Any = import_module("turnsvr.relay.compiled.movable")
        pump: MovablePump = compiled.MovableCompiledPump(
            settings, handler, loop=loop, limiter=limiter, is_armed=is_armed
        )
        return pump
    from turnsvr.relay.portable.movable import MovablePortablePump  # which a server with the other starts without

    return MovablePortablePump(settings, handler, loop=loop, limiter=limiter, is_armed=is_armed)


def offloaded(pump: MovablePump) -> OffloadStatus | None:
    """What the programs below a pump do; None where none were asked for."""
    status: OffloadStatus | None = getattr(pump, "offload", None)
    return status


def budget(rate: float, kind: PumpKind = "auto") -> AdjustableAnswerLimit:
    """The limit of answers to strangers for a pump of that kind and the rules: so many a second to one address."""
    if kind != "portable" and not isinstance(compiled := _compiled(), str):
        made: AdjustableAnswerLimit = compiled.AnswerBudget(rate)
        return made
    return AnswerLimiter(rate, saved=ANSWERS_SAVED)


def listener_sockets(kind: PumpKind, threads: int) -> int:
    """Sockets that a pump of that kind, with so many threads, opens at the address of each UDP listener."""
    return GROUP if kind == "portable" or isinstance(_compiled(), str) else threads


def look(kind: PumpKind) -> None:
    """Raises PumpUnavailable where make() would."""
    if kind == "compiled" and isinstance(reason := _compiled(), str):
        raise PumpUnavailable(f"the compiled pump cannot be loaded: {reason}")


def refuses_dtls(kind: PumpKind) -> str:
    """Why the pump that make() would give serves no DTLS, in a few words; "" where it does."""
    if kind == "portable":
        return "the portable pump has no DTLS; set pump.kind to auto or compiled"
    if isinstance(reason := _compiled(), str):
        return f"the portable pump has no DTLS, and the compiled one cannot be loaded: {reason}"
    return tls.missing()


def describe() -> str:
    """Which pump "auto" gives, and why."""
    compiled = _compiled()
    return f"portable (no compiled pump: {compiled})" if isinstance(compiled, str) else "compiled"


def describe_offload() -> str:
    """Whether the programs for the kernel were built, and why not."""
    from turnsvr.relay.offload import programs

    reason = programs.missing()
    return f"none ({reason})" if reason else "programs for XDP and TC"


def _compiled() -> Any:
    """The compiled pump's module, or in a word or two why there is none."""
    try:
        module = import_module("turnsvr.relay.compiled.pump")
        return module if hasattr(module, "CompiledPump") else "it is incomplete"
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("turnsvr.relay."):
            return str(error)
        reason = Path(__file__).with_name("compiled") / "_pump_missing.txt"
        return reason.read_text().strip() if reason.exists() else "it was not built on install"
    except (ImportError, AttributeError) as error:
        return str(error)
