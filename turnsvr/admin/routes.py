"""The endpoints: sessions seen and ended, the server steered."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from turnsvr.admin import models, views
from turnsvr.admin.context import CannotReload, Context, Ending
from turnsvr.admin.listing import Endpoint, Filter, Sort, page
from turnsvr.admin.rates import Rates
from turnsvr.credentials.revoked import TooManyRevoked
from turnsvr.web.refusal import Refused

_MAX_PAGE = 1_000
_MAX_NAME = 1_024
_MAX_CURSOR = 16_384
_MAX_NAMES = 100
"""User names that one answer lists."""

Name = Annotated[str | None, Query(max_length=_MAX_NAME)]
User = Annotated[
    str | None,
    Query(max_length=_MAX_NAME, description="User name, or the name by which limits count: NAME of EXPIRY:NAME."),
]
Peer = Annotated[
    str | None, Query(max_length=80, description="IP address of a permission, or with a port the peer of a channel.")
]
Where = Annotated[str | None, Query(max_length=80, description="IP address, with or without port.")]
Search = Annotated[
    str | None, Query(max_length=_MAX_NAME, description="Text in a user name, the realm or an address of the session.")
]
Number = Annotated[int, Path(ge=1, le=2**63, description="The session's id.")]

_ABSENT: dict[int | str, dict[str, Any]] = {404: {"model": models.Mistake, "description": "There is no such session."}}


def router(context: Context, rates: Rates) -> APIRouter:
    routes = APIRouter()
    routes.include_router(_sessions(context, rates))
    routes.include_router(_steering(context, rates))
    return routes


def _sessions(context: Context, rates: Rates) -> APIRouter:
    routes = APIRouter(tags=["sessions"])

    @routes.get("/sessions", summary="Live sessions, page by page")
    async def sessions(
        user: User = None,
        realm: Name = None,
        client: Where = None,
        relayed: Where = None,
        peer: Peer = None,
        search: Search = None,
        sort: Annotated[Sort, Query(description="A minus means the other way round.")] = "id",
        limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 100,
        cursor: Annotated[str | None, Query(max_length=_MAX_CURSOR, description="`next` of the page before.")] = None,
        detail: Annotated[bool, Query(description="With permissions and channels.")] = False,
    ) -> models.SessionPage:
        """All conditions must hold. Sorted by id, user or age, a session that lives throughout is listed once."""
        wanted = Filter(user, realm, _endpoint(client), _endpoint(relayed), _endpoint(peer), search)
        await rates.refresh()
        found = page(filter(wanted.matches, context.sessions()), rates, sort, limit, cursor)
        shown = [views.session(context, rates, each, detail=detail) for each in found.allocations]
        return models.SessionPage(sessions=shown, total=found.total, next=found.next)

    @routes.delete("/sessions", summary="End all sessions of a user", response_model_exclude_unset=True)
    async def end_all(
        user: Annotated[str, Query(min_length=1, max_length=_MAX_NAME)],
        realm: Name = None,
        revoke: Annotated[bool, Query(description="Refuse time-limited user names until they expire.")] = False,
    ) -> models.EndedUser:
        """The user by user name, or by the name that limits count by: NAME ends every EXPIRY:NAME.

        Sessions end also where a user name cannot be revoked.
        """
        matching = list(filter(Filter(user, realm).matches, context.sessions()))
        revoked, kept = 0, []
        if revoke:
            shown = {user: user} | {each.key.username: each.shown for each in matching}
            try:
                done = {name: context.revoke(name) for name in sorted(shown)}
            except TooManyRevoked as error:
                raise Refused(409, f"not every user name could be revoked, and no session has ended: {error}") from None
            revoked = sum(done.values())
            if not revoked and not matching:
                raise Refused(409, "no such time-limited user name is in use: a user of a list is taken off that list")
            in_use = {each.key.username for each in matching}
            kept = sorted({shown[name] for name in in_use if not done[name]})[:_MAX_NAMES]
        ended = context.end([each.number for each in matching])
        if kept:
            return models.EndedUser(ended=ended, revoked=revoked, not_revoked=kept)
        return models.EndedUser(ended=ended, revoked=revoked)

    @routes.get("/sessions/{id}", summary="One session, with its permissions and channels", responses=_ABSENT)
    async def session(number: Annotated[int, Path(alias="id", ge=1, le=2**63)]) -> models.Session:
        await rates.refresh()
        found = context.session(number)
        if found is None:
            raise _no_session(number)
        return views.session(context, rates, found, detail=True)

    @routes.delete("/sessions/{id}", summary="End one session", responses=_ABSENT)
    async def end(number: Annotated[int, Path(alias="id", ge=1, le=2**63)]) -> models.Ended:
        if context.session(number) is None:
            raise _no_session(number)
        return models.Ended(ended=context.end([number]))

    return routes


def _steering(context: Context, rates: Rates) -> APIRouter:
    routes = APIRouter(tags=["server"])

    @routes.get("/status", summary="The server as a whole")
    async def status() -> models.Status:
        await rates.refresh()
        return await views.status(context, rates)

    @routes.post("/drain", summary="Take no new sessions; the server ends with the last one")
    async def drain() -> models.Draining:
        context.drain()
        return models.Draining(draining=True, sessions=len(context))

    @routes.delete("/drain", summary="Take new sessions again", responses={409: {"model": models.Mistake}})
    async def resume() -> models.Draining:
        try:
            context.resume()
        except Ending:
            raise Refused(409, "the last session has ended, and the server with it") from None
        return models.Draining(draining=False, sessions=len(context))

    @routes.post(
        "/reload",
        summary="Read the settings again; no session ends but those of a realm that is gone",
        response_model=models.Reload,
        responses={409: {"model": models.Mistake}, 422: {"model": models.Mistakes}},
    )
    async def reload() -> models.Reload | JSONResponse:
        """With mistakes in them nothing changes, and the answer names each."""
        try:
            reloaded = context.reload()
        except CannotReload:
            raise Refused(409, "the server runs without a settings file: there is nothing to read again") from None
        if reloaded.mistakes:
            mistakes = models.Mistakes(error="the settings stay as they were", mistakes=list(reloaded.mistakes))
            return JSONResponse(mistakes.model_dump(), status_code=422)
        return models.Reload(file=reloaded.file, restart=list(reloaded.restart))

    @routes.put("/log-level", summary="Log more, or less")
    async def set_log_level(change: models.LogLevelChange) -> models.LogLevel:
        context.set_log_level(change.level, change.seconds)
        return views.log_level(context)

    return routes


def _endpoint(text: str | None) -> Endpoint | None:
    return None if text is None else Endpoint.parse(text)


def _no_session(number: int) -> Refused:
    return Refused(404, f"there is no session {number}")
