"""The endpoints that follow one client: what it asks and is answered, page by page as it happens."""

from __future__ import annotations

import base64

from turnsvr.admin import models
from turnsvr.admin.context import AdminContext
from turnsvr.admin.listing import BadRequest, EndpointFilter
from turnsvr.admin.operation import Operation
from turnsvr.admin.tracemodels import (
    OneTrace,
    TraceClosed,
    TracedAttribute,
    TracedMessage,
    TracedPacket,
    TraceOpened,
    TracePage,
    TraceToRead,
    TraceWanted,
)
from turnsvr.net.tracing import trace as traced
from turnsvr.net.tracing.decode import decode
from turnsvr.net.tracing.traces import MAX_TRACES, TooManyTraces
from turnsvr.web.refusal import Refused


def tracing(context: AdminContext) -> tuple[Operation, ...]:
    async def begin(asked: TraceWanted) -> TraceOpened:
        """Names one user, session or client address. The trace ends when its time is over, or when it is not read.

        Sessions that an older process of this server still serves cannot be traced.
        """
        if (asked.user is not None) + (asked.session is not None) + (asked.client is not None) != 1:
            raise BadRequest("name exactly one of user, session and client")
        if asked.session is not None and context.session(asked.session) is None:
            raise Refused(404, f"there is no session {asked.session}")
        client = None if asked.client is None else EndpointFilter.parse(asked.client)
        at = None if client is None else (client.host, client.port)
        try:
            number = context.traces.open(traced.Wanted(asked.user, asked.session, at, asked.data), asked.seconds)
        except TooManyTraces:
            raise Refused(409, f"there are {MAX_TRACES} traces already") from None
        return TraceOpened(id=number)

    async def read(asked: TraceToRead) -> TracePage:
        """Answers at once where something has come. Over UDP some answers are not seen: to Binding and first Allocate
        requests of clients whose address is not known before.
        """
        found = await context.traces.read(asked.id, asked.wait)
        if found is None:
            raise _no_trace(asked.id)
        events, left_out, ended = found
        return TracePage(events=[_shown(each, raw=asked.raw) for each in events], left_out=left_out, ended=ended)

    async def end(asked: OneTrace) -> TraceClosed:
        if not context.traces.close(asked.id):
            raise _no_trace(asked.id)
        return TraceClosed(closed=1)

    one, absent = "/traces/{id}", {404: models.Mistake}
    refusals = {404: models.Mistake, 409: models.Mistake}
    return (
        Operation("POST", "/traces", "Begin to follow a client", begin, TraceOpened, TraceWanted, refusals),
        Operation("GET", one, "What it has asked and was answered since", read, TracePage, TraceToRead, absent),
        Operation("DELETE", one, "Follow it no longer", end, TraceClosed, OneTrace, absent),
    )


def _shown(event: traced.Traced, *, raw: bool) -> TracedMessage | TracedPacket:
    match event:
        case traced.TracedMessage():
            return _message(event, raw=raw)
        case traced.TracedPacket():
            return TracedPacket(
                at=event.at,
                from_client=event.from_client,
                session=event.session,
                bytes=_encoded(event.data) if raw else None,
                relayed=str(event.relayed),
                peer=str(event.peer),
                size=event.size,
            )


def _message(event: traced.TracedMessage, *, raw: bool) -> TracedMessage:
    decoded, five_tuple = decode(event.message), event.five_tuple
    return TracedMessage(
        at=event.at,
        from_client=event.from_client,
        session=event.session,
        bytes=_encoded(event.message) if raw else None,
        transport=five_tuple.transport.value,
        client=str(five_tuple.client),
        server=str(five_tuple.server),
        method=decoded.method,
        kind=decoded.kind,
        transaction=decoded.transaction,
        proven=event.proven,
        attributes=[TracedAttribute(name=name, value=value) for name, value in decoded.attributes],
        problem=decoded.problem,
        size=len(event.message),
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _no_trace(number: int) -> Refused:
    return Refused(404, f"there is no trace {number}: it has ended, or was not read for a while")
