"""Gives out credentials: to which callers, how often, for how long. Pure: time and randomness are arguments."""

from __future__ import annotations

import heapq
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from turnsvr.config.websettings import MAX_TTL, WebSettings
from turnsvr.credentials import ice
from turnsvr.credentials.revoked import TooManyRevoked
from turnsvr.credentials.shown import shown
from turnsvr.limits import AnswerLimiter, TokenBucket
from turnsvr.web.callers import ApiCaller, Callers
from turnsvr.web.context import CannotIssue, WebContext
from turnsvr.web.refusal import Refused

_MAX_USER_CHARACTERS = 128
_RANDOM_USER_BYTES = 9
_TAG_END = ":"
"""What stands between the caller's tag and its user under any separator; no tag holds one."""
_CLOCK_STEP = 3_600
"""Seconds that the clock may have been set back since a credential was made."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Issued:
    """Credentials and where they are good."""

    username: str
    password: str = field(repr=False)
    ttl: int
    """Seconds."""
    stun: list[str]
    turn: list[str]
    """URLs, UDP first, then TCP, then TLS."""
    relay_only: bool = False


class Issuer:
    """Issues credentials to callers of every dialect.

    Times: now on any monotonic clock, wall_time in seconds since 1970.
    """

    def __init__(self, settings: WebSettings, context: WebContext, random: Callable[[int], bytes]) -> None:
        self.callers = Callers(settings)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Answers by dialect and outcome; both are few and ours."""
        self._settings = settings
        self._context = context
        self._random = random
        self._addresses = AnswerLimiter(settings.requests_per_address)
        self._wrong = AnswerLimiter(settings.requests_per_address)
        self._buckets: dict[str, TokenBucket] = {}
        self._in_force: dict[str, list[float]] = {}

    def reconfigure(self, settings: WebSettings) -> None:
        """Go by other settings from now on; what is counted stays."""
        self.callers = Callers(settings)
        self._settings = settings
        self._addresses.rate = self._wrong.rate = settings.requests_per_address
        self._buckets.clear()
        names = {key.name for key in settings.keys}
        self._in_force = {name: expiries for name, expiries in self._in_force.items() if name in names}

    def check_address(self, client: str, now: float) -> None:
        """Raises Refused where too many wrong keys came from this address just now; counts nothing."""
        if self._wrong.exhausted(packed(client), now):
            raise _too_many_from_address()

    def count_wrong_key(self, client: str, now: float) -> None:
        """A request that offered no key that is known."""
        self._wrong.allow(packed(client), now)

    def admit(self, caller: ApiCaller, origin: str | None, client: str, now: float) -> None:
        """One more request of a known caller, from a page of that origin if a browser names one; raises Refused."""
        if origin is not None and caller.origins and origin not in caller.origins:
            raise Refused(403, "this key may not be used from this origin")
        if not caller.keyed:
            if not self._addresses.allow(packed(client), now):
                raise _too_many_from_address()
            return
        rate = self._settings.requests_per_key
        if rate and not self._buckets.setdefault(caller.name, TokenBucket(rate, max(rate, 1.0), now)).allow(1.0, now):
            raise Refused(429, "too many requests with this key", retry_after=1)

    def issue(self, caller: ApiCaller, host: str, user: str | None, ttl: float | None, wall_time: float) -> Issued:
        """Credentials for one user of the caller; host is where the client reaches the server. Raises Refused.

        A ttl above the caller's is cut to it. The user name is EXPIRY:tag:user, with a random user if none is named.
        """
        if self._context.draining:
            raise Refused(503, "the server is about to stop", retry_after=5)
        lifetime = _lifetime(ttl, caller.ttl)
        part = _checked_user(user) if user else self._random(_RANDOM_USER_BYTES).hex()
        in_force = self._in_force_of(caller, wall_time)
        try:
            username, password = self._context.credentials(f"{caller.tag}{_TAG_END}{part}", lifetime)
        except CannotIssue as error:
            _log.error("no credentials to give", reason=str(error))
            raise Refused(503, "the server has no credentials to give") from None
        except ValueError:
            raise Refused(400, "the user name is too long") from None
        if caller.quota is not None:
            heapq.heappush(in_force, wall_time + lifetime)
        listening = self._context.listening
        return Issued(
            username,
            password,
            lifetime,
            ice.stun_urls(host, listening),
            ice.turn_urls(host, listening),
            self._settings.relay_only,
        )

    def revoke(self, caller: ApiCaller, username: str, wall_time: float) -> None:
        """Refuse a user name that the caller has been given, and end its sessions; raises Refused.

        One that expires later than any credential that the caller can have been given is none of them.
        """
        timed = self._context.names.parse(username)
        if (
            not caller.keyed
            or timed is None
            or timed.user.partition(_TAG_END)[0] != caller.tag
            or timed.expiry > wall_time + MAX_TTL + _CLOCK_STEP
        ):
            raise Refused(404, "this key has no such user name")
        try:
            ended = self._context.revoke(username, caller.name, len(self._settings.keys))
        except TooManyRevoked as error:
            raise Refused(429, f"it is not revoked: {error}", retry_after=error.retry_after) from None
        _log.info("user name revoked", caller=caller.name, user=shown(username), sessions=ended)

    def _in_force_of(self, caller: ApiCaller, wall_time: float) -> list[float]:
        """A heap of when its credentials end, bounded by the quota; raises Refused when it may have no more."""
        expiries = self._in_force.setdefault(caller.name, [])
        while expiries and expiries[0] <= wall_time:
            heapq.heappop(expiries)
        if caller.quota is not None and len(expiries) >= caller.quota:
            wait = max(1, int(expiries[0] - wall_time))
            raise Refused(429, "this key has as many credentials in force as it may have", retry_after=wait)
        return expiries


def _too_many_from_address() -> Refused:
    return Refused(429, "too many requests from this address", retry_after=1)


def _lifetime(wanted: float | None, longest: float) -> int:
    if wanted is None:
        return int(longest)
    if not wanted >= 1:
        raise Refused(400, "the lifetime is not a number of seconds above 0")
    return int(min(wanted, longest))


def _checked_user(user: str) -> str:
    if len(user) > _MAX_USER_CHARACTERS or not user.isprintable():
        raise Refused(400, f"a user is named by at most {_MAX_USER_CHARACTERS} printable characters")
    return user


def packed(client: str) -> bytes:
    """An address for the limiter; one that is no IP address (a Unix socket's) counts as one client."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return b""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).packed
