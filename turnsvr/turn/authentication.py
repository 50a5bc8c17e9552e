"""The long-term credential mechanism, server side (RFC 8489 section 9.2.4)."""

from __future__ import annotations

from typing import Final, Protocol, final

from turnsvr.stun import attributes as a
from turnsvr.stun.address import FiveTuple
from turnsvr.stun.attributes import PasswordAlgorithm
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.integrity import userhash
from turnsvr.stun.message import Message
from turnsvr.turn.nonce import Nonces, NonceVerdict
from turnsvr.turn.reject import Reject

MD5: Final = 0x0001
SHA256: Final = 0x0002
ALGORITHMS: Final = (PasswordAlgorithm(SHA256), PasswordAlgorithm(MD5))
"""What PASSWORD-ALGORITHMS offers, the better one first: clients take the first that they know (RFC 8489)."""
MD5_FIRST: Final = ALGORITHMS[::-1]
"""What it offers where a user may have an MD5 key alone."""


class Key(Protocol):
    """One credential that a user name may stand for; a key that is not known is None."""

    @property
    def username(self) -> str: ...
    @property
    def quota_user(self) -> str: ...
    @property
    def md5_key(self) -> bytes | None: ...
    @property
    def sha256_key(self) -> bytes | None: ...
    @property
    def quota(self) -> int | None:
        """Allocations that this user may hold at once, in place of the realm's limit."""

    @property
    def shown(self) -> str:
        """The user name as logs and lists show it."""

    @property
    def realm(self) -> str | None:
        """The realm whose rules hold for this user, where it is not the one that the request names."""

    @property
    def valid_for(self) -> float | None:
        """Seconds, from when it was found, that an allocation may live; of an access token alone (RFC 7635)."""


@final
class Claim:
    """The credentials that a request names, before anything is proven."""

    __slots__ = ("algorithm", "arrived", "expired", "realm", "sha256_answer", "token", "userhash", "username")

    def __init__(
        self,
        realm: str,
        username: str | None,
        userhash: bytes | None,
        algorithm: int,
        sha256_answer: bool,
        expired: bool,
        arrived: float,
        token: bytes | None,
    ) -> None:
        self.realm: Final = realm
        """REALM as sent."""
        self.username: Final = username
        self.userhash: Final = userhash
        self.algorithm: Final = algorithm
        self.sha256_answer: Final = sha256_answer
        """Whether answers carry MESSAGE-INTEGRITY-SHA256 in place of MESSAGE-INTEGRITY."""
        self.expired: Final = expired
        """The nonce was ours but is too old: 438, once the rest has been proven."""
        self.arrived: Final = arrived
        """When the request came, in seconds on the caller's clock."""
        self.token: Final = token
        """ACCESS-TOKEN; USERNAME names the key that seals it (RFC 7635 section 3)."""

    def names(self, username: str, realm: str) -> bool:
        """Whether the claim is to be this user of this realm."""
        if self.realm != realm:
            return False
        if self.username is not None:
            return self.username == username
        return self.userhash == userhash(username, realm)

    def secret(self, key: Key) -> bytes | None:
        """The HMAC key by the claimed algorithm."""
        return key.sha256_key if self.algorithm == SHA256 else key.md5_key

    def proven_by(self, message: Message, key: Key) -> bool:
        """Whether the request's integrity attribute is right for this key."""
        secret = self.secret(key)
        if secret is None:
            return False
        if a.MESSAGE_INTEGRITY_SHA256 in message:
            return message.integrity_sha256_ok(secret)
        return message.integrity_ok(secret)


@final
class Proof:
    """The credentials of a request, proven."""

    __slots__ = ("claim", "key", "realm")

    def __init__(self, claim: Claim, key: Key) -> None:
        self.claim: Final = claim
        self.key: Final = key
        self.realm: Final = key.realm or claim.realm
        """The one whose rules hold."""

    def sign(self, response: Message, *, fingerprint: bool) -> bytes:
        """The encoded response, under the algorithm of the request."""
        secret = self.claim.secret(self.key)
        if self.claim.sha256_answer:
            return response.encode(sha256_key=secret, fingerprint=fingerprint)
        return response.encode(key=secret, fingerprint=fingerprint)


def read_claim(
    message: Message,
    five_tuple: FiveTuple,
    nonces: Nonces,
    now: float,
    *,
    tokens: bool,
    control: FiveTuple | None = None,
) -> Claim:
    """The steps of RFC 8489 section 9.2.4 that need no key; raises Reject 400, 401 or 438, or MalformedMessage.

    control: another connection of the client whose nonces serve here as well, if there is one.

    A nonce that this client never got is refused here, before the user name is looked up, so that a flood
    of made-up credentials stays cheap. One that is merely too old is told after the integrity is proven, in the
    order of the RFC. tokens: whether access tokens are taken (RFC 7635).
    """
    # No MESSAGE-INTEGRITY of either kind: 401 with a challenge.
    sha256 = a.MESSAGE_INTEGRITY_SHA256 in message
    if not sha256 and a.MESSAGE_INTEGRITY not in message:
        raise Reject(ErrorCode.UNAUTHENTICATED, challenge=True)
    # USERNAME and USERHASH, REALM, or NONCE is missing: 400.
    username, hashed = message.get(a.USERNAME), message.get(a.USERHASH)
    realm, nonce = message.get(a.REALM), message.get(a.NONCE)
    if (username is None and hashed is None) or realm is None or nonce is None:
        raise Reject(ErrorCode.BAD_REQUEST)
    # The NONCE is not valid: 438 with a challenge.
    verdict = nonces.judge(nonce, five_tuple.client, now)
    if verdict is NonceVerdict.FOREIGN and control is not None:
        verdict = nonces.judge(nonce, control.client, now)
    if verdict is NonceVerdict.FOREIGN:
        raise Reject(ErrorCode.STALE_NONCE, challenge=True)
    # Neither PASSWORD-ALGORITHMS nor PASSWORD-ALGORITHM: MD5. Else both, the list as offered with this nonce, and the
    # chosen one of it: or 400, for the list may have been cut on its way (a bid-down attack).
    offered, chosen = message.get(a.PASSWORD_ALGORITHMS), message.get(a.PASSWORD_ALGORITHM)
    if offered is None and chosen is None:
        algorithm = MD5
    elif offered == nonces.algorithms and chosen in ALGORITHMS:
        algorithm = chosen.number
    else:
        raise Reject(ErrorCode.BAD_REQUEST)
    if username is not None:
        hashed = None
    answer = sha256 or chosen is not None
    token = message.get(a.ACCESS_TOKEN) if tokens else None
    return Claim(realm, username, hashed, algorithm, answer, verdict is NonceVerdict.EXPIRED, now, token)
