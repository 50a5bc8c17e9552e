"""Who may relay: users and secrets of the file, tokens, a web hook, behind one interface (api.py).

The packages that tokens and the hook need are optional, and imported where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnsvr.credentials.api import Source
from turnsvr.credentials.chain import ByRealm, Chain
from turnsvr.credentials.shared_secret import SharedSecrets
from turnsvr.credentials.static import StaticUsers
from turnsvr.credentials.timedname import TimedNames

if TYPE_CHECKING:
    from turnsvr.config.settings import KnownUsers, Settings


def names_of(settings: Settings) -> TimedNames:
    """How time-limited user names are made and read."""
    return TimedNames(settings.credentials.separator)


def from_settings(settings: KnownUsers, names: TimedNames | None = None) -> Source:
    """The users of the file: static ones first, then the shared secrets in their order."""
    sources: list[Source] = []
    if settings.users:
        sources.append(StaticUsers({name: value.get_secret_value() for name, value in settings.users.items()}))
    if settings.secrets:
        sources.append(SharedSecrets([secret.get_secret_value() for secret in settings.secrets], names))
    return sources[0] if len(sources) == 1 else Chain(sources, names)


def of_realms(settings: Settings) -> Source:
    """The same for every realm of the settings, each with its own; a realm that the file does not name has none."""
    names = names_of(settings)
    others = {name: from_settings(realm.credentials, names) for name, realm in settings.realms.items()}
    return ByRealm({**others, settings.realm: from_settings(settings.credentials, names)})
