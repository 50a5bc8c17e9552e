"""The endpoints: they list and end sessions, and control the server."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from turnsvr.admin import models, views
from turnsvr.admin.asked import Asked, OneSession, SessionsWanted, UpgradeWanted, UserToEnd
from turnsvr.admin.context import AdminContext, Allocation, CannotReload, CannotUpgrade, Ending, Upgraded
from turnsvr.admin.listing import EndpointFilter, Filter, page
from turnsvr.admin.operation import Operation
from turnsvr.admin.rates import Rates
from turnsvr.admin.tracing import tracing
from turnsvr.credentials.revoked import TooManyRevoked
from turnsvr.web.refusal import Refused

_MAX_NAMES = 100
"""User names that one answer lists."""


class Mistaken(Exception):
    """The settings have mistakes, and were not taken."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("the settings stay as they were")
        self.answer = models.Mistakes(error=str(self), mistakes=list(mistakes))


def operations(context: AdminContext, rates: Rates, *, local: bool = False) -> tuple[Operation, ...]:
    """local: for callers on this host, over the Unix socket, who may also start another program."""
    others = (_upgrade(context),) if local else ()
    return (*_sessions(context, rates), *_control(context, rates), *tracing(context), *others)


def _upgrade(context: AdminContext) -> Operation:
    async def upgrade(asked: UpgradeWanted) -> models.Upgraded:
        """It starts with the arguments of this one. Where it cannot go on, this server serves as before."""
        try:
            done = await context.upgrade(asked.program)
        except CannotUpgrade as error:
            raise Refused(409, str(error)) from None
        return _upgraded(done)

    what = "Have a new process go on, with the sessions"
    return Operation("POST", "/upgrade", what, upgrade, models.Upgraded, UpgradeWanted, {409: models.Mistake})


def _upgraded(done: Upgraded) -> models.Upgraded:
    return models.Upgraded(
        pid=done.pid, version=done.version, sessions=done.sessions, staying=done.staying, seconds=done.seconds
    )


def _revocable(allocation: Allocation) -> str:
    """What is revoked to keep its client out: the user name, or the access token that stands for the user."""
    return allocation.key.username if allocation.until is None else allocation.key.quota_user


def _sessions(context: AdminContext, rates: Rates) -> tuple[Operation, ...]:
    async def sessions(asked: SessionsWanted) -> models.SessionPage:
        """All conditions must hold. Sorted by id, user or age, a session that lives throughout is listed once."""
        client, relayed, peer = map(_endpoint, (asked.client, asked.relayed, asked.peer))
        wanted = Filter(asked.user, asked.realm, client, relayed, peer, asked.search)
        await rates.refresh()
        found = page(filter(wanted.matches, context.sessions()), rates, asked.sort, asked.limit, asked.cursor)
        shown = [views.session(context, rates, each, detail=asked.detail) for each in found.allocations]
        return models.SessionPage(sessions=shown, total=found.total, next=found.next)

    async def end_all(asked: UserToEnd) -> models.EndedUser:
        """The user by user name, or by the name that limits count by: NAME ends every EXPIRY:NAME.

        Sessions end also where a user name cannot be revoked.
        """
        matching = list(filter(Filter(asked.user, asked.realm).matches, context.sessions()))
        revoked, kept = 0, []
        if asked.revoke:
            shown = {asked.user: asked.user} | {_revocable(each): each.shown for each in matching}
            until = {_revocable(each): each.until for each in matching}
            try:
                done = {name: context.revoke(name, until.get(name)) for name in sorted(shown)}
            except TooManyRevoked as error:
                raise Refused(409, f"not every user name could be revoked, and no session has ended: {error}") from None
            revoked = sum(done.values())
            if not revoked and not matching:
                raise Refused(409, "no such time-limited user name is in use: a user of a list is taken off that list")
            in_use = {_revocable(each) for each in matching}
            kept = sorted({shown[name] for name in in_use if not done[name]})[:_MAX_NAMES]
        ended = context.end([each.number for each in matching])
        if kept:
            return models.EndedUser(ended=ended, revoked=revoked, not_revoked=kept)
        return models.EndedUser(ended=ended, revoked=revoked)

    async def session(asked: OneSession) -> models.Session:
        await rates.refresh()
        found = context.session(asked.id)
        if found is None:
            raise _no_session(asked.id)
        return views.session(context, rates, found, detail=True)

    async def end(asked: OneSession) -> models.Ended:
        if context.session(asked.id) is None:
            raise _no_session(asked.id)
        return models.Ended(ended=context.end([asked.id]))

    one, absent = "/sessions/{id}", {404: models.Mistake}
    return (
        Operation(
            "GET", "/sessions", "Live sessions, page by page", sessions, models.SessionPage, asked=SessionsWanted
        ),
        Operation(
            "DELETE",
            "/sessions",
            "End all sessions of a user",
            end_all,
            models.EndedUser,
            asked=UserToEnd,
            sparse=True,
            refusals={409: models.Mistake},
        ),
        Operation(
            "GET", one, "One session, with its permissions and channels", session, models.Session, OneSession, absent
        ),
        Operation("DELETE", one, "End one session", end, models.Ended, OneSession, absent),
    )


