"""What the web room sees of the rooms that serve, and what it can have them do."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Sequence

from turnsvr.app import assemble, snapshot
from turnsvr.app.rooms import Rooms
from turnsvr.config.ranges import ListenAddress
from turnsvr.credentials import shared_secret
from turnsvr.credentials.timedname import TimedNames
from turnsvr.web.context import CannotIssue, PeerVerdict
from turnsvr.web.figures import Figures


class AppWebContext:
    """A WebContext."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    @property
    def listening(self) -> Sequence[ListenAddress]:
        return self._rooms.listening

    @property
    def draining(self) -> bool:
        return self._rooms.server.draining

    @property
    def relays_tcp(self) -> bool:
        return self._rooms.plan.server.tcp

    @property
    def problems(self) -> Sequence[str]:
        return self._rooms.problems

    async def refresh(self) -> None:
        await self._rooms.elsewhere.refresh()

    def figures(self) -> Figures:
        return snapshot.figures(self._rooms)

    @property
    def certificate_trusted(self) -> bool | None:
        if self.tls_context() is None:
            return None
        keeper = self._rooms.tls.keeper
        return self._rooms.settings.tls is not None and (keeper is None or keeper.has_certificate)

    def proof(self, token: str) -> str | None:
        return self._rooms.tls.proofs.text(token)

    def as_peer(self, host: str) -> PeerVerdict:
        rooms = self._rooms
        if ipaddress.ip_address(host) in assemble.own_hosts(rooms.settings, rooms.addresses.host):
            return "own"
        return "refused" if rooms.plan.server.realm.policy.refusal(host) else "allowed"

    def tls_context(self) -> ssl.SSLContext | None:
        contexts = self._rooms.tls.contexts
        return None if contexts is None else contexts.current

    def credentials(self, user: str, ttl: float) -> tuple[str, str]:
        secret = self._rooms.identities.issuing_secret
        if secret is None:
            raise CannotIssue(
                "credentials.secrets is empty, and no store has a secret: time-limited credentials need one"
            )
        return shared_secret.make(secret, user, ttl, time.time(), self.names)

    @property
    def names(self) -> TimedNames:
        return self._rooms.revocations.names

    def revoke(self, username: str, caller: str, callers: int) -> int:
        revocations = self._rooms.revocations
        revocations.add(username, time.time(), owner=caller, share=revocations.share_of(callers))
        held = [each.number for each in self._rooms.server.allocations() if each.username == username]
        return self._rooms.end_everywhere([*held, *self._rooms.elsewhere.named(username)])
