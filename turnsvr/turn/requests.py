"""A request, from its arrival to its answer (RFC 8489 sections 6.3.1 and 9.2.4).

A Binding is answered at once. For every other method the key of the user is found first, perhaps elsewhere, which takes
time; a request that is proven by it goes to the handler of its method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from turnsvr.stun import attributes as a
from turnsvr.stun.address import FiveTuple
from turnsvr.stun.errors import ErrorCode, MalformedMessage
from turnsvr.stun.message import Message, Method
from turnsvr.turn import (
    allocate,
    binding,
    channel,
    connect,
    connectionbind,
    mobility,
    permission,
    refresh,
)
from turnsvr.turn.authentication import Key, Proof, read_claim
from turnsvr.turn.commands import AuthenticationFailed, FindCredential
from turnsvr.turn.reject import Reject
from turnsvr.turn.responses import Responses
from turnsvr.turn.state import Answer, State
from turnsvr.turn.waiting import WaitingRequests

_HANDLERS: Final[Mapping[int, Callable[[State, Message, FiveTuple, Proof, float], Answer]]] = {
    Method.ALLOCATE: allocate.allocate,
    Method.REFRESH: refresh.refresh,
    Method.CREATE_PERMISSION: permission.create_permission,
    Method.CHANNEL_BIND: channel.channel_bind,
    Method.CONNECT: connect.connect,
    Method.CONNECTION_BIND: connectionbind.connection_bind,
}


class Requests:
    """The way of every request through authentication to its handler, and of the answer back."""

    def __init__(self, state: State, responses: Responses, waiting: WaitingRequests) -> None:
        self._state = state
        self._responses = responses
        self._waiting = waiting

    def receive(self, message: Message, five_tuple: FiveTuple, now: float) -> None:
        """Answer it, have its credential looked up, or ignore a method that is not known."""
        if message.method != Method.BINDING and (message.method not in _HANDLERS or message.is_classic):
            return
        try:
            if message.method == Method.BINDING:
                self._binding(message, five_tuple, now)
            elif self._state.config.stun_only:
                raise Reject(ErrorCode.FORBIDDEN)
            else:
                self._authenticate(message, five_tuple, now)
        except Reject as reject:
            self._responses.refuse_stranger(message, five_tuple, reject, now)
        except MalformedMessage:
            self._responses.refuse_stranger(message, five_tuple, Reject(ErrorCode.BAD_REQUEST), now)

    def _binding(self, message: Message, five_tuple: FiveTuple, now: float) -> None:
        if unknown := message.unknown_required():
            raise binding.unknown_attributes(*unknown)
        path, response = binding.answer(message, five_tuple, self._state.config)
        if self._responses.may_answer(message, five_tuple, now):
            self._responses.answer(message, path, response.encode(fingerprint=a.FINGERPRINT in message))

    def _authenticate(self, message: Message, five_tuple: FiveTuple, now: float) -> None:
        allocation = self._state.allocations.of(five_tuple)
        control = None
        if message.method == Method.CONNECTION_BIND:
            allocation = connectionbind.allocation_of(self._state, message)
            control = allocation.five_tuple if allocation is not None else None
        tokens = self._state.config.access_tokens is not None
        claim = read_claim(message, five_tuple, self._responses.nonces, now, tokens=tokens, control=control)
        if message.method == Method.REFRESH and a.MOBILITY_TICKET in message:
            allocation = mobility.allocation_of(self._state, message)
        if (
            allocation is not None
            and claim.token is None
            and claim.names(allocation.username, allocation.named_realm)
            and claim.proven_by(message, allocation.key)
        ):
            self._proven(message, five_tuple, Proof(claim, allocation.key), now)
        elif self._state.config.find(claim.realm) is None:
            raise Reject(ErrorCode.UNAUTHENTICATED, challenge=True)
        elif self._waiting.has(message, five_tuple):
            return
        elif self._waiting.full:
            self._responses.leave_unanswered(message)
        else:
            request = self._waiting.add(message, five_tuple, claim, self._state.allocations.number_of(five_tuple))
            self._state.emit(
                FindCredential(request, five_tuple, claim.username, claim.userhash, claim.realm, claim.token)
            )

    def credential(self, request: int, keys: Sequence[Key], now: float, refusal: str) -> None:
        """As Server.credential()."""
        waiting = self._waiting.pop(request)
        if waiting is None:
            return
        message, five_tuple, claim = waiting.message, waiting.five_tuple, waiting.claim
        if self._state.config.find(claim.realm) is None:
            self._responses.refuse_stranger(message, five_tuple, Reject(ErrorCode.UNAUTHENTICATED, challenge=True), now)
            return
        for key in keys:
            if self._state.config.find(key.realm or claim.realm) is not None and claim.proven_by(message, key):
                self._proven(message, five_tuple, Proof(claim, key), now, about=waiting.allocation)
                return
        reason = "wrong password" if keys else refusal
        self._state.emit(AuthenticationFailed(five_tuple, claim.username or "", reason, claim.realm))
        self._responses.refuse_stranger(message, five_tuple, Reject(ErrorCode.UNAUTHENTICATED, challenge=True), now)

    def credential_failed(self, request: int, now: float) -> None:
        """As Server.credential_failed()."""
        waiting = self._waiting.pop(request)
        if waiting is not None:
            self._responses.refuse_stranger(waiting.message, waiting.five_tuple, Reject(ErrorCode.SERVER_ERROR), now)

    def _proven(
        self, message: Message, five_tuple: FiveTuple, proof: Proof, now: float, *, about: int | None = None
    ) -> None:
        """Carry out a request whose credentials are proven, and answer it.

        about: the client's allocation when the request came.
        """
        try:
            if about is not None and self._state.allocations.number_of(five_tuple) not in (None, about):
                raise Reject(ErrorCode.ALLOCATION_MISMATCH)
            if proof.claim.expired:
                raise Reject(ErrorCode.STALE_NONCE, challenge=True)
            if unknown := self._not_understood(message):
                raise binding.unknown_attributes(*unknown)
            response = _HANDLERS[message.method](self._state, message, five_tuple, proof, now)
        except Reject as reject:
            self._responses.refuse(message, five_tuple, proof, reject, now)
        except MalformedMessage:
            self._responses.refuse(message, five_tuple, proof, Reject(ErrorCode.BAD_REQUEST), now)
        else:
            if isinstance(response, Message):
                response = self._state.sign(message, response, proof)
            if response is not None:
                self._responses.answer(message, five_tuple, response)
            self._state.emit_following()

    def _not_understood(self, message: Message) -> tuple[int, ...]:
        """Attributes to answer with 420; ACCESS-TOKEN is one where such tokens are not taken."""
        unknown = message.unknown_required()
        if a.ACCESS_TOKEN in message and self._state.config.access_tokens is None:
            return (*unknown, a.ACCESS_TOKEN.number)
        return unknown
