"""What a settings file serves, as the probe takes it: each listener, with logins of the realm that it chooses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from turnsvr.cli.common import fail, logins_of_realm
from turnsvr.config.settings import KnownUsers, ListenAddress, Settings

if TYPE_CHECKING:
    from turnsvr.client.credentials import Login
    from turnsvr.client.probe import Served


def served(settings: Settings, user: str | None, password_file: Path | None, *, relaying: bool) -> list[Served]:
    """Every listener; relaying: with logins.

    Ends the command where a realm has no user that could be tried.
    """
    from turnsvr.client.probe import Served
    from turnsvr.client.uri import Leg
    from turnsvr.stun.address import Transport

    known: dict[str, tuple[Login, ...]] = {}
    found = []
    for each in settings.listeners():
        name = _realm_of(settings, each)
        if name not in known:
            known[name] = _logins(settings, name, user, password_file) if relaying and not settings.stun_only else ()
        found.append(Served(each.host, Leg(Transport(each.transport), each.port), known[name]))
    return found


def _realm_of(settings: Settings, listener: ListenAddress) -> str:
    """The realm of clients that send no ORIGIN."""
    for name, realm in settings.realms.items():
        concrete = [each for named in realm.listen for each in named.expand()]
        if any(_socket(each) == _socket(listener) for each in concrete):
            return name
    return settings.realm


def _socket(listener: ListenAddress) -> tuple[bool, str, int]:
    return listener.is_datagram, listener.host, listener.port


def _logins(settings: Settings, realm: str, user: str | None, password_file: Path | None) -> tuple[Login, ...]:
    from turnsvr.client.credentials import Login

    credentials = settings.realms[realm].credentials if realm in settings.realms else settings.credentials
    known = KnownUsers(users=credentials.users, secrets=credentials.secrets)
    found = logins_of_realm(settings, known, user, password_file)
    if not found:
        fail(
            f"turnsvr: the settings have neither a shared secret nor a password for the realm {realm}; "
            "name a user with --user and --password-file"
        )
    return tuple(Login(*each) for each in found)
