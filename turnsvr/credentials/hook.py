"""A web service that is asked for each user: one signed POST request, the answer remembered as it says.

docs/users.md states the request, its signature and the answers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from turnsvr.config.locations import shown_url
from turnsvr.credentials.api import Caller, Credential, Refusal, Unavailable
from turnsvr.credentials.health import Health
from turnsvr.credentials.hookanswer import BadHookAnswer, HookAnswer, read_answer
from turnsvr.credentials.http import HttpClient, TooMuch, parse_url, read_bounded
from turnsvr.credentials.questions import Memory, Questions, may_be_asked

TIMESTAMP = "X-Turnsvr-Timestamp"
SIGNATURE = "X-Turnsvr-Signature"

_MAX_ANSWER_BYTES = 16_384
_MAX_REQUESTS = 32
"""Requests at once, and so connections; further questions wait, within their time."""
_MAX_KNOWN = 10_000
"""Answers with a credential that are remembered; the oldest goes."""
_MAX_REFUSED = 2_000
"""Refusals that are remembered, apart, so that made-up names push no user out."""

_Key = tuple[str, str, str]


class Hook:
    """A Source that asks a web service.

    Answers are remembered for the same user name, realm and client address, because the service may go by all three.
    USERHASH cannot be resolved.
    """

    anonymity = False
    md5_alone = True

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        timeout: float,
        ca: Path | None = None,
        max_refused: int = _MAX_REFUSED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """timeout in seconds, for all of one question. Raises BadAddress; OSError or ssl.SSLError for a bad `ca`."""
        self.health = Health("credential hook", shown_url(url))
        self._url = parse_url(url)
        self._secret = secret.encode()
        self._clock = clock
        self._questions = Questions(self.health, timeout, max_at_once=_MAX_REQUESTS, clock=clock)
        self._known: Memory[_Key, HookAnswer] = Memory(_MAX_KNOWN)
        self._refused: Memory[_Key, HookAnswer] = Memory(max_refused)
        self._forgotten = 0
        self._client = HttpClient(timeout, connections=_MAX_REQUESTS, ca=ca)

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        if not may_be_asked(username):
            return ()
        key, now = (username, realm, caller.host), self._clock()
        answer = self._known.get(key, now) or self._refused.get(key, now)
        return None if answer is None else answer.credentials(username, realm)

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        if (found := self.find_now(username, realm, wall_time, caller)) is not None:
            return found
        key, forgotten = (username, realm, caller.host), self._forgotten
        answer = await self._questions.ask(key, lambda: self._ask(key, wall_time))
        if answer.ttl and forgotten == self._forgotten:
            memory = self._known if answer.accepted else self._refused
            memory.put(key, answer, self._clock() + answer.ttl)
        return answer.credentials(username, realm)

    def forget_user(self, realm: str, username: str) -> None:
        """Ask anew about this user, also where an answer is under way."""
        self._forgotten += 1
        self._questions.forget()
        self._known.discard_each(lambda key: key[:2] == (username, realm))

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNKNOWN

    async def close(self, *, at_once: bool) -> None:
        """Let what is under way end, or give it up at once; then close every connection."""
        await self._questions.close(at_once=at_once)
        await self._client.aclose()

    async def _ask(self, key: _Key, wall_time: float) -> HookAnswer:
        username, realm, client = key
        body = json.dumps({"username": username, "realm": realm, "client": client}).encode()
        headers = {"Content-Type": "application/json", **signed(self._secret, str(int(wall_time)), body)}
        try:
            async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                body = await read_bounded(response, _MAX_ANSWER_BYTES)
                return read_answer(response.status_code, response.headers, body)
        except httpx.TimeoutException:
            raise Unavailable(f"{self.health.name}: no answer in {self._questions.timeout:g} s") from None
        except (httpx.HTTPError, BadHookAnswer, TooMuch) as error:
            raise Unavailable(f"{self.health.name}: {str(error) or type(error).__name__}") from None


def signed(secret: bytes, timestamp: str, body: bytes) -> Mapping[str, str]:
    """Headers that prove who sends this body, and when: timestamp in seconds since 1970, as text."""
    digest = hmac.digest(secret, timestamp.encode() + b"." + body, hashlib.sha256)
    return {TIMESTAMP: timestamp, SIGNATURE: f"v1={digest.hex()}"}
