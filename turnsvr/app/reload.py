"""New settings for a server that runs: all of them are taken, or none."""

from __future__ import annotations

from turnsvr import web
from turnsvr.app.errors import StartError
from turnsvr.app.identities import IdentityError
from turnsvr.app.rooms import Rooms
from turnsvr.config import restart
from turnsvr.config.settings import Settings


def reload(rooms: Rooms, http: web.WebServer | None, settings: Settings) -> list[str]:
    """Take new settings; returns the names of those that need a restart. Allocations end only with their realm.

    Raises StartError, and then the old settings stay, all of them.
    """
    unchanged = list(restart.changed(rooms.settings, settings))
    within = restart.kept(rooms.settings, settings)
    before = rooms.settings
    try:
        identities = rooms.identities.prepare(settings)
    except IdentityError as error:
        raise StartError(str(error)) from None
    try:
        rooms.tls.reload(within)
    except StartError:
        identities.discard()
        raise
    rooms.settings = within
    rooms.addresses.use(within)
    if http is not None and within.web is not None:
        http.reload(within.web)
    identities.take()
    rooms.apply()
    rooms.addresses.look_again()
    if (within.tls, within.share) != (before.tls, before.share):
        rooms.tls.keep(within)
    return unchanged