def _control(context: AdminContext, rates: Rates) -> tuple[Operation, ...]:
    async def status(_: Asked) -> models.Status:
        await rates.refresh()
        return await views.status(context, rates)

    async def drain(_: Asked) -> models.Draining:
        context.drain()
        return models.Draining(draining=True, sessions=len(context))

    async def resume(_: Asked) -> models.Draining:
        try:
            context.resume()
        except Ending:
            raise Refused(409, "the last session has ended, and the server with it") from None
        return models.Draining(draining=False, sessions=len(context))

    async def reload(_: Asked) -> models.Reload:
        """With mistakes in them nothing changes, and the answer names each. What only a restart changes is taken by a
        new process, where a service manager goes on with that.
        """
        try:
            reloaded = context.reload()
        except CannotReload:
            raise Refused(409, "the server runs without a settings file: there is nothing to read again") from None
        if reloaded.mistakes:
            raise Mistaken(reloaded.mistakes)
        restart, renewed, reason = list(reloaded.restart), None, None
        if restart:
            try:
                renewed = await context.renew()
            except CannotUpgrade as error:
                reason = str(error)
        if renewed is None:
            return models.Reload(file=reloaded.file, restart=restart, taken=[], successor=None, reason=reason)
        return models.Reload(file=reloaded.file, restart=[], taken=restart, successor=_upgraded(renewed), reason=None)

    async def set_log_level(change: models.LogLevelChange) -> models.LogLevel:
        context.set_log_level(change.level, change.seconds)
        return views.log_level(context)

    conflict: dict[int, type[BaseModel]] = {409: models.Mistake}
    mistakes: dict[int, type[BaseModel]] = {422: models.Mistakes}
    again = "Read the settings again; no session ends but those of a realm that is gone"
    full, free = "Take no new sessions; the server ends with the last one", "Take new sessions again"
    return (
        Operation("GET", "/status", "The server as a whole", status, models.Status),
        Operation("POST", "/drain", full, drain, models.Draining),
        Operation("DELETE", "/drain", free, resume, models.Draining, refusals=conflict),
        Operation("POST", "/reload", again, reload, models.Reload, refusals=conflict | mistakes),
        Operation(
            "PUT", "/log-level", "Log more, or less", set_log_level, models.LogLevel, asked=models.LogLevelChange
        ),
    )


def _endpoint(text: str | None) -> EndpointFilter | None:
    return None if text is None else EndpointFilter.parse(text)


def _no_session(number: int) -> Refused:
    return Refused(404, f"there is no session {number}")
