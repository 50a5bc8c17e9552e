"""Who may relay: credentials from the file, tokens, a store and a web hook, side by side, as the settings say."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from turnsvr import credentials
from turnsvr.app.extras import not_installed
from turnsvr.config.credentialsettings import HookSettings, OAuthSettings, StoreSettings, TokenSettings
from turnsvr.config.sealingkeys import read_key
from turnsvr.config.settings import Settings
from turnsvr.config.units import BadValue
from turnsvr.credentials.accesstokenkeys import AccessTokenKey
from turnsvr.credentials.accesstokens import AccessTokens, ByToken
from turnsvr.credentials.api import Source, Unavailable
from turnsvr.credentials.chain import Chain
from turnsvr.credentials.health import Health
from turnsvr.credentials.revoked import Revocable, Revocations
from turnsvr.stores import MissingDriver
from turnsvr.stores.api import Tables
from turnsvr.stores.client import StoreClient

_KEYS_SECONDS = 5.0
"""How long the service with the keys of tokens may take for one answer."""

Work = Coroutine[Any, Any, None]


class IdentityError(Exception):
    """A source of credentials cannot be used; one line says why and what to do."""


@dataclass(frozen=True)
class _StoreWanted:
    """A store by its section of the settings, and whether keys of access tokens are read from it."""

    section: StoreSettings
    keys: bool


@dataclass(frozen=True)
class _Part:
    """A source that takes I/O, as made from its section of the settings."""

    section: _StoreWanted | HookSettings | TokenSettings
    source: Source
    start: Callable[[], Work]
    close: Callable[[bool], Work]
    """Takes whether to give up what is under way."""
    health: Health | None = None
    problem: Callable[[], str | None] = lambda: None
    """Why new users cannot be authenticated, None when they can."""
    store: StoreClient | None = None
    forget: Callable[[str, str], None] = lambda realm, username: None
    """Forgets what it remembers of a user."""


@dataclass(frozen=True)
class Prepared:
    """Sources for other settings: one of the two is to be called, once."""

    take: Callable[[], None]
    """Takes them into use."""
    discard: Callable[[], None]
    """Closes those that were made."""


class Identities:
    """Every source of credentials of a server, opened, watched and closed."""

    def __init__(self, settings: Settings, revocations: Revocations, changed: Callable[[], None]) -> None:
        """changed is called when a store's tables have changed after start(). Raises IdentityError."""
        self._revocations = revocations
        self._changed = changed
        self._started = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._retiring: list[_Part] = []
        self._last_tables = Tables()
        self._parts: tuple[_Part, ...] = ()
        self._take(settings, tuple(self._make(settings)))

    @property
    def source(self) -> Source:
        """All of them together, as the engine asks them."""
        return self._source

    @property
    def tables(self) -> Tables:
        """What the store says of realms, as last read; empty without one."""
        store = self._store
        if store is None:
            return Tables()
        return self._last_tables if store.tables is None else store.tables

    @property
    def problems(self) -> list[str]:
        """Why new users cannot be authenticated now, in words without names of hosts.

        A web hook that does not answer is no problem here: only requests ask it, and a server that says that it is not
        ready would get none.
        """
        return [problem for part in self._parts if (problem := part.problem()) is not None]

    @property
    def health(self) -> tuple[Health, ...]:
        """Of all services that are asked, for metrics."""
        return tuple(part.health for part in self._parts if part.health is not None)

    @property
    def issuing_secret(self) -> str | None:
        """What time-limited credentials of the default realm are made with: the file's secret, else the store's."""
        if self._settings.credentials.secrets:
            return self._settings.credentials.secrets[0].get_secret_value()
        table = self.tables.realms.get(self._settings.realm)
        return table.secrets[0] if table is not None and table.secrets else None

    async def start(self) -> None:
        """Connect to what there is. A service that is away is no error: it is asked again."""
        await asyncio.gather(*(part.start() for part in self._parts))
        self._started = True

    def forget_user(self, realm: str, username: str) -> None:
        """Make every source forget this user, who may have been removed there."""
        for part in self._parts:
            part.forget(realm, username)

    def prepare(self, settings: Settings) -> Prepared:
        """Make ready for other settings.

        What they do not change stays as it is, with all that it remembers. Raises IdentityError, and then nothing
        that was made is left open.
        """
        new: list[_Part] = []

        def take() -> None:
            old = self._parts
            self._last_tables = self.tables
            self._take(settings, tuple(new))
            for part in new:
                if part not in old:
                    self._run(part.start())
            self._retire_but(new, old)

        def discard() -> None:
            self._retire_but(self._parts, new)

        try:
            new.extend(self._make(settings))
        except IdentityError:
            discard()
            raise
        return Prepared(take, discard)

    async def stop(self) -> None:
        """Close everything. Stopping twice is fine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        parts, self._parts, self._retiring = [*self._parts, *self._retiring], (), []
        await asyncio.gather(*(part.close(True) for part in parts))

    @property
    def _store(self) -> StoreClient | None:
        return next((part.store for part in self._parts if part.store is not None), None)

    def _take(self, settings: Settings, parts: tuple[_Part, ...]) -> None:
        self._settings = settings
        self._parts = parts
        names = credentials.names_of(settings)
        sources = [credentials.of_realms(settings), *(part.source for part in parts)]
        self._revocations.names = names
        for part in parts:
            if part.store is not None:
                part.store.source.read_names(names)
        source: Source = Chain(sources, names)
        if settings.credentials.oauth is not None:
            source = ByToken(self._access_tokens(settings.credentials.oauth), source)
        self._source = Revocable(source, self._revocations)

    def _key_of_store(self, kid: str) -> AccessTokenKey | None:
        store = self._store
        if store is not None and store.tables is None:
            raise Unavailable("the keys of access tokens are not known yet")
        return self.tables.keys.get(kid)

    def _access_tokens(self, section: OAuthSettings) -> AccessTokens:
        return AccessTokens(
            (
                AccessTokenKey(
                    kid,
                    read_key(each.key.get_secret_value(), each.algorithm),
                    each.not_before,
                    each.lifetime,
                    each.realm,
                )
                for kid, each in section.keys.items()
            ),
            self._key_of_store,
            server_name=section.server_name,
        )

    def _make(self, settings: Settings) -> Iterator[_Part]:
        """The sources besides the file's in the order to ask them, of the present ones those that stay."""
        section = settings.credentials
        store = None if section.store is None else _StoreWanted(section.store, section.oauth is not None)
        makers: list[tuple[Any, Callable[[Any], _Part]]] = [
            (section.tokens, _tokens),
            (store, self._open_store),
            (section.hook, _hook),
        ]
        present = {type(part.section): part for part in self._parts}
        for each, make in makers:
            if each is not None:
                part = present.get(type(each))
                yield part if part is not None and part.section == each else make(each)

    def _open_store(self, wanted: _StoreWanted) -> _Part:
        section = wanted.section

        def changed() -> None:
            if self._started and self._store is client:
                self._changed()

        old = self._store
        try:
            client = StoreClient(
                section,
                changed,
                keys=wanted.keys,
                tables=old.tables if old is not None and old.url == section.url else None,
            )
        except MissingDriver as error:
            raise IdentityError(f"credentials.store: {error}") from None
        except BadValue as error:
            raise IdentityError(f"credentials.store.url: {error.problem}; {error.hint}") from None
        return _Part(
            wanted,
            client.source,
            client.start,
            lambda at_once: client.close(at_once=at_once),
            client.health,
            lambda: None if client.ready else "store unavailable",
            client,
            client.source.forget_user,
        )

    def _retire_but(self, kept: Collection[_Part], parts: Iterable[_Part]) -> None:
        for part in parts:
            if part not in kept:
                self._retiring.append(part)
                self._run(self._retire(part))

    async def _retire(self, part: _Part) -> None:
        """Have a source finish the questions that it was asked."""
        await part.close(False)
        self._retiring.remove(part)

    def _run(self, work: Work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _hook(section: HookSettings) -> _Part:
    try:
        from turnsvr.credentials.hook import Hook
        from turnsvr.credentials.http import BadAddress
    except ModuleNotFoundError as error:
        raise IdentityError(not_installed(error, "credentials.hook", "hook")) from None
    try:
        hook = Hook(section.url, section.secret.get_secret_value(), timeout=section.timeout, ca=section.ca)
    except BadAddress as error:
        raise IdentityError(f"credentials.hook.url: {error}") from None
    except ssl.SSLError:
        raise IdentityError(f"credentials.hook.ca: {section.ca} holds no certificates in PEM") from None
    except OSError as error:
        raise IdentityError(f"credentials.hook.ca: {section.ca}: {error.strerror}") from None

    async def start() -> None:
        """There is nothing to do before the first question."""

    return _Part(
        section, hook, start, lambda at_once: hook.close(at_once=at_once), hook.health, forget=hook.forget_user
    )


def _tokens(section: TokenSettings) -> _Part:
    try:
        from turnsvr.credentials.http import BadAddress
        from turnsvr.credentials.keyrings import KeyFile, KeyRing, KeyUrl
        from turnsvr.credentials.tokenkeys import BadKeys, check_algorithms
        from turnsvr.credentials.tokens import Tokens
    except ModuleNotFoundError as error:
        raise IdentityError(not_installed(error, "credentials.tokens", "tokens")) from None
    try:
        algorithms = check_algorithms(section.algorithms)
    except BadKeys as error:
        raise IdentityError(f"credentials.tokens.algorithms: {error}") from None
    keys: KeyRing
    try:
        if section.url is not None:
            keys = KeyUrl(section.url, algorithms, timeout=_KEYS_SECONDS)
        else:
            assert section.keys is not None
            keys = KeyFile(section.keys, algorithms)
    except BadAddress as error:
        raise IdentityError(f"credentials.tokens.url: {error}") from None
    except BadKeys as error:
        raise IdentityError(f"credentials.tokens.keys: {error}") from None
    source = Tokens(
        keys,
        algorithms,
        issuer=section.issuer,
        audience=section.audience,
        user_claim=section.user_claim,
        quota_claim=section.quota_claim,
        secure_only=section.transports == "tls",
    )
    return _Part(
        section,
        source,
        keys.start,
        lambda at_once: keys.close(),
        keys.health,
        lambda: None if keys.current else "token keys unavailable",
    )
