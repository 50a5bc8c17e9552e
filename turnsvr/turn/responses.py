"""The one answer that each request gets: written, signed where its sender is proven, bounded where not, and counted."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from turnsvr.limits import AnswerLimit
from turnsvr.plane import Challenge
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import HEADER_SIZE, Class, Message, Method
from turnsvr.turn import binding, realms
from turnsvr.turn.authentication import ALGORITHMS, MD5_FIRST, Proof
from turnsvr.turn.commands import RequestRefused, Send
from turnsvr.turn.nonce import Nonces
from turnsvr.turn.reject import Reject
from turnsvr.turn.state import State, add_software, counted_as

_TELL_SOFTWARE: Final = frozenset({Method.ALLOCATE, Method.REFRESH})
"""Whose errors carry SOFTWARE too (RFC 8656 section 5), though only for clients that are authenticated: an answer to
a stranger stays as small as it can."""

_SUCCESS: Final = 200
_NO_ANSWER: Final = 0
"""How a request is counted that was answered well, and one that was not answered at all."""


class Responses:
    """Emits answers as Send commands."""

    def __init__(self, state: State, limiter: AnswerLimit, secret: bytes) -> None:
        """limiter: of answers to strangers. secret: what nonces are made with."""
        self.counts: defaultdict[tuple[int, int], int] = defaultdict(int)
        """Requests by method and outcome: 200, an error code, or 0 where a bound kept them from an answer."""
        self._state = state
        self._limiter = limiter
        self._secret = secret
        self.reconfigure()

    def reconfigure(self) -> None:
        """Make nonces as the config says now; those given out stay good."""
        config = self._state.config
        algorithms = MD5_FIRST if config.md5_first else ALGORITHMS
        self.nonces = Nonces(self._secret, config.nonce_lifetime, anonymity=config.anonymity, algorithms=algorithms)

    @property
    def secret(self) -> bytes:
        """What nonces are made with."""
        return self._secret

    def restore(self, secret: bytes) -> None:
        """Make and judge nonces with another secret from here on."""
        self._secret = secret
        self.reconfigure()

    def answer(self, message: Message, path: FiveTuple, data: bytes, code: int = _SUCCESS) -> None:
        """Send an answer that is written already. code: the error's."""
        self.counts[message.method, code] += 1
        self._state.emit(Send(path, data))

    def leave_unanswered(self, message: Message) -> None:
        """Count a request that a bound keeps from an answer."""
        self.counts[message.method, _NO_ANSWER] += 1

    def refuse(self, message: Message, five_tuple: FiveTuple, proof: Proof, reject: Reject, now: float) -> None:
        """Refuse a request whose credentials were proven: the answer is signed."""
        if reject.limit is not None:
            username, realm = counted_as(proof.key), proof.realm
            self._state.emit(RequestRefused(five_tuple, message.method, username, reject.code, reject.limit, realm))
        response = self._error(message, five_tuple, reject, proof.claim.realm, now)
        if message.method in _TELL_SOFTWARE:
            add_software(self._state, response)
        self.answer(message, five_tuple, self._state.sign(message, response, proof), reject.code)

    def refuse_stranger(self, message: Message, five_tuple: FiveTuple, reject: Reject, now: float) -> None:
        """Refuse a request whose credentials were not proven: the answer is unsigned, and its rate is bounded."""
        if self.may_answer(message, five_tuple, now):
            realm = realms.of_request(self._state.config, message, five_tuple).name if reject.challenge else ""
            response = self._error(message, five_tuple, reject, realm, now)
            self.answer(message, five_tuple, response.encode(fingerprint=a.FINGERPRINT in message), reject.code)

    def may_answer(self, message: Message, five_tuple: FiveTuple, now: float) -> bool:
        """Whether an answer may go out; one that may not is counted.

        A stream has a real client behind it, a datagram perhaps a victim whose address was forged.
        """
        if five_tuple.transport.is_proven or self._limiter.allow(five_tuple.client.packed, now):
            return True
        self.leave_unanswered(message)
        return False

    def challenge_at(self, listener: Address) -> Challenge | None:
        """What an Allocate request without credentials is answered with, that came in there over UDP.

        Only where it names neither REALM nor ORIGIN, and until the next reconfigure(). None where it is no challenge,
        or not always the same one.
        """
        config = self._state.config
        realm = realms.of_listener(config, listener)
        if config.stun_only or realm is None:
            return None
        request = Message(Method.ALLOCATE, Class.REQUEST, bytes(12))
        reject = Reject(ErrorCode.UNAUTHENTICATED, challenge=True)
        answer = self._error(request, FiveTuple(Transport.UDP, listener, listener), reject, realm.name, 0.0)
        nonce = self.nonces.make(listener, 0.0)
        return self.nonces.challenge(answer.encode()[HEADER_SIZE:], nonce)

    def _error(self, message: Message, five_tuple: FiveTuple, reject: Reject, realm: str, now: float) -> Message:
        """realm: the one of a challenge."""
        error = binding.classic_error(reject.code) if message.is_classic else a.Error.of(reject.code)
        response = message.reply(Class.ERROR).add(a.ERROR_CODE, error)
        if reject.challenge:
            response.add(a.REALM, realm)
            response.add(a.NONCE, self.nonces.make(five_tuple.client, now))
            response.add(a.PASSWORD_ALGORITHMS, self.nonces.algorithms)
            name = self._state.config.access_tokens
            if name is not None:
                response.add(a.THIRD_PARTY_AUTHORIZATION, name or realm)
        if reject.details is not None:
            reject.details(response)
        return response
